"""Mahalanobis distances against scikit-learn."""

import jax.numpy as jnp
import numpy as np
from sklearn.covariance import LedoitWolf

from mlipjax.monitoring import fit_mahalanobis, mahalanobis


def test_mahalanobis_is_scikit_learns_per_element():
    rng = np.random.default_rng(0)
    x, species = rng.normal(size=(80, 5)) @ rng.normal(size=(5, 5)), rng.integers(0, 2, 80)
    new, rows = rng.normal(size=(10, 5)), np.array([0, 1] * 5)
    found = np.asarray(mahalanobis(fit_mahalanobis(x, species, 2), jnp.asarray(new), jnp.asarray(rows)))
    for row in range(2):
        exact = LedoitWolf().fit(x[species == row]).mahalanobis(new[rows == row])
        np.testing.assert_allclose(found[rows == row], exact, rtol=1e-9)


def test_mahalanobis_without_ridge_is_the_plain_distance_and_strangers_have_none():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 3))
    fitted = fit_mahalanobis(x, np.zeros(40, int), 2, ridge=0.0)
    centred = x - x.mean(axis=0)
    exact = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(np.cov(x.T)), centred)
    np.testing.assert_allclose(mahalanobis(fitted, jnp.asarray(x), jnp.zeros(40, int)), exact, rtol=1e-9)
    assert np.isnan(mahalanobis(fitted, jnp.asarray(x[:2]), jnp.asarray([1, -1]))).all()
