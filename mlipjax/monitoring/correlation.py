"""Independent frames in a trajectory: integrated autocorrelation time, effective sample size, blocks.

For a stationary series with autocorrelation ``rho``, the mean of n values scatters as that of ``n / g`` independent
ones, with the statistical inefficiency ``g = 1 + 2 sum_k rho(k)`` (twice the integrated autocorrelation time). The
sum is cut at the first lag that is at least ``WINDOW`` integrated times (Sokal, "Monte Carlo methods in statistical
mechanics", in Functional Integration, NATO ASI 361, 131 (1997)), since beyond it there is only noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

WINDOW = 5.0
"""Integrated times after which the sum is cut; Sokal's choice for correlations that decay exponentially."""


def autocorrelation(series: Sequence[np.ndarray]) -> np.ndarray:
    """Normalised autocorrelation from lag 0 on, averaged over runs that share one mean.

    Args:
        series: one array (n_r,) per run, all of the same stationary process.

    Returns:
        (n,) with n the length of the longest run; ones where nothing varies.
    """
    series = [np.asarray(run, np.float64) for run in series if len(run)]
    mean = np.mean(np.concatenate(series))
    longest = max(map(len, series))
    size = 2 ** int(np.ceil(np.log2(2 * longest)))
    total = np.zeros(longest)
    for run in series:
        spectrum = np.fft.rfft(run - mean, size)
        total[: len(run)] += np.fft.irfft(spectrum * spectrum.conj(), size)[: len(run)]
    # divided by n and not by the n - k pairs of a lag: small bias, but tails that do not explode
    return total / total[0] if total[0] > 0.0 else np.ones(longest)


def statistical_inefficiency(series: Sequence[np.ndarray]) -> float:
    """Frames that one independent frame is worth, at least 1; a series that never changes is one frame.

    Args:
        series: one array (n_r,) per run.
    """
    if max(map(len, series)) == 1:
        return 1.0  # runs of one frame each are independent
    if np.ptp(np.concatenate(list(series))) == 0.0:
        return float(sum(map(len, series)))
    rho = autocorrelation(series)
    sums = 2.0 * np.cumsum(rho) - 1.0  # g cut at each lag
    lags = np.arange(len(rho))
    enough = np.flatnonzero(lags >= WINDOW * np.maximum(sums, 1.0) / 2.0)
    return float(max(sums[enough[0] if len(enough) else -1], 1.0))


def effective_size(series: Sequence[np.ndarray]) -> float:
    """Independent frames that a set of runs is worth: ``n / g``."""
    n = sum(map(len, series))
    return n / min(statistical_inefficiency(series), n)


def by_run(values: np.ndarray, runs: Sequence[object]) -> list[np.ndarray]:
    """Split values per frame into those of each run, in the order in which the runs appear.

    Args:
        values: (n, ...) one per frame.
        runs: (n,) run of each frame.
    """
    names = list(dict.fromkeys(runs))
    index = {name: row for row, name in enumerate(names)}
    rows = np.array([index[run] for run in runs])
    return [np.asarray(values)[rows == row] for row in range(len(names))]
