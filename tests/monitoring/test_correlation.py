"""Effective sample sizes against processes whose correlation time is known."""

import numpy as np
import pytest
from scipy.signal import lfilter

from mlipjax.monitoring import by_run, effective_size, statistical_inefficiency


def ar1(phi, n, seed, n_runs=1):
    noise = np.random.default_rng(seed).standard_normal((n_runs, n + 300))
    return lfilter([1.0], [1.0, -phi], noise, axis=1)[:, 300:]


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_inefficiency_of_ar1(phi):
    exact = (1 + phi) / (1 - phi)
    assert statistical_inefficiency(list(ar1(phi, 100_000, 0))) == pytest.approx(exact, rel=0.06)
    assert effective_size(list(ar1(phi, 10_000, 1, n_runs=5))) == pytest.approx(50_000 / exact, rel=0.1)


def test_the_mean_scatters_as_that_of_the_effective_frames():
    runs = ar1(0.8, 400, 2, n_runs=2000)
    estimate = np.mean([statistical_inefficiency([run]) for run in runs[:200]])
    observed = runs.mean(axis=1).var() * 400 / runs.var()
    assert estimate == pytest.approx(observed, rel=0.15)


def test_independent_runs_constant_series_and_drift():
    rng = np.random.default_rng(3)
    assert statistical_inefficiency([rng.standard_normal(1) for _ in range(50)]) == 1.0
    assert effective_size([np.ones(40)]) == 1.0
    assert effective_size([np.arange(200.0)]) < 5.0  # a drift is hardly more than one frame
    # runs that stay apart are worth about as many frames as there are runs
    apart = [level + 0.01 * rng.standard_normal(100) for level in (0.0, 1.0, 2.0, 3.0)]
    assert effective_size(apart) < 20.0


def test_frames_of_interleaved_runs_are_told_apart():
    values = np.array([[1, 0], [10, 1], [2, 2], [20, 3], [3, 4]])
    first, second = by_run(values, ["a", "b", "a", "b", "a"])
    np.testing.assert_array_equal(first[:, 0], [1, 2, 3])
    np.testing.assert_array_equal(second[:, 0], [10, 20])
