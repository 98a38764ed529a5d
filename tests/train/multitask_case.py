"""A tiny potential with a property, structures whose property it can learn, and its tasks."""

import functools

import jax
import numpy as np
from tiny_potential import init_params, labelled_dataset, tiny_potential

from mlipjax.data.properties import label_property
from mlipjax.losses import LossWeights, mse_loss
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Optimizer, make_mode
from mlipjax.train import (
    ForceField,
    LabelledBatches,
    Mixture,
    Prefactors,
    PropertyValue,
    Task,
    TaskJudge,
    TrainConfig,
    Training,
    TrainState,
    mixture_step,
)
from mlipjax.train.batches import property_batches
from mlipjax.train.judge import property_errors

HEAD = PropertyHead("oxygen", hidden=(6,), mean=0.4, std=0.3)
SIZES = (6,) * 8
LOSS = mse_loss()  # one object: its gradient is compiled once


def property_data(dataset, key="oxygen"):
    """Structures of a data set; the property is the fraction of oxygen."""
    return label_property(dataset.systems, key, [np.mean(s.atomic_numbers == 8) for s in dataset.systems])


@functools.cache
def model():
    potential = tiny_potential().replace(properties=(HEAD,))
    return potential, init_params(potential)


@functools.cache
def training(kind="draw", total_steps=12, epoch=4, learning_rate=None):
    """A run of property and force field with equal shares, ready to start."""
    potential, params = model()
    batches = property_batches(potential, property_data(labelled_dataset(SIZES)), 4, dtype=np.float64)
    labelled = LabelledBatches.create(potential, labelled_dataset(SIZES), 2, dtype=np.float64, max_slots=400)
    key = jax.random.key(3)
    weights = Prefactors(LossWeights(2.0, 10.0, 0.0), LossWeights(20.0, 1.0, 1.0))
    errors, share = property_errors(potential, batches, "oxygen"), 0.5 if kind == "sum" else 1.0
    tasks = (
        Task("oxygen", PropertyValue(potential, HEAD), batches, key, (HEAD.group,), errors=errors),
        Task("force_field", ForceField(potential, LOSS), labelled, key, ("readout_energy",), weights, share),
    )
    strategy = make_mode("mft", params).override(learning_rate=learning_rate)
    optimizer, mixture = Optimizer(strategy.optimizer_config(total_steps)), Mixture(tasks, kind)
    return Training(
        mixture,
        optimizer,
        TrainState.create(params, optimizer, key),
        strategy.hyper(LossWeights()),
        TrainConfig(total_steps, epoch, checkpoint_seconds=0.0, apart=True),
        TaskJudge(mixture, ("oxygen", "mae")),
    )


def drawn(run, turn, number=0):
    """Batch of step ``number`` of task ``turn``."""
    return (next(run.mixture.tasks[turn].steps(number)),)


def step(run, state, draws):
    """One optimiser step."""
    return mixture_step(run.mixture, run.optimizer, state, draws, run.hyper)
