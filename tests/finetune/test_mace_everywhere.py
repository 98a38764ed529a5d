"""Fine-tuning strategies on a tiny MACE: what they train, and that training lowers the error."""

import functools

import jax
import numpy as np
import pytest
from labelled_files import other_material, rock_salts

import mlipjax
from mlipjax import tree
from mlipjax.calculator import Calculator
from mlipjax.data import Dataset, Example
from mlipjax.finetune import FinetuneSettings
from mlipjax.finetune.retain import REPLAY_HEAD, add_head
from mlipjax.models import MACEConfig, mace
from mlipjax.optim import make_strategy
from mlipjax.optim.groups import split
from mlipjax.optim.lora import Adapters, adapt
from mlipjax.train import evaluate


@functools.cache
def model():
    """(potential, params): drawn by numpy, nothing to compile."""
    potential = mace(
        MACEConfig(
            species=(3, 9, 11, 17),
            cutoff=3.5,
            hidden_irreps="4x0e + 4x1o",
            lmax=1,
            correlation=(2, 2),
            radial_hidden=(8,),
            avg_n_neighbors=6.0,
            readout_hidden=4,
        )
    )
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    return potential, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


@functools.cache
def data():
    """Rock salts labelled by a MACE with other weights."""
    potential, _ = model()
    teacher = Calculator(potential, other_material(model()[1]))
    examples = []
    for i, system in enumerate(rock_salts(6)):
        atoms = system.to_ase()
        atoms.calc = teacher
        labels = mlipjax.Labels.create(
            len(atoms), atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        )
        examples.append(Example(system, labels, {"run": i // 2}))
    return Dataset.from_examples(examples[:4]), Dataset.from_examples(examples[4:])


def trained_paths(strategy):
    trainable, _ = split(model()[1], strategy.rules)
    return {path for path, leaf in tree.flatten_paths(trainable).items() if leaf is not None}


def test_layers_are_frozen_from_the_embedding_up():
    _, params = model()
    trained = trained_paths(make_strategy("freeze", params, freeze_layers=1))
    assert trained == {path for path in tree.flatten_paths(params) if path.startswith(("layer_1/", "readout_"))}
    assert trained_paths(make_strategy("naive", params)) == set(tree.flatten_paths(params))


def test_every_layer_has_its_learning_rate():
    _, params = model()
    strategy = make_strategy("llrd", params)
    powers = tree.match_paths(tree.flatten_paths(params), strategy.rules)
    assert {path.split("/")[0]: group.power for path, group in powers.items()} == {
        "embedding": 2,
        "layer_0": 2,
        "layer_1": 1,
        "readout_energy": 0,
    }


def test_adapters_go_onto_all_equivariant_linear_maps():
    potential, params = model()
    strategy = make_strategy("lora", params, lora_rank=2)
    assert set(strategy.adapters.paths(params)) == {
        path
        for path in tree.flatten_paths(params)
        if any(f"/{kind}/" in path for kind in ("linear_up", "linear_down", "linear_out", "skip"))
    }
    adapted, more = adapt(potential, params, Adapters(2), jax.random.key(2))
    assert adapted.module.feature_sizes == (4, 4)
    assert tree.count(more) > tree.count(params)


def test_a_head_can_be_added():
    potential, params = add_head(*model())
    assert potential.heads == ("energy", REPLAY_HEAD)
    template = jax.eval_shape(potential.init, jax.random.key(0))
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, template)


@pytest.mark.slow
def test_fine_tuning_lowers_the_error():
    settings = FinetuneSettings(
        strategy="naive",
        epochs=8,
        batch_size=2,
        learning_rate=1e-2,
        e0s="estimate",
        ignore=("units", "sign"),
        replay_size=4,
    )
    train, valid = data()
    result = mlipjax.finetune(*model(), train, valid, settings=settings)
    before, after = (evaluate(*pair, train) for pair in (model(), (result.potential, result.params)))
    assert after["force_mae_meV_per_A"] < 0.95 * before["force_mae_meV_per_A"]
