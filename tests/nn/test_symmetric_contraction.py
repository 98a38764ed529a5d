"""The product basis against brute force: dense tensors, all orders of factors, rotations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.nn.symmetric_contraction import (
    components,
    coupling_paths,
    independent_basis,
    independent_trees,
    path_matrix,
    reduce_paths,
    symmetric_contraction,
)


def powers(x, tensor):
    """Contract all component axes of (M, i, j, ..., p) with x (i,): (M, p)."""
    for _ in range(tensor.ndim - 2):
        tensor = np.tensordot(tensor, x, axes=(1, 0))
    return tensor


@pytest.mark.parametrize(("lmax", "n_outputs"), [(1, 1), (2, 2), (3, 1)])
def test_it_is_the_published_contraction(lmax, n_outputs):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, components(lmax), 3))
    published = [
        [rng.normal(size=(2, coupling_paths(lmax, nu, l).shape[-1], 3)) for nu in (1, 2, 3)] for l in range(n_outputs)
    ]
    weights = [
        [jnp.einsum("pk,nkc->npc", path_matrix(lmax, nu + 1, l), w) for nu, w in enumerate(per_degree)]
        for l, per_degree in enumerate(published)
    ]
    found = symmetric_contraction(jnp.asarray(x), weights, lmax)
    for l, per_degree in enumerate(published):
        for n, c in itertools.product(range(2), range(3)):
            expected = sum(
                powers(x[n, :, c], coupling_paths(lmax, nu + 1, l)) @ w[n, :, c] for nu, w in enumerate(per_degree)
            )
            np.testing.assert_allclose(found[l][n, :, c], expected, rtol=1e-10, atol=1e-12)


def test_numbers_of_couplings_and_of_independent_polynomials():
    # 23 and 51 cubic couplings are what published models have weights for
    assert [coupling_paths(3, nu, 0).shape[-1] for nu in (1, 2, 3)] == [1, 4, 23]
    assert [coupling_paths(3, nu, 1).shape[-1] for nu in (1, 2, 3)] == [1, 6, 51]
    assert [len(independent_basis(3, nu, 0)) for nu in (1, 2, 3)] == [1, 4, 8]
    for l in (0, 1):
        # the rank of the symmetrised couplings, found without trees
        paths = coupling_paths(2, 3, l)
        symmetric = sum(paths.transpose(0, *order, 4) for order in itertools.permutations((1, 2, 3)))
        rank = np.linalg.matrix_rank(symmetric.reshape(-1, paths.shape[-1]), tol=1e-8)
        assert rank == len(independent_trees(2, 3, l)) < paths.shape[-1]


def test_couplings_that_are_not_equivariant_are_refused():
    paths = coupling_paths(1, 2, 1).copy()
    np.testing.assert_allclose(reduce_paths(paths, 1, 1), path_matrix(1, 2, 1))
    paths[0, 1, 1, 0] += 0.01
    with pytest.raises(ValueError, match="degree 2 are not equivariant"):
        reduce_paths(paths, 1, 1)


def test_second_derivatives_agree_with_finite_differences():
    rng = np.random.default_rng(1)
    x, v = rng.normal(size=(2, 1, 4, 2))
    weights = [[jnp.asarray(rng.normal(size=(1, len(independent_basis(1, nu, 0)), 2))) for nu in (1, 2, 3)]]

    def energy(x):
        return jnp.sum(symmetric_contraction(x, weights, 1)[0])

    step = 1e-5
    difference = (jax.grad(energy)(x + step * v) - jax.grad(energy)(x - step * v)) / (2 * step)
    np.testing.assert_allclose(jax.jvp(jax.grad(energy), (x,), (v,))[1], difference, rtol=1e-7, atol=1e-9)
