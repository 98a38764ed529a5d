"""The kernels for GPUs, interpreted, within whole models: predictions and the gradients that training takes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase.build import bulk
from tiny_mace import TINY, TINY_NONLINEAR
from tiny_nequip import SMALL, SMALLEST, graph_of, molecule, random_params, skewed_crystal

import mlipjax
from mlipjax.graph import batch_graphs
from mlipjax.models import mace, nequip
from mlipjax.potential import apply


def both(potential):
    return potential, potential.replace(backend="pallas")


def loss(potential, params, graph):
    """A loss of energies, forces and stresses."""
    found = potential.apply(params, graph)
    return jnp.sum(found.energy**2) + jnp.sum(found.forces**3) + jnp.sum(found.stress**2)


def compare(found, expected, tolerance=1e-12):
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        other = expected
        for key in path:
            other = other[key.key] if hasattr(key, "key") else getattr(other, key.name)
        scale = np.abs(other).max()
        np.testing.assert_allclose(leaf, other, rtol=0, atol=tolerance * max(scale, 1.0), err_msg=str(path))


def test_predictions_are_those_of_the_dense_formula():
    potential = nequip(SMALL)
    params, graph = random_params(potential), graph_of(skewed_crystal(), molecule())
    expected, found = (apply(p, params, graph) for p in both(potential))
    assert np.abs(expected.forces).max() > 0.1
    assert np.abs(expected.stress).max() > 1e-3
    compare(found, expected)


@pytest.mark.slow
def test_gradients_of_a_loss_of_forces_are_those_of_the_dense_formula():
    potential = nequip(SMALLEST)
    params, graph = random_params(potential), graph_of(skewed_crystal(), n_atoms=6)
    expected, found = (jax.jit(jax.grad(lambda w, p=p: loss(p, w, graph)))(params) for p in both(potential))
    compare(found, expected, 1e-11)


@pytest.mark.slow
@pytest.mark.parametrize("config", [TINY, TINY_NONLINEAR], ids=["linear", "nonlinear"])
def test_mace_predicts_as_before(config):
    potential = mace(config)
    params, graph = random_params(potential), graph_of(molecule(), cutoff=config.cutoff, n_atoms=8, n_graphs=1)
    expected, found = (apply(p, params, graph) for p in both(potential))
    assert np.abs(expected.forces).max() > 1e-3
    compare(found, expected, 1e-11)


@pytest.mark.slow
def test_a_published_model_predicts_as_before(shared_data):
    potential, params = mlipjax.load(str(shared_data / "weights" / "nequix-mp-1.nqx"))
    atoms = bulk("Si")
    atoms.rattle(0.05, seed=0)
    graph = batch_graphs([mlipjax.System.from_ase(atoms)], potential.cutoff, dtype=np.float64)
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    expected, found = (apply(p, params, graph) for p in both(potential))
    assert np.abs(expected.forces).max() > 0.1
    compare(found, expected, 1e-11)


def test_equal_choices_share_a_program():
    potential = nequip(SMALLEST)
    (dense, first), (_, second) = both(potential), both(nequip(SMALLEST))
    assert first == second
    assert hash(first) == hash(second)
    assert first != dense


def test_unknown_backends_and_architectures_without_kernels_are_refused():
    potential = nequip(SMALLEST)
    with pytest.raises(ValueError, match="backend is one of dense, pallas; found 'cuda'"):
        potential.replace(backend="cuda")
    with pytest.raises(ValueError, match="no kernels of its own"):
        dataclasses.replace(potential, module=object(), backend="pallas")
