"""Derivatives of converged barriers and relaxed geometries against finite differences of whole new searches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from migration_case import bistable, pair

from mlipjax.probes import initial_path
from mlipjax.relaxation import converged_barrier, relaxed_positions
from mlipjax.system import System

FREE = np.array([False, False, True])


def finite_difference(function, params, name, step):
    """Of the value of ``function``, which returns value and gradient: one program serves both."""
    high, low = (function({**params, name: params[name] + sign * step})[0] for sign in (1.0, -1.0))
    return float(high - low) / (2.0 * step)


@pytest.fixture(scope="module")
def solve():
    """Barrier of the atom between two fixed ones and its gradient, as a function of the parameters."""
    path = initial_path(bistable(), 3, "linear")
    images = [dataclasses.replace(bistable()[0], positions=positions) for positions in path]
    return jax.jit(jax.value_and_grad(converged_barrier(pair()[0], images, free=FREE, fmax=1e-7)))


def test_gradient_of_a_barrier_is_that_of_new_searches(solve):
    params = pair()[1]
    barrier, gradient = solve(params)
    assert 0.02 < float(barrier) < 0.1
    for name in ("sigma", "epsilon"):
        assert float(gradient[name]) == pytest.approx(finite_difference(solve, params, name, 1e-4), rel=1e-4)
    # all energies are proportional to epsilon, so the barrier is as well
    assert float(gradient["epsilon"]) == pytest.approx(float(barrier) / float(params["epsilon"]), rel=1e-6)


def test_a_barrier_that_was_not_found_is_nan(solve):
    # the minima move by more than the tables allow
    barrier, gradient = solve({**pair()[1], "sigma": np.float64(1.2)})
    assert np.isnan(float(barrier))
    assert np.isnan(float(gradient["epsilon"]))


def weighted_distances(relaxed, weights):
    """Distances around the ring of atoms, which no rigid motion changes, and their gradient."""

    def observable(params):
        r = relaxed(params)
        return jnp.sum(weights * jnp.linalg.norm(r - jnp.roll(r, 1, axis=0), axis=1))

    return jax.jit(jax.value_and_grad(observable))


@pytest.mark.slow
def test_gradient_of_a_relaxed_cluster_is_that_of_new_searches():
    rng = np.random.default_rng(0)
    tetrahedron = 2.55 / np.sqrt(8.0) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    cluster = System.from_ase(Atoms("Cu4", tetrahedron + rng.normal(scale=0.02, size=(4, 3))))
    potential, params = pair()
    function = weighted_distances(relaxed_positions(potential, cluster, fmax=1e-9), jnp.asarray(rng.normal(size=4)))
    _, gradient = function(params)
    expected = finite_difference(function, params, "sigma", 1e-4)
    assert float(gradient["sigma"]) == pytest.approx(expected, rel=1e-4)
    assert abs(float(gradient["epsilon"])) < 1e-6  # a factor of all energies moves no minimum
    assert abs(expected) > 0.05


@pytest.mark.slow
def test_gradient_of_a_relaxed_atom_between_held_ones():
    potential, params = pair()
    relaxed = relaxed_positions(potential, bistable()[0], free=FREE, fmax=1e-9)
    function = weighted_distances(relaxed, jnp.asarray([0.0, 1.0, 0.3]))
    _, gradient = function(params)
    expected = finite_difference(function, params, "sigma", 1e-4)
    assert float(gradient["sigma"]) == pytest.approx(expected, rel=1e-4)
    assert abs(expected) > 0.05


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one between"):
        converged_barrier(pair()[0], bistable())
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit"):
        relaxed_positions(pair()[0], bistable()[0])
