import itertools

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_nequip import graph_of, molecule, skewed_crystal

from mlipjax.graph import edge_vectors
from mlipjax.nn import convolution
from mlipjax.nn.convolution import convolve
from mlipjax.nn.irreps import parse, tensor_product_paths
from mlipjax.nn.primitives.messages import couple
from mlipjax.nn.radial_table import RadialBasis, RadialEdges
from mlipjax.nn.spherical import spherical_harmonics

INPUTS, OUTPUTS, LMAX = parse("4x0e + 3x1o + 2x1e"), parse("5x0e + 2x1o + 3x1e + 4x2e"), 2
PATHS = tensor_product_paths(INPUTS, LMAX, OUTPUTS)
SIZES = (3, 6, sum(path.mul for path in PATHS))


@pytest.fixture(scope="module")
def inputs():
    graph = graph_of(skewed_crystal(), molecule())
    rng = np.random.default_rng(0)
    features = [rng.normal(size=(16, irrep.dim, irrep.mul)) for irrep in INPUTS]
    basis = rng.normal(size=(16, 32, SIZES[0])) * graph.edge_mask[..., None]
    vectors = np.asarray(edge_vectors(graph, graph.positions, graph.cells))
    unit = vectors / np.where(graph.edge_mask, np.linalg.norm(vectors, axis=-1), 1.0)[..., None]
    harmonics = [np.asarray(y) for y in spherical_harmonics(unit, LMAX)]
    kernels = [rng.normal(size=shape) for shape in itertools.pairwise(SIZES)]
    return features, graph, unit, basis, harmonics, kernels


def ours(features, graph, basis, harmonics, kernels):
    return convolve(features, graph.neighbors, RadialEdges(RadialBasis(basis)), harmonics, kernels, PATHS, OUTPUTS)


@pytest.mark.filterwarnings("ignore:scatter inputs have incompatible types")
def test_messages_equal_tensor_products_and_a_scatter_of_e3nn(inputs):
    features, graph, unit, basis, harmonics, kernels = inputs
    receiver, slot = np.nonzero(graph.edge_mask)
    sender = graph.neighbors[receiver, slot]

    @jax.jit
    def reference(features, vectors, basis):
        weights = jax.nn.silu(basis @ kernels[0]) @ kernels[1]
        y = e3nn.spherical_harmonics(e3nn.Irreps.spherical_harmonics(LMAX), vectors, False, normalization="component")
        sums = [[] for _ in OUTPUTS]
        start = 0
        for path in PATHS:
            irrep, out = INPUTS[path.source], OUTPUTS[path.target]
            x = e3nn.IrrepsArray(str(irrep), jnp.swapaxes(features[path.source], 1, 2).reshape(16, -1))[sender]
            edge = y.filter(keep=f"{path.l_edge}{'eo'[path.l_edge % 2]}")
            product = e3nn.tensor_product(x, edge, filter_ir_out=[out.label]).array.reshape(-1, path.mul, out.dim)
            messages = product * weights[:, start : start + path.mul, None]
            start += path.mul
            sums[path.target].append(jnp.zeros((16, path.mul, out.dim)).at[receiver].add(messages))
        return [jnp.swapaxes(jnp.concatenate(parts, axis=1), 1, 2) for parts in sums]

    expected = reference(features, unit[receiver, slot], basis[receiver, slot])
    for message, other in zip(jax.jit(ours)(features, graph, basis, harmonics, kernels), expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(message, other, atol=1e-12)


def test_the_size_of_blocks_changes_neither_values_nor_gradients(inputs, monkeypatch):
    features, graph, _, basis, harmonics, kernels = inputs
    outputs = OUTPUTS[:2]
    paths = tuple(path for path in PATHS if path.target < 2)
    kernels = [*kernels[:-1], kernels[-1][:, : sum(path.mul for path in paths)]]
    cotangents = [np.random.default_rng(1).normal(size=(16, out.dim, 1)) for out in outputs]

    def total(features, basis, harmonics, kernels):
        edges = RadialEdges(RadialBasis(basis))
        messages = convolve(features, graph.neighbors, edges, harmonics, kernels, paths, outputs)
        return sum(jnp.sum(c * m) for c, m in zip(cotangents, messages, strict=True))

    results = []
    # all at once; blocks of 5 atoms, the last one padded; one atom at a time
    for edges in (10**6, 5 * 32, 1):
        monkeypatch.setattr(convolution, "EDGES_PER_BLOCK", edges)
        gradient = jax.jit(jax.value_and_grad(lambda *args: total(*args), argnums=(0, 1, 2, 3)))
        results.append(jax.tree.leaves(gradient(features, basis, harmonics, kernels)))
    # as on accelerators: at once, or in blocks of 3 atoms
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    of_an_edge = 8 * sum(path.mul * features[path.source].shape[1] for path in paths)
    for edges in (10**6, 3 * 32):
        monkeypatch.setattr(convolution, "BYTES_AT_ONCE", edges * of_an_edge)
        gradient = jax.jit(jax.value_and_grad(lambda *args: total(*args), argnums=(0, 1, 2, 3)))
        results.append(jax.tree.leaves(gradient(features, basis, harmonics, kernels)))
    for leaves in results[1:]:
        for leaf, other in zip(leaves, results[0], strict=True):
            np.testing.assert_allclose(leaf, other, rtol=1e-11, atol=1e-12)


def test_the_product_of_two_vectors_to_a_vector_is_the_cross_product():
    first, second = np.random.default_rng(0).normal(size=(2, 3))
    # e3nn's sign: the harmonic stands second
    product = couple(second[None, None], 1, 1, 1)[0, :, 0] @ first
    np.testing.assert_allclose(product, np.cross(first, second) / np.sqrt(2.0), atol=1e-12)
