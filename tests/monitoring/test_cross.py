"""Limits from all runs: what they are made of, their rate on correlated frames, refusals."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from monitor_case import features, jittered, model

from mlipjax.monitoring import (
    atom_indices,
    by_run,
    cross_fit_monitor,
    fit_charts,
    fit_monitor,
    frame_features,
    read_frames,
    thinned_limit,
)

RUNS = [i % 6 for i in range(120)]


def test_every_run_is_judged_by_charts_of_the_others():
    monitor = cross_fit_monitor(features(), RUNS, level=0.05, n_components=3)
    values, numbers, frame = features().atoms()
    rows = np.searchsorted(monitor.species, numbers)
    q = np.zeros(len(rows))
    for run in range(6):
        judged = frame % 6 == run
        charts = fit_charts(
            jnp.asarray(values), jnp.asarray(rows), jnp.asarray(~judged, float), len(monitor.species), 3
        )
        q[judged] = np.asarray(atom_indices(charts, jnp.asarray(values), jnp.asarray(rows)).q)[judged]
    relative = np.bincount(frame, q / monitor.charts.q_limit[rows]) / np.bincount(frame)
    calibration = monitor.frame_calibration["q"]
    expected = thinned_limit(by_run(relative, RUNS), 0.05)
    assert calibration.limit == pytest.approx(expected.limit, rel=1e-6)
    assert calibration.n == 120
    assert np.mean(relative > calibration.limit) <= 0.05
    whole = fit_charts(jnp.asarray(values), jnp.asarray(rows), jnp.ones(len(rows)), len(monitor.species), 3)
    np.testing.assert_allclose(monitor.charts.mean, whole.mean)


def correlated(n_runs, n, tau, seed):
    """Features of runs whose atoms move with a correlation time of ``tau`` frames: those of real frames, moved."""
    rng = np.random.default_rng(seed)
    start = jittered(1, 0.0, 0)[0]
    phi, systems = np.exp(-1.0 / tau), []
    for _ in range(n_runs):
        x = rng.normal(size=start.positions.shape)
        for _ in range(n):
            x = phi * x + np.sqrt(1 - phi**2) * rng.normal(size=x.shape)
            systems.append(dataclasses.replace(start, positions=start.positions + 0.03 * x))
    runs = [run for run in range(n_runs) for _ in range(n)]
    return frame_features(model(), systems, dtype="float64", batch_size=64), runs


def test_more_calibration_brings_the_rate_closer_to_the_level():
    reference, runs = correlated(6, 80, 4.0, 1)
    new, _ = correlated(12, 80, 4.0, 2)
    options = {"level": 0.02, "n_components": 3}
    rates = {}
    for fitted in (fit_monitor, cross_fit_monitor):
        monitor = fitted(reference, runs, **options)
        rates[fitted.__name__] = read_frames(monitor, new).alarm.mean(axis=0)
        assert monitor.frame_calibration["t2"].n_used > 10
    more, fewer = (
        fitted(reference, runs, **options).frame_calibration["t2"].n_used for fitted in (cross_fit_monitor, fit_monitor)
    )
    assert more > 1.5 * fewer
    assert np.all(rates["cross_fit_monitor"] < 0.08)


def test_one_long_run_cannot_be_judged_by_others():
    with pytest.raises(ValueError, match="1 runs of 120 frames are too few"):
        cross_fit_monitor(features(), [0] * 120)
