"""Denoising of coordinates as a task: fresh displacements, something learned, and vectors that turn."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, molecule, random_params
from tiny_potential import labelled_dataset

from mlipjax.data.properties import PropertyData
from mlipjax.losses import LossWeights
from mlipjax.models import nequip
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Optimizer, make_mode
from mlipjax.potential import property_values
from mlipjax.train import TrainState
from mlipjax.train.multitask import Mixture, MixtureProgram
from mlipjax.train.multitask_batches import PropertyStream
from mlipjax.train.multitask_loop import MixtureConfig, train_mixture
from mlipjax.train.multitask_tasks import denoising_errors, denoising_task

STEPS = 120
NOISE = 0.15
HEAD = PropertyHead("noise", "vector", hidden=(8,))


@functools.cache
def pretrained():
    """A network that has seen nothing but unlabelled methanol: (potential, params, errors before and after)."""
    potential = nequip(dataclasses.replace(SMALLEST, layer_norm=False)).replace(properties=(HEAD,))
    params = random_params(potential, dtype=np.float32)
    data = PropertyData.from_systems([molecule(seed) for seed in range(12)], "none")
    key = jax.random.key(5)
    stream = PropertyStream.create(potential, data.subset(range(8)), 8, noise=NOISE)
    held_out = PropertyStream.create(potential, data.subset(range(8, 12)), 8, noise=NOISE)
    errors = denoising_errors(potential, held_out, HEAD.name, jax.random.key(6))
    task = denoising_task(potential, HEAD, stream, key, evaluate=errors)
    strategy = make_mode("ft", params).override(learning_rate=0.02)
    optimizer = Optimizer(strategy.optimizer_config(STEPS))
    end = train_mixture(
        MixtureProgram(Mixture((task,)), optimizer),
        TrainState.create(params, optimizer, key),
        strategy.hyper(LossWeights()),
        MixtureConfig(STEPS, 40, (HEAD.name, "mse")),
    )
    return potential, end.best_params, errors(params), errors(end.best_params)


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
    data = PropertyData.from_systems(labelled_dataset((6,)).systems, "none")
    stream = PropertyStream.create(potential, data, 1, noise=NOISE)
    first, again = (denoising_task(potential, HEAD, stream, jax.random.key(1)) for _ in range(2))
    other = denoising_task(potential, HEAD, stream, jax.random.key(2))
    one, two, repeated, elsewhere = (
        task.batches(number)[0] for task, number in ((first, 0), (first, 1), (again, 0), (other, 0))
    )
    np.testing.assert_array_equal(one.noise, repeated.noise)
    np.testing.assert_array_equal(one.graph.positions, repeated.graph.positions)
    assert np.all(one.noise[:6] != two.noise[:6])
    assert np.all(one.noise[:6] != elsewhere.noise[:6])


def test_structures_without_values_cannot_be_taken_for_labelled_ones():
    data = PropertyData.from_systems([molecule()], "none")
    assert np.isnan(data.targets).all()
    with pytest.raises(ValueError, match="no structure"):
        PropertyData.from_systems([], "none")
    with pytest.raises(ValueError, match="not finite"):
        PropertyData.from_systems([molecule()], "gap", np.array([np.nan]))
