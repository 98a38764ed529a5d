"""Mahalanobis distances and last-layer rigidity against scikit-learn and Bayesian linear regression."""

import jax.numpy as jnp
import numpy as np
from sklearn.covariance import LedoitWolf

from mlipjax.monitoring import fit_mahalanobis, fit_rigidity, mahalanobis, rigidity_variance


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


def test_rigidity_is_the_variance_of_bayesian_linear_regression():
    """With prior variance a²/s² and noise a², the posterior variance of f·w is a² f^T (F^T F + s²)^-1 f."""
    rng = np.random.default_rng(2)
    f, new, noise, ridge = rng.normal(size=(30, 4)), rng.normal(size=(5, 4)), 0.3, 0.05
    s2 = ridge * np.trace(f.T @ f) / 4
    covariance = np.linalg.inv(f.T @ f / noise**2 + np.eye(4) * s2 / noise**2)
    variance = noise**2 * rigidity_variance(fit_rigidity(f, ridge), jnp.asarray(new))
    np.testing.assert_allclose(variance, np.einsum("ni,ij,nj->n", new, covariance, new), rtol=1e-9)


def test_features_outside_the_training_span_have_a_large_variance():
    rng = np.random.default_rng(4)
    f = np.concatenate([rng.normal(size=(50, 3)), np.zeros((50, 1))], axis=1)
    fitted = fit_rigidity(f)
    inside, outside = rigidity_variance(fitted, jnp.asarray([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]))
    assert outside > 1000 * inside
