"""A tiny potential with a property, structures whose property it can learn, and its tasks."""

import functools

import jax
import numpy as np
from tiny_potential import init_params, labelled_dataset, tiny_potential

from mlipjax.data.properties import PropertyData
from mlipjax.losses import LossWeights, mse_loss
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Optimizer, make_mode
from mlipjax.train import LabelledBatches, TrainState
from mlipjax.train.multitask import Mixture, MixtureProgram, Prefactors
from mlipjax.train.multitask_batches import PropertyStream
from mlipjax.train.multitask_tasks import force_field_task, property_errors, property_task

HEAD = PropertyHead("oxygen", hidden=(6,), mean=0.4, std=0.3)
SIZES = (6,) * 8
LOSS = mse_loss()  # one object: its gradient is compiled once


def property_data(dataset, key="oxygen"):
    """Structures of a data set; the property is the fraction of oxygen."""
    arrays = {
        "atomic_numbers": np.concatenate([np.asarray(s.atomic_numbers) for s in dataset.systems]),
        "positions": np.concatenate([np.asarray(s.positions) for s in dataset.systems]),
        "n_atoms": np.array([s.n_atoms for s in dataset.systems]),
        "cells": np.array([s.cell for s in dataset.systems]),
        "pbc": np.array([s.pbc for s in dataset.systems]),
        key: np.array([np.mean(s.atomic_numbers == 8) for s in dataset.systems]),
    }
    return PropertyData.from_arrays(arrays, key, "test")


@functools.cache
def model():
    potential = tiny_potential().replace(properties=(HEAD,))
    return potential, init_params(potential)


@functools.cache
def program(kind="draw", total_steps=12, mode="mft"):
    """(program, state before the first step, hyper): property and force field with equal shares."""
    potential, params = model()
    data = property_data(labelled_dataset(SIZES))
    stream = PropertyStream.create(potential, data, 4, dtype=np.float64)
    labelled = LabelledBatches.create(potential, labelled_dataset(SIZES), 2, dtype=np.float64, max_slots=400)
    key = jax.random.key(3)
    weights = Prefactors(LossWeights(2.0, 10.0, 0.0), LossWeights(20.0, 1.0, 1.0))
    tasks = (
        property_task(potential, HEAD, stream, key, evaluate=property_errors(potential, stream, "oxygen")),
        force_field_task(potential, labelled, LOSS, key, prefactors=weights, share=0.5 if kind == "sum" else 1.0),
    )
    strategy = make_mode(mode, params)
    optimizer = Optimizer(strategy.optimizer_config(total_steps))
    state = TrainState.create(params, optimizer, key)
    return MixtureProgram(Mixture(tasks, kind), optimizer), state, strategy.hyper(LossWeights())
