"""Kernels for GPUs, interpreted: they give what the plain formula gives, with all derivatives that are asked for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_nequip import graph_of, molecule

from mlipjax.graph import edge_vectors
from mlipjax.nn.convolution import convolve, convolve_by_kernels
from mlipjax.nn.irreps import parse, tensor_product_paths
from mlipjax.nn.primitives import message_kernels
from mlipjax.nn.radial_table import RadialBasis, RadialEdges
from mlipjax.nn.spherical import spherical_harmonics

INPUTS, OUTPUTS, LMAX = parse("18x0e + 3x1o + 2x1e"), parse("5x0e + 2x1o"), 1
PATHS = tensor_product_paths(INPUTS, LMAX, OUTPUTS)
SIZES = (3, 19, sum(path.mul for path in PATHS))


@pytest.fixture(scope="module")
def case():
    """Two tiles of channels, unused slots, atoms without neighbours (padding), hidden units between powers of two."""
    graph = graph_of(molecule(), n_atoms=8, n_neighbors=20)
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(8, irrep.dim, irrep.mul)) for irrep in INPUTS]
    basis = rng.normal(size=(8, 20, SIZES[0])) * graph.edge_mask[..., None]
    vectors = np.asarray(edge_vectors(graph, graph.positions, graph.cells))
    harmonics = [np.asarray(y) for y in spherical_harmonics(vectors, LMAX)]
    kernels = [rng.normal(size=shape) for shape in itertools.pairwise(SIZES)]
    return graph, (features, basis, harmonics, kernels)


def by_both(graph):
    """Messages as functions of (features, basis, harmonics, kernels): by kernels, and plainly."""

    def fused(features, basis, harmonics, kernels):
        edges = RadialEdges(RadialBasis(basis))
        return convolve_by_kernels(
            features, (graph.neighbors, graph.reverse), edges, harmonics, kernels, PATHS, OUTPUTS
        )

    def plain(features, basis, harmonics, kernels):
        edges = RadialEdges(RadialBasis(basis))
        return convolve(features, graph.neighbors, edges, harmonics, kernels, PATHS, OUTPUTS)

    return fused, plain


def compare(results):
    for found, expected in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())


def directional(function, arguments, seed=1):
    """Function values and slopes along random directions, as a function of all arguments."""
    rng = np.random.default_rng(seed)
    directions = jax.tree.map(lambda x: rng.normal(size=x.shape), arguments)
    return lambda *given: jax.jvp(function, given, directions)


def weighed(function, arguments, seed=2):
    """The sum of a function's results with random weights."""
    rng = np.random.default_rng(seed)
    weights = jax.tree.map(lambda x: rng.normal(size=x.shape), jax.eval_shape(function, *arguments))
    return lambda *given: sum(
        jnp.sum(w * x) for w, x in zip(*map(jax.tree.leaves, (weights, function(*given))), strict=True)
    )


@pytest.mark.parametrize(
    "slots", [pytest.param(32, id="one block of slots", marks=pytest.mark.slow), pytest.param(16, id="two blocks")]
)
def test_values_slopes_and_gradients_of_both_are_those_of_the_formula(case, slots, monkeypatch):
    for name in ("FORWARD", "BACKWARD"):
        monkeypatch.setattr(message_kernels, name, (slots, 16))
    graph, arguments = case
    compare([jax.jit(f)(*arguments) for f in by_both(graph)])
    compare([jax.jit(directional(f, arguments))(*arguments) for f in by_both(graph)])
    compare([jax.jit(jax.grad(weighed(f, arguments), argnums=(0, 1, 2, 3)))(*arguments) for f in by_both(graph)])


@pytest.mark.slow
def test_gradients_of_slopes_and_slopes_of_gradients_are_those_of_the_formula(case):
    graph, arguments = case
    of_slopes, of_gradients = [], []
    for function in by_both(graph):
        slope = weighed(directional(function, arguments), arguments)
        of_slopes.append(jax.jit(jax.grad(slope, argnums=(0, 1, 2, 3)))(*arguments))
        gradient = jax.grad(weighed(function, arguments), argnums=(0, 1, 2, 3))
        of_gradients.append(jax.jit(directional(gradient, arguments))(*arguments)[1])
    compare(of_slopes)
    compare(of_gradients)


def test_what_is_not_asked_for_is_not_computed(case):
    graph, arguments = case
    fused, _ = by_both(graph)
    program = str(jax.make_jaxpr(jax.grad(weighed(fused, arguments), argnums=2))(*arguments))
    assert "wanted=Wanted(harmonics=True, hidden=False, kernel=False, features=False)" in program


def test_batches_are_worked_off_in_turn(case):
    graph, arguments = case
    fused, _ = by_both(graph)
    features, *others = arguments
    stacked = jax.tree.map(lambda x: np.stack([x, 2.0 * x]), features)
    found = jax.jit(jax.vmap(lambda x: fused(x, *others)))(stacked)
    compare([found, [np.stack([x, 2.0 * x]) for x in jax.jit(lambda x: fused(x, *others))(features)]])
