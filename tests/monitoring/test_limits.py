"""Control limits against closed forms, published examples, sampling, and correlated or heavy-tailed series."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mlipjax.monitoring import (
    atom_indices,
    box_limit,
    box_q_limit,
    conformal_limit,
    fit_charts,
    jackson_mudholkar,
    t2_limit_beta,
    t2_limit_f,
    thinned_limit,
)


def moments(variances):
    return [float(np.sum(np.asarray(variances) ** power)) for power in (1, 2, 3)]


def test_jackson_mudholkar_gives_the_example_of_jacksons_book():
    # ballistic missiles, two of four components kept: A User's Guide to Principal Components (1991), section 2.7
    thetas = moments([29.33, 16.41])
    np.testing.assert_allclose(thetas, [45.74, 1129.54, 29650.12], rtol=1e-5)
    assert jackson_mudholkar(thetas, 0.05) == pytest.approx(140.45, rel=5e-4)


@pytest.mark.parametrize("n", [1, 4, 30])
def test_limits_of_q_for_equal_variances_are_those_of_chi_squared(n):
    thetas = moments(np.full(n, 0.7))
    exact = 0.7 * stats.chi2.isf(0.01, n)
    assert box_q_limit(thetas, 0.01) == pytest.approx(exact, rel=1e-12)
    assert jackson_mudholkar(thetas, 0.01) == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("variances", [[3.0, 1.0, 0.5, 0.2], np.geomspace(1.0, 1e-4, 25), [5.0, *[0.01] * 200]])
def test_limits_of_q_hold_for_normal_features(variances):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((200_000, len(variances))) ** 2 @ np.asarray(variances)
    for limit in (jackson_mudholkar, box_q_limit):
        # both are approximations, good to half of the level even where one variance dominates
        assert np.mean(q > limit(moments(variances), 0.01)) == pytest.approx(0.01, rel=0.5)


def test_nothing_left_out_has_the_limit_zero():
    assert jackson_mudholkar([0.0, 0.0, 0.0], 0.01) == 0.0
    assert box_q_limit([0.0, 0.0, 0.0], 0.01) == 0.0
    assert box_limit(2.0, 0.0, 0.01) == 2.0


def test_limits_of_t2_in_closed_form_for_two_components():
    # F(2, m) and Beta(1, b) have elementary quantiles
    n, level = 25, 0.01
    f = (n - 2) / 2 * (level ** (-2 / (n - 2)) - 1)
    assert t2_limit_f(n, 2, level) == pytest.approx(2 * (n**2 - 1) / (n * (n - 2)) * f, rel=1e-10)
    assert t2_limit_beta(n, 2, level) == pytest.approx((n - 1) ** 2 / n * (1 - level ** (2 / (n - 3))), rel=1e-10)
    # many training atoms: both become chi-squared
    assert t2_limit_f(10**6, 3, level) == pytest.approx(stats.chi2.isf(level, 3), rel=1e-4)
    assert t2_limit_beta(10**6, 3, level) == pytest.approx(stats.chi2.isf(level, 3), rel=1e-4)
    assert t2_limit_f(3, 3, level) == np.inf
    assert t2_limit_beta(4, 3, level) == np.inf


def test_limits_of_t2_hold_for_new_and_for_training_atoms():
    rng = np.random.default_rng(1)
    n, p, level, repeats = 12, 3, 0.05, 4000
    x, new = rng.standard_normal((repeats, n, p)), rng.standard_normal((repeats, p))
    centred = x - x.mean(axis=1, keepdims=True)
    precision = np.linalg.inv(np.einsum("rni,rnj->rij", centred, centred) / (n - 1))
    away = new - x.mean(axis=1)
    t2_new = np.einsum("ri,rij,rj->r", away, precision, away)
    t2_old = np.einsum("ri,rij,rj->r", centred[:, 0], precision, centred[:, 0])
    spread = 4 * np.sqrt(level * (1 - level) / repeats)
    assert abs(np.mean(t2_new > t2_limit_f(n, p, level)) - level) < spread
    assert abs(np.mean(t2_old > t2_limit_beta(n, p, level)) - level) < spread


def test_split_conformal_is_exact_for_exchangeable_scores():
    assert conformal_limit(np.arange(1.0, 100.0), 0.01).limit == 99.0
    assert conformal_limit(np.arange(1.0, 100.0), 0.05).limit == 95.0
    few = conformal_limit(np.arange(1.0, 51.0), 0.01)
    assert few.limit == 50.0
    assert few.guaranteed == pytest.approx(1 / 51)
    # expected false alarms: (n + 1 - rank) / (n + 1), whatever the distribution
    rng = np.random.default_rng(3)
    scores = rng.standard_cauchy((4000, 99))
    rates = [stats.cauchy.sf(conformal_limit(row, 0.05).limit) for row in scores]
    assert np.mean(rates) == pytest.approx(0.05, abs=4 * np.std(rates) / np.sqrt(4000))


def latents(kind, phi, n_runs, n, rng, dim=8):
    """Runs of AR(1) features, normal or (through the quantiles) of Student's distribution with 3 degrees of freedom."""
    noise = rng.standard_normal((n_runs, n + 200, dim)) * np.sqrt(1 - phi**2)
    x = lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 200:]
    x = stats.t.ppf(stats.norm.cdf(x), 3) if kind == "heavy" else x
    return x * np.geomspace(1.0, 0.1, dim)


