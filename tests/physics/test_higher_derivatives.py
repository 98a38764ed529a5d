"""Derivatives of forces and stress: training, hyper-gradients and force constants rest on them.

The pull-back through the forces has a rule of its own (one forward-mode and one reverse pass). It is compared with
differentiating the energy twice, and with central differences.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_nequip import SMALL, SMALLEST, graph_of, molecule, random_params, skewed_crystal

from mlipjax.models import nequip
from mlipjax.potential import sum_over_atoms


def predict_by_rule(potential, params, graph):
    prediction = potential.apply(params, graph)
    return prediction.energy, prediction.forces, prediction.stress, prediction.node_energy, prediction.features


def predict_by_plain_autodiff(potential, params, graph):
    def energy(positions, strain):
        node_energy, features = potential.node_energy(params, graph, positions, strain)
        return jnp.sum(node_energy), (node_energy, features)

    strain = jnp.zeros_like(graph.cells)
    slopes, (node_energy, features) = jax.grad(energy, argnums=(0, 1), has_aux=True)(graph.positions, strain)
    volume = jnp.abs(jnp.linalg.det(graph.cells))
    stress = slopes[1] / jnp.where(volume > 0.0, volume, jnp.inf)[:, None, None]
    return sum_over_atoms(graph, node_energy), -slopes[0], stress, node_energy, features


def scalar(predict, potential, graph, params, positions, cells):
    """One number that depends on every output, forces and stress included."""
    outputs = predict(potential, params, graph.replace(positions=positions, cells=cells))
    rng = np.random.default_rng(5)
    return sum(
        jnp.sum(rng.normal(size=output.shape) * output) * (30.0 if output.ndim == 3 else 1.0) for output in outputs
    )


@pytest.fixture(scope="module", params=["smallest", pytest.param("small", marks=pytest.mark.slow)])
def case(request):
    """Potential, graph, arguments of ``scalar``, its value and gradient by our rule."""
    if request.param == "smallest":
        potential, sizes = nequip(SMALLEST), {"n_atoms": 7, "n_neighbors": 24}
        two_atoms = molecule().replace(positions=molecule().positions[:2], atomic_numbers=molecule().atomic_numbers[:2])
        graph = graph_of(skewed_crystal(), two_atoms, n_graphs=2, **sizes)
    else:  # so many edges that they are worked off in blocks
        potential, sizes = nequip(SMALL), {"n_atoms": 11, "n_neighbors": 24}
        graph = graph_of(skewed_crystal(), molecule(), n_graphs=2, **sizes)
    arguments = random_params(potential), graph.positions, graph.cells
    function = functools.partial(scalar, predict_by_rule, potential, graph)
    value, gradient = jax.jit(jax.value_and_grad(function, argnums=(0, 1, 2)))(*arguments)
    return potential, graph, arguments, value, gradient


def test_the_rule_agrees_with_differentiating_the_energy_twice(case):
    potential, graph, arguments, value, gradient = case
    plain = functools.partial(scalar, predict_by_plain_autodiff, potential, graph)
    other_value, other = jax.jit(jax.value_and_grad(plain, argnums=(0, 1, 2)))(*arguments)
    np.testing.assert_allclose(value, other_value, rtol=1e-12)
    for leaf, expected in zip(jax.tree.leaves(gradient), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max() + 1e-12)
    # the molecule has no cell
    np.testing.assert_array_equal(gradient[2][1], 0.0)


def test_the_rule_agrees_with_central_differences(case):
    potential, graph, arguments, _, gradient = case
    value = jax.jit(functools.partial(scalar, predict_by_rule, potential, graph))
    rng = np.random.default_rng(0)
    step = 1e-5
    for number in range(3):
        direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), arguments[number])
        if number == 2:
            direction[1] = 0.0  # a molecule stays a molecule
        high, low = (value(*_moved(arguments, number, s * step, direction)) for s in (1.0, -1.0))
        slope = _inner(gradient[number], direction)
        assert abs(slope) > 0.1
        assert slope == pytest.approx(float(high - low) / (2 * step), rel=1e-6)


def _moved(arguments, number, step, direction):
    moved = jax.tree.map(lambda leaf, d: leaf + step * d, arguments[number], direction)
    return *arguments[:number], moved, *arguments[number + 1 :]


def _inner(tree, direction):
    return float(sum(jax.tree.leaves(jax.tree.map(lambda a, b: np.sum(a * b), tree, direction))))


@pytest.mark.parametrize("number", [0, 1], ids=["params", "positions"])
@pytest.mark.parametrize("n_layers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_third_derivatives(n_layers, number):
    potential = nequip(dataclasses.replace(SMALLEST, n_layers=n_layers))
    graph = graph_of(skewed_crystal(), n_atoms=5, n_neighbors=24, n_graphs=1)
    rng = np.random.default_rng(0)
    v, w = rng.normal(size=(2, 5, 3))

    def curvature(params, positions):
        """v . (d/dr)(w . F): second derivatives of the energy, contracted."""

        def work(positions):
            return jnp.sum(w * potential.apply(params, graph.replace(positions=positions), stress=False).forces)

        return jnp.sum(v * jax.grad(work)(positions))

    both = jax.jit(jax.value_and_grad(curvature, argnums=number))
    arguments = random_params(potential), graph.positions
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), arguments[number])
    step = 1e-5
    high, low = (both(*_moved(arguments, number, s * step, direction))[0] for s in (1.0, -1.0))
    slope = _inner(both(*arguments)[1], direction)
    assert abs(slope) > 0.01
    assert slope == pytest.approx(float(high - low) / (2 * step), rel=1e-6)
