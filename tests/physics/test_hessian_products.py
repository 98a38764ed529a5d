"""Products of a Hessian with a vector, against differences of forces and against the whole matrix; and their loss."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_mace import TINY
from tiny_nequip import SMALLEST, graph_of, molecule, random_params, skewed_crystal

from mlipjax.data.products import PROBE, PRODUCT, product_labels
from mlipjax.hessian import hessian_product, hessian_products, second_derivatives
from mlipjax.losses import Huber
from mlipjax.models import mace, nequip
from mlipjax.potential import apply
from mlipjax.train import make_batch
from mlipjax.train.products import HessianProducts

POTENTIALS = {"nequip": nequip(SMALLEST), "mace": mace(TINY)}


@functools.cache
def params_of(name):
    if name == "nequip":
        return random_params(POTENTIALS[name])
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(POTENTIALS[name].init, jax.random.key(0))
    return jax.tree.map(lambda leaf: 0.5 * rng.normal(size=leaf.shape), shapes)


@functools.cache
def crystal_and_molecule():
    """Two structures, with padding."""
    return graph_of(skewed_crystal(), molecule(), n_graphs=3)


def probes(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *crystal_and_molecule().positions.shape))


@functools.cache
def product(name, seed=0):
    return hessian_products(POTENTIALS[name], params_of(name), crystal_and_molecule(), probes(1, seed)[0])


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_product_is_the_difference_of_forces(name):
    graph, probe, step = crystal_and_molecule(), probes(1)[0], 1e-5
    high, low = (
        apply(POTENTIALS[name], params_of(name), graph.replace(positions=graph.positions + s * step * probe)).forces
        for s in (1.0, -1.0)
    )
    differences = -(high - low) / (2.0 * step)
    assert np.abs(differences).max() > 0.1
    np.testing.assert_allclose(product(name), differences, rtol=0.0, atol=1e-6 * np.abs(differences).max())
    np.testing.assert_array_equal(product(name)[~np.asarray(graph.atom_mask)], 0.0)


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_product_is_symmetric_and_zero_for_translations(name):
    graph, (v, w) = crystal_and_molecule(), probes(2)
    mask = np.asarray(graph.atom_mask)[:, None]
    potential, params = POTENTIALS[name], params_of(name)
    of_w = hessian_products(potential, params, graph, w)
    assert np.sum(mask * w * product(name)) == pytest.approx(float(np.sum(mask * v * of_w)), rel=1e-10)
    shift = np.ones_like(v) * np.array([[0.3, -1.0, 0.7]])
    largest = np.abs(product(name)).max()
    np.testing.assert_allclose(hessian_products(potential, params, graph, shift), 0.0, atol=1e-12 * largest)


def test_a_product_is_that_of_the_matrix():
    graph = graph_of(skewed_crystal())
    probe = np.where(np.asarray(graph.atom_mask)[:, None], probes(1)[0], 0.0)
    _, rows = second_derivatives(POTENTIALS["nequip"], params_of("nequip"), graph)
    found = hessian_products(POTENTIALS["nequip"], params_of("nequip"), graph, probe)
    expected = np.asarray(rows) @ probe.ravel()
    np.testing.assert_allclose(np.ravel(found), expected, rtol=1e-10, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_the_rule_agrees_with_differentiating_plainly_in_all_arguments():
    potential, graph = POTENTIALS["nequip"], crystal_and_molecule()
    probe, weight = probes(2)

    def plainly(params, graph, probe):
        def energy(positions):
            return jnp.sum(potential.node_energy(params, graph, positions)[0])

        masked = jnp.where(graph.atom_mask[:, None], probe, 0.0)
        return jax.jvp(jax.grad(energy), (graph.positions,), (masked,))[1]

    def scalar(function, params, positions, cells, probe):
        moved = graph.replace(positions=positions, cells=cells)
        return jnp.sum(weight * function(params, moved, probe))

    arguments = params_of("nequip"), graph.positions, graph.cells, probe
    rule, plain = (
        jax.jit(jax.grad(functools.partial(scalar, function), argnums=(0, 1, 2, 3)))(*arguments)
        for function in (functools.partial(hessian_product, potential), plainly)
    )
    for leaf, expected in zip(jax.tree.leaves(rule), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(leaf, expected, rtol=1e-8, atol=1e-9 * np.abs(expected).max() + 1e-12)


@functools.cache
def term():
    """The term of a batch of two structures and its gradient, compiled."""
    objective = HessianProducts(POTENTIALS["nequip"], Huber(0.1))
    return objective, jax.jit(jax.value_and_grad(objective, has_aux=True))


def batch_of(systems, seed=0):
    rng = np.random.default_rng(seed)
    labels = [product_labels(*rng.normal(size=(2, system.n_atoms, 3))) for system in systems]
    return make_batch(POTENTIALS["nequip"], systems, labels, n_atoms=16, n_neighbors=32, n_graphs=3, dtype=np.float64)


def test_the_gradient_of_the_term_is_its_slope():
    (objective, value_and_grad), batch = term(), batch_of([skewed_crystal(), molecule()])
    params, counts = params_of("nequip"), objective.counts(batch)
    rng, step = np.random.default_rng(1), 1e-6
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)

    def loss(shift):
        moved = jax.tree.map(lambda leaf, d: leaf + shift * d, params, direction)
        return float(value_and_grad(moved, batch, 0.3, counts)[0][0])

    gradient = value_and_grad(params, batch, 0.3, counts)[1]
    slope = sum(jax.tree.leaves(jax.tree.map(lambda a, b: np.sum(a * b), gradient, direction)))
    assert abs(slope) > 0.1
    assert float(slope) == pytest.approx((loss(step) - loss(-step)) / (2.0 * step), rel=1e-6)


def test_the_term_is_the_formula_and_adds_up_over_micro_batches():
    objective, value_and_grad = term()
    systems, params = [skewed_crystal(), molecule()], params_of("nequip")
    batch = batch_of(systems)
    probe, label = (np.asarray(batch.labels.properties[name]) for name in (PROBE, PRODUCT))
    n = sum(system.n_atoms for system in systems)
    assert np.sum(probe**2) == pytest.approx(3 * n)
    error = np.asarray(hessian_products(objective.potential, params, batch.graph, probe)) - label
    squared = np.mean(error[:n] ** 2, axis=1)
    expected = 0.3 * np.mean(np.sqrt(squared + 0.1**2) - 0.1)
    (loss, terms), whole = value_and_grad(params, batch, 0.3, objective.counts(batch))
    assert float(loss) == pytest.approx(expected, rel=1e-12)
    assert float(terms.mae) == pytest.approx(np.abs(error[:n]).mean(), rel=1e-12)
    rng, parts = np.random.default_rng(0), []
    for system in systems:  # the labels of the same draw
        labels = [product_labels(*rng.normal(size=(2, system.n_atoms, 3)))]
        sizes = {"n_atoms": 16, "n_neighbors": 32, "n_graphs": 3}
        part = make_batch(objective.potential, [system], labels, **sizes, dtype=np.float64)
        parts.append(value_and_grad(params, part, 0.3, objective.counts(batch)))
    assert float(parts[0][0][0] + parts[1][0][0]) == pytest.approx(expected, rel=1e-10)
    added = jax.tree.map(lambda a, b: a + b, parts[0][1], parts[1][1])
    for leaf, other in zip(jax.tree.leaves(added), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-9, atol=1e-11)
