"""Denoising of coordinates as a task: fresh displacements, something learned, and vectors that turn."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, molecule, random_params
from tiny_potential import labelled_dataset

from mlipjax.data import Dataset
from mlipjax.data.properties import label_property
from mlipjax.losses import LossWeights
from mlipjax.models import nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Optimizer, make_mode
from mlipjax.potential import property_values
from mlipjax.system import Labels
from mlipjax.train import Denoising, Mixture, Task, TaskJudge, TrainConfig, Training, TrainState, train
from mlipjax.train.batches import property_batches
from mlipjax.train.judge import denoising_errors

STEPS = 120
NOISE = 0.15
HEAD = PropertyHead("noise", "vector", hidden=(8,))


@functools.cache
def pretrained():
    """A network that has seen nothing but unlabelled methanol: (potential, params, errors before and after)."""
    potential = nequip(dataclasses.replace(SMALLEST, layer_norm=False)).replace(properties=(HEAD,))
    params = random_params(potential, dtype=np.float32)
    objective = Denoising(potential, HEAD, NOISE)
    key = jax.random.key(5)
    batches, held_out = (
        property_batches(potential, unlabelled(map(molecule, seeds)), 8, reach=objective.reach)
        for seeds in (range(8), range(8, 12))
    )
    errors = denoising_errors(objective, held_out, jax.random.key(6))
    strategy = make_mode("ft", params).override(learning_rate=0.02)
    optimizer = Optimizer(strategy.optimizer_config(STEPS))
    task = Task(HEAD.name, objective, batches, key, (HEAD.group,), errors=errors, draw=objective.draw)
    mixture = Mixture((task,))
    end, _ = train(
        Training(
            mixture,
            optimizer,
            TrainState.create(params, optimizer, key),
            strategy.hyper(LossWeights()),
            TrainConfig(STEPS, 40),
            TaskJudge(mixture, (HEAD.name, "mse")),
        )
    )
    return potential, end.best_params, errors(params), errors(end.best_params)


def unlabelled(systems):
    systems = tuple(systems)
    return Dataset(systems, tuple(Labels.create(system.n_atoms) for system in systems), ({},) * len(systems))


def test_a_network_that_saw_no_label_says_better_than_zero_how_atoms_were_displaced():
    *_, before, after = pretrained()
    # normal displacements cut off at 2.5 standard deviations
    assert after["mse_of_zero"] == pytest.approx(0.97, abs=0.3)
    assert after["mse_of_zero"] == before["mse_of_zero"]
    assert after["mse"] < 0.9 * after["mse_of_zero"]
    assert after["mse"] < before["mse"]


def test_what_it_predicts_turns_with_the_molecule_and_forgets_where_it_stands():
    potential, params, *_ = pretrained()
    predict = functools.partial(property_values, potential)
    rotation = -np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    still = molecule(20)
    turned = dataclasses.replace(still, positions=still.positions @ rotation.T + 1.5)
    before, after = (predict(params, graph_of(s, dtype=np.float32))["noise"] for s in (still, turned))
    np.testing.assert_allclose(after, before @ rotation.T, atol=2e-4)
    assert np.abs(before[:6]).max() > 0.1


def test_every_step_has_new_displacements_and_the_same_number_the_same_ones():
    potential = nequip(SMALLEST).replace(properties=(HEAD,))
    objective = Denoising(potential, HEAD, NOISE)
    batches = property_batches(potential, labelled_dataset((6,)), 1, reach=objective.reach)
    one, two, repeated, elsewhere = (
        objective.draw(batches, batches.plans, jax.random.key(key), number)[0]
        for key, number in ((1, 0), (1, 1), (1, 0), (2, 0))
    )
    jax.tree.map(np.testing.assert_array_equal, one, repeated)
    first, second, other = (batch.labels.properties["noise"][:6] for batch in (one, two, elsewhere))
    assert np.all(first != second)
    assert np.all(first != other)


def test_values_that_are_missing_or_none_are_refused():
    with pytest.raises(ValueError, match="found 0 structures"):
        label_property([], "gap", [])
    with pytest.raises(ValueError, match="expected a finite number"):
        label_property([molecule()], "gap", [np.nan])
