"""A sweep small enough for a test; run as a program it checks that several devices compute what one does."""

from __future__ import annotations

import dataclasses
import sys

import jax
import numpy as np
from tiny_potential import init_params, labelled_dataset, tiny_batch, tiny_potential

from mlipjax.losses import LossWeights, huber_loss
from mlipjax.optim import Optimizer, OptimizerConfig
from mlipjax.train import TrainState
from mlipjax.train.sweep import batch_orders, grid, hyper_of, layer_rules, one_run, over_settings, stack

SETTINGS = grid((0, 1), (1e-3, 1e-2), (1.0, 0.5), (0, 1))[:11]
"""Eleven: no multiple of a width or a number of devices."""

STEPS = 6


@dataclasses.dataclass(frozen=True)
class Case:
    potential: object
    optimizer: object
    run: object
    states: list
    orders: list
    hypers: list
    batches: object

    def mapped(self):
        return stack(self.states), np.stack(self.orders), stack(self.hypers)


def case():
    potential = tiny_potential()
    params = init_params(potential)
    rules = layer_rules(params)
    optimizer = Optimizer(OptimizerConfig(rules=rules, total_steps=STEPS))
    batches = [tiny_batch(labelled_dataset((6, 6), seed), potential, n_atoms=12, n_neighbors=64) for seed in range(3)]
    return Case(
        potential,
        optimizer,
        one_run(potential, optimizer, huber_loss()),
        [TrainState.create(params, optimizer, jax.random.key(setting.seed)) for setting in SETTINGS],
        [batch_orders(setting, 3, 2).reshape(-1) for setting in SETTINGS],
        [hyper_of(setting, rules, LossWeights(), np.float64) for setting in SETTINGS],
        stack(batches),
    )


def numbers(states, losses):
    """Everything a setting ends with, as arrays."""
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(states.params)}
    leaves |= {"ema" + name: leaf for name, leaf in zip(leaves, jax.tree.leaves(states.ema_params), strict=True)}
    return {name: np.asarray(leaf) for name, leaf in leaves.items()} | {"losses": np.asarray(losses)}


def mapped(case, width, devices=None):
    def run(arguments, batches):
        return case.run(*arguments, batches)

    return over_settings(run, width, devices)(case.mapped(), case.batches)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    the_case = case()
    alone = numbers(*mapped(the_case, 2, jax.devices()[:1]))
    states, losses = mapped(the_case, 2)
    together = numbers(states, losses)
    for name, value in alone.items():
        np.testing.assert_allclose(together[name], value, rtol=1e-10, atol=1e-13, err_msg=name)
    print(f"{len(jax.devices())} devices agree", file=sys.stdout)
