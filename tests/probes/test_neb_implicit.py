"""Derivatives of converged barriers and relaxed geometries against finite differences of whole new searches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from migration_case import bistable, pair

from mlipjax.probes import initial_path
from mlipjax.probes.implicit import converged_barrier, relaxed_positions
from mlipjax.system import System

FREE = np.array([False, False, True])


def finite_difference(function, params, name, step):
    high, low = ({**params, name: params[name] + sign * step} for sign in (1.0, -1.0))
    return (function(high) - function(low)) / (2.0 * step)


@pytest.fixture(scope="module")
def barrier():
    """Barrier of the atom between two fixed ones, as a function of the parameters, compiled once."""
    path = initial_path(bistable(), 3, "linear")
    images = [dataclasses.replace(bistable()[0], positions=positions) for positions in path]
    return converged_barrier(pair()[0], images, free=FREE, fmax=1e-7)


def test_gradient_of_a_barrier_is_that_of_new_searches(barrier):
    params = pair()[1]
    solve = jax.jit(barrier)
    gradient = jax.grad(barrier)(params)
    assert 0.02 < float(solve(params)) < 0.1
    for name, step in (("sigma", 1e-4), ("epsilon", 1e-4)):
        expected = finite_difference(solve, params, name, step)
        assert float(gradient[name]) == pytest.approx(float(expected), rel=1e-4)
    # all energies are proportional to epsilon, so the barrier is as well
    assert float(gradient["epsilon"]) == pytest.approx(float(solve(params)) / float(params["epsilon"]), rel=1e-6)


def test_a_barrier_that_was_not_found_is_nan(barrier):
    far = {**pair()[1], "sigma": np.float64(1.2)}  # the minima move by more than the tables allow
    assert np.isnan(float(barrier(far)))
    assert np.isnan(float(jax.grad(barrier)(far)["epsilon"]))


def test_gradient_of_a_relaxed_cluster_is_that_of_new_searches():
    rng = np.random.default_rng(0)
    tetrahedron = 2.55 / np.sqrt(8.0) * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    cluster = System.from_ase(Atoms("Cu4", tetrahedron + rng.normal(scale=0.02, size=(4, 3))))
    potential, params = pair()
    relaxed = relaxed_positions(potential, cluster, fmax=1e-9)
    weights = jnp.asarray(rng.normal(size=(4, 3)))

    def observable(params):
        r = relaxed(params)
        # distances, which no rigid motion changes
        return jnp.sum(weights[:, :1] * jnp.linalg.norm(r - jnp.roll(r, 1, axis=0), axis=1, keepdims=True))

    gradient = jax.grad(observable)(params)
    expected = finite_difference(jax.jit(observable), params, "sigma", 1e-4)
    assert float(gradient["sigma"]) == pytest.approx(float(expected), rel=1e-4)
    assert abs(float(gradient["epsilon"])) < 1e-6  # a factor of all energies moves no minimum
    assert abs(float(expected)) > 0.05


def test_held_atoms_do_not_move_with_the_parameters():
    potential, params = pair()
    relaxed = relaxed_positions(potential, bistable()[0], free=FREE, fmax=1e-9)
    jacobian = jax.jacrev(relaxed)(params)["sigma"]
    np.testing.assert_array_equal(jacobian[:2], 0.0)
    expected = finite_difference(jax.jit(relaxed), params, "sigma", 1e-4)
    np.testing.assert_allclose(jacobian, expected, atol=1e-5)
    assert abs(float(jacobian[2, 0])) > 0.1


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="at least one between"):
        converged_barrier(pair()[0], bistable())
    with jax.enable_x64(False), pytest.raises(ValueError, match="64-bit"):
        relaxed_positions(pair()[0], bistable()[0])
