import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.nn.spherical import clebsch_gordan, spherical_harmonics

LMAX = 4


def unit_vectors(n=20, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_harmonics_equal_those_of_e3nn():
    vectors = unit_vectors()

    @jax.jit
    def both(vectors):
        irreps = e3nn.Irreps.spherical_harmonics(LMAX)
        expected = e3nn.spherical_harmonics(irreps, vectors, normalize=False, normalization="component")
        return jnp.concatenate(spherical_harmonics(vectors, LMAX), axis=-1), expected.array

    ours, expected = both(vectors)
    np.testing.assert_allclose(ours, expected, atol=1e-13)
    degree = np.repeat(np.arange(LMAX + 1), 2 * np.arange(LMAX + 1) + 1)
    for l in range(LMAX + 1):
        np.testing.assert_allclose(np.sum(ours[:, degree == l] ** 2, axis=1), 2 * l + 1, rtol=1e-13)


def test_harmonics_are_smooth_at_the_zero_vector_of_an_unused_slot():
    def total(vector):
        return sum(jnp.sum(y) for y in spherical_harmonics(vector, 3))

    value, slope = jax.value_and_grad(total)(jnp.zeros(3))
    assert value == 1.0
    assert np.isfinite(slope).all()


@pytest.mark.parametrize("ls", [(0, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 3), (2, 2, 2), (3, 2, 1), (3, 3, 3)])
def test_couplings_are_normalised_orthogonal_and_equivariant(ls):
    coupling = clebsch_gordan(*ls)
    l3 = ls[2]
    assert coupling.dtype == np.float64
    gram = np.einsum("abm,abn->mn", coupling, coupling)
    np.testing.assert_allclose(gram, np.eye(2 * l3 + 1) / (2 * l3 + 1), atol=1e-14)
    d1, d2, d3 = (harmonic_rotation(l) for l in ls)
    rotated = np.einsum("abm,ca,db,nm->cdn", coupling, d1, d2, d3)
    np.testing.assert_allclose(rotated, coupling, atol=1e-12)


def harmonic_rotation(l):
    """Matrix D with Y(R v) = D Y(v), fitted to the harmonics themselves."""
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    vectors = unit_vectors(40, seed=1)
    before, after = (np.asarray(spherical_harmonics(v, l)[l]) for v in (vectors, vectors @ rotation.T))
    return np.linalg.lstsq(before, after, rcond=None)[0].T