def false_alarm_rates(kind, phi, repeats, level=0.01, n_fit=150, n_components=3):
    """Mean rates among new frames of limits for Q and T², over charts fitted to short runs."""
    rng = np.random.default_rng(1)
    fit, indices = jax.jit(fit_charts, static_argnums=(3, 4)), jax.jit(atom_indices)
    rates = {name: [] for name in ("jackson-mudholkar", "box", "f", "conformal q", "conformal t2")}
    for _ in range(repeats):
        training = jnp.asarray(latents(kind, phi, 1, n_fit, rng)[0])
        charts = fit(training, jnp.zeros(n_fit, int), jnp.ones(n_fit), 1, n_components)
        known, new = (
            indices(charts, jnp.asarray(x.reshape(-1, x.shape[-1])), jnp.zeros(x.shape[0] * x.shape[1], int))
            for x in (latents(kind, phi, 3, 1000, rng), latents(kind, phi, 20, 250, rng))
        )
        thetas = charts.residual[0].tolist()
        rates["jackson-mudholkar"].append(np.mean(new.q > jackson_mudholkar(thetas, level)))
        rates["box"].append(np.mean(new.q > box_q_limit(thetas, level)))
        rates["f"].append(np.mean(new.t2 > t2_limit_f(n_fit, n_components, level)))
        for name, mine, theirs in (("conformal q", known.q, new.q), ("conformal t2", known.t2, new.t2)):
            limit = thinned_limit(list(np.asarray(mine).reshape(3, -1)), level).limit
            rates[name].append(np.mean(theirs > limit))
    return {name: np.mean(values) for name, values in rates.items()}


@pytest.mark.parametrize(("kind", "phi", "worst"), [("normal", 0.9, 0.03), ("heavy", 0.0, 0.03), ("heavy", 0.9, 0.05)])
def test_thinned_conformal_limits_hold_where_parametric_ones_do_not(kind, phi, worst):
    # 20 charts: the mean rate scatters by about 0.001 for conformal limits
    rates = false_alarm_rates(kind, phi, repeats=20)
    for name in ("conformal q", "conformal t2"):
        assert rates[name] == pytest.approx(0.01, abs=0.005), name
    for name in ("jackson-mudholkar", "box", "f"):
        assert rates[name] > worst, name


def test_parametric_limits_hold_for_independent_normal_features():
    rates = false_alarm_rates("normal", 0.0, repeats=20)
    for name, rate in rates.items():
        assert rate == pytest.approx(0.01, abs=0.01), name


def test_bad_levels_and_scores_are_refused():
    with pytest.raises(ValueError, match=r"between 0 and 1; found 1\.5"):
        jackson_mudholkar([1.0, 1.0, 1.0], 1.5)
    with pytest.raises(ValueError, match="found 2 with 1 others"):
        conformal_limit(np.array([1.0, np.nan]), 0.01)
    with pytest.raises(ValueError, match="at least one frame"):
        thinned_limit([], 0.01)
