"""Charts against scikit-learn's PCA and cases with known answers."""

import jax.numpy as jnp
import numpy as np
from sklearn.decomposition import PCA

from mlipjax.monitor import fit_charts, q_residual


def features(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 6)) * np.array([5, 3, 2, 1, 0.5, 0.1]), rng.integers(0, 2, n)


def test_charts_and_q_equal_scikit_learn_per_element() -> None:
    x, species = features()
    charts = fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.ones(len(x)), 2, 3)
    q = np.asarray(q_residual(charts, jnp.asarray(x), jnp.asarray(species)))
    for row in range(2):
        own = x[species == row]
        pca = PCA(3).fit(own)
        np.testing.assert_allclose(charts.eigenvalues[row], pca.explained_variance_, rtol=1e-10)
        back = pca.inverse_transform(pca.transform(own))
        np.testing.assert_allclose(q[species == row], np.sum((own - back) ** 2, axis=1), rtol=1e-8)


def test_atoms_of_weight_zero_do_not_count() -> None:
    x, species = features()
    weights = np.ones(len(x))
    weights[:20] = 0.0
    masked = fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.asarray(weights), 2, 3)
    fewer = fit_charts(jnp.asarray(x[20:]), jnp.asarray(species[20:]), jnp.ones(40), 2, 3)
    np.testing.assert_allclose(masked.mean, fewer.mean, atol=1e-12)
    np.testing.assert_allclose(masked.eigenvalues, fewer.eigenvalues, rtol=1e-10)


def test_q_is_the_squared_distance_from_the_plane() -> None:
    rng = np.random.default_rng(1)
    plane = np.zeros((50, 4))
    plane[:, :2] = rng.normal(size=(50, 2))
    charts = fit_charts(jnp.asarray(plane), jnp.zeros(50, int), jnp.ones(50), 1, 2)
    away = plane[:3] + np.array([0.0, 0.0, 0.3, 0.4])
    q = q_residual(charts, jnp.asarray(away), jnp.zeros(3, int))
    np.testing.assert_allclose(q, 0.25, rtol=1e-10)


def test_an_element_without_a_chart_has_no_q() -> None:
    x, _ = features()
    charts = fit_charts(jnp.asarray(x), jnp.zeros(len(x), int), jnp.ones(len(x)), 2, 3)
    assert np.isnan(q_residual(charts, jnp.asarray(x[:2]), jnp.ones(2, int))).all()
