"""Charts against scikit-learn's PCA and cases with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from mlipjax import monitoring
from mlipjax.monitoring import q_residual

fit_charts = jax.jit(monitoring.fit_charts, static_argnums=(3, 4))
atom_indices = jax.jit(monitoring.atom_indices)


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


def test_t2_equals_scikit_learns_whitened_scores() -> None:
    x, species = features()
    charts = fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.ones(len(x)), 2, 3)
    t2 = np.asarray(atom_indices(charts, jnp.asarray(x), jnp.asarray(species)).t2)
    for row in range(2):
        own = x[species == row]
        scores = PCA(3, whiten=True).fit_transform(own)
        np.testing.assert_allclose(t2[species == row], np.sum(scores**2, axis=1), rtol=1e-9)


def test_t2_of_all_components_is_the_mahalanobis_distance() -> None:
    x, species = features()
    charts = fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.ones(len(x)), 2, 6)
    new = x[:20] + 1.0
    indices = atom_indices(charts, jnp.asarray(new), jnp.asarray(species[:20]))
    np.testing.assert_allclose(indices.q, 0.0, atol=1e-20)
    for row in range(2):
        own, away = x[species == row], new[species[:20] == row] - x[species == row].mean(axis=0)
        exact = np.einsum("ni,ij,nj->n", away, np.linalg.inv(np.cov(own.T)), away)
        np.testing.assert_allclose(np.asarray(indices.t2)[species[:20] == row], exact, rtol=1e-8)


def test_q_and_t2_together_are_the_distance_with_unit_variance_left_out() -> None:
    """``Q + T² = c^T (P^T L^-1 P + 1 - P^T P) c``, and Pythagoras: ``Q + |t|² = |c|²``."""
    x, _ = features()
    charts = fit_charts(jnp.asarray(x), jnp.zeros(len(x), int), jnp.ones(len(x)), 1, 2)
    indices = atom_indices(charts, jnp.asarray(x), jnp.zeros(len(x), int))
    centred, p = x - x.mean(axis=0), np.asarray(charts.components[0])
    metric = p.T @ np.diag(1.0 / np.asarray(charts.eigenvalues[0])) @ p + np.eye(6) - p.T @ p
    np.testing.assert_allclose(indices.q + indices.t2, np.einsum("ni,ij,nj->n", centred, metric, centred), rtol=1e-10)
    np.testing.assert_allclose(indices.q + np.sum((centred @ p.T) ** 2, axis=1), np.sum(centred**2, axis=1), rtol=1e-10)


def test_mean_q_and_t2_of_the_training_atoms_are_known() -> None:
    x, _ = features()
    charts = fit_charts(jnp.asarray(x), jnp.zeros(len(x), int), jnp.ones(len(x)), 1, 2)
    indices = atom_indices(charts, jnp.asarray(x), jnp.zeros(len(x), int))
    n = len(x)
    assert float(jnp.mean(indices.t2)) == pytest.approx(2 * (n - 1) / n)
    assert float(jnp.mean(indices.q)) == pytest.approx(float(charts.residual[0, 0]) * (n - 1) / n)
    left = np.linalg.eigvalsh(np.cov(x.T))[:-2]
    np.testing.assert_allclose(charts.residual[0], [np.sum(left**power) for power in (1, 2, 3)], rtol=1e-9)


def test_directions_in_which_nothing_varies_belong_to_the_residual() -> None:
    rng = np.random.default_rng(2)
    line = np.outer(rng.normal(size=30), [3.0, 4.0, 0.0]) + 1.0
    for dtype in (np.float32, np.float64):
        charts = fit_charts(jnp.asarray(line, dtype), jnp.zeros(30, int), jnp.ones(30, dtype), 1, 3)
        assert np.count_nonzero(charts.eigenvalues) == 1
        away = jnp.asarray(line[:1] + np.array([0.0, 0.0, 0.5]), dtype)
        indices = atom_indices(charts, away, jnp.zeros(1, int))
        np.testing.assert_allclose(indices.q, 0.25, rtol=1e-4)
        assert float(indices.t2[0]) < 30.0


def test_fewer_atoms_than_components_still_give_finite_indices() -> None:
    x, _ = features()
    charts = fit_charts(jnp.asarray(x[:3]), jnp.zeros(3, int), jnp.ones(3), 1, 5)
    assert np.count_nonzero(charts.eigenvalues) == 2
    indices = atom_indices(charts, jnp.asarray(x), jnp.zeros(len(x), int))
    assert np.isfinite(indices.q).all()
    assert np.isfinite(indices.t2).all()


def test_charts_do_not_depend_on_the_order_of_atoms() -> None:
    x, species = features()
    order = np.random.default_rng(3).permutation(len(x))
    one = fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.ones(len(x)), 2, 3)
    other = fit_charts(jnp.asarray(x[order]), jnp.asarray(species[order]), jnp.ones(len(x)), 2, 3)
    first = atom_indices(one, jnp.asarray(x), jnp.asarray(species))
    second = atom_indices(other, jnp.asarray(x[order]), jnp.asarray(species[order]))
    np.testing.assert_allclose(np.asarray(first.q)[order], second.q, rtol=1e-8)
    np.testing.assert_allclose(np.asarray(first.t2)[order], second.t2, rtol=1e-8)


def test_charts_ride_in_a_scan_and_compile_once() -> None:
    x, _ = features()
    traced = []

    @jax.jit
    def run(charts, x):
        traced.append(1)

        def step(charts, row):
            return charts, atom_indices(charts, row[None], jnp.zeros(1, int)).q[0]

        return jax.lax.scan(step, charts, x)[1]

    for seed in range(3):
        other, _ = features(seed=seed)
        charts = fit_charts(jnp.asarray(other), jnp.zeros(len(other), int), jnp.ones(len(other)), 1, 3)
        q = run(charts, jnp.asarray(x))
        np.testing.assert_allclose(q, q_residual(charts, jnp.asarray(x), jnp.zeros(len(x), int)), rtol=1e-12)
    assert len(traced) == 1


def test_more_components_than_features_are_refused() -> None:
    x, species = features()
    with pytest.raises(ValueError, match="7 components of 6 features"):
        fit_charts(jnp.asarray(x), jnp.asarray(species), jnp.ones(len(x)), 2, 7)
