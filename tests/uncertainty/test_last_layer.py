"""Features of the last layer: energies are linear in them, forces are their slopes, for every architecture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bars_case import POTENTIALS, applied, atom_features, force_features, force_sketch, graph, model, paths

from mlipjax import tree, uncertainty
from mlipjax.optim.lora import Adapters, adapt

NAMES = pytest.mark.parametrize("name", POTENTIALS)


def without_last_layer(name):
    flat = tree.flatten_paths(model(name).params)
    zero = {path: jnp.zeros_like(flat[path]) for path in paths(name)}
    weights = jnp.concatenate([flat[path].ravel() for path in paths(name)])
    return tree.unflatten_paths({**flat, **zero}), weights


@NAMES
def test_energies_and_forces_are_linear_in_the_features(name):
    potential, params = model(name)
    batch, (rest, weights) = graph(name), without_last_layer(name)
    whole, without = (applied(potential, p, batch) for p in (params, rest))
    features = atom_features(potential, params, batch, batch.positions, paths(name))
    np.testing.assert_allclose(features @ weights, whole.node_energy - without.node_energy, atol=1e-12)
    slopes = force_features(potential, params, batch, paths(name), weights[:, None])[0]
    np.testing.assert_allclose(-slopes, whole.forces - without.forces, atol=1e-12)
    assert np.abs(whole.forces - without.forces).max() > 1e-3


@NAMES
def test_force_features_are_finite_differences_of_the_features(name):
    potential, params = model(name)
    batch, n = graph(name), 6
    slopes = force_features(potential, params, batch, paths(name), jnp.eye(_size(name)))

    def total(positions):
        return jnp.sum(atom_features(potential, params, batch, positions, paths(name)), axis=0)

    for atom, axis in ((0, 0), (n, 1), (12, 2)):
        step = jnp.zeros_like(batch.positions).at[atom, axis].set(1e-5)
        difference = (total(batch.positions + step) - total(batch.positions - step)) / 2e-5
        np.testing.assert_allclose(slopes[:, atom, axis], difference, rtol=1e-5, atol=1e-7)


def _size(name):
    flat = tree.flatten_paths(model(name).params)
    return sum(flat[path].size for path in paths(name))


def test_moves_along_every_coordinate_give_the_whole_gauss_newton_matrix():
    potential, params = model()
    batch = graph()
    slopes = force_features(potential, params, batch, paths(), jnp.eye(_size("nequip")))
    n_atoms = batch.positions.shape[0]
    moves = jnp.eye(3 * n_atoms).reshape(-1, n_atoms, 3)
    rows = force_sketch(potential, params, batch, paths(), moves)
    for structure in range(3):
        own = np.asarray(slopes)[:, np.asarray(batch.graph_index) == structure].reshape(_size("nequip"), -1)
        np.testing.assert_allclose(
            np.einsum("df,dg->fg", rows[:, structure], rows[:, structure]), own @ own.T, atol=1e-9
        )


def test_random_moves_give_it_on_average():
    potential, params = model()
    batch = graph()
    exact = force_features(potential, params, batch, paths(), jnp.eye(_size("nequip")))
    exact = np.einsum("fna,gna->fg", exact, exact)
    moves = jax.random.rademacher(jax.random.key(1), (4000, *batch.positions.shape), jnp.float64)
    rows = np.asarray(force_sketch(potential, params, batch, paths(), moves)).sum(axis=1)
    found = rows.T @ rows / len(moves)
    assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_adapters_below_the_last_layer_change_nothing():
    potential, params = model()
    adapted, tuned = adapt(potential, params, Adapters(rank=2), jax.random.key(0))
    batch = graph()
    found = uncertainty.last_layer_paths(tuned, "energy")
    assert found == ("base/readout_energy/kernel",)
    np.testing.assert_array_equal(
        atom_features(adapted, tuned, batch, batch.positions, found),
        atom_features(potential, params, batch, batch.positions, paths()),
    )


def test_a_readout_without_a_linear_end_is_refused():
    with pytest.raises(ValueError, match="no linear map ends the readout of 'other'"):
        uncertainty.last_layer_paths(model().params, "other")
