"""Force errors of the frames of a periodic fine-tune, and how much frames that follow each other say.

Squared errors of a round's frames of a system, relative to their mean, are taken for a first-order autoregressive
process along each trajectory: frames k apart correlate as ``rho^k``. A round has few frames, about whose mean any
series looks less correlated than it is (Marriott & Pope, Biometrika 41, 390 (1954)), so ``rho`` is the one for which
that process would be expected to show what is seen. The mean of n frames then scatters as one frame does, times
``scatter`` (1 / n if they are independent).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

_MOST = 0.99
"""Correlation of neighbouring frames above which nothing is gained by frames at all."""


class Stratum(NamedTuple):
    """Force errors of the frames of a round and a system, eV/Å: an array for each trajectory, in order of time."""

    round: int
    system: int
    trajectories: tuple[np.ndarray, ...]

    @property
    def squares(self) -> np.ndarray:
        """(n,) squared errors of all trajectories."""
        return np.concatenate(self.trajectories) ** 2

    def scatter(self, rho: float) -> float:
        """Variance of the mean of all frames in units of that of one."""
        total = sum(n + 2.0 * sum((n - k) * rho**k for k in range(1, n)) for n in map(len, self.trajectories))
        return total / sum(map(len, self.trajectories)) ** 2


def force_errors(history: Sequence[Mapping[str, Any]]) -> list[Stratum]:
    """Collect the force errors of all labelled frames from the records of a run, in the order of rounds."""
    sampled = [record for record in history if record["stage"] == "sample"]
    side_by_side = {(record["round"], record.get("system", 0)): len(record["temperature_K"]) for record in sampled}
    chosen = {
        (record["round"], record["system"]): np.array(record["chosen"], np.int64)
        for record in history
        if record["stage"] == "select"
    }
    strata = []
    for record in sorted((r for r in history if r["stage"] == "label"), key=lambda record: record["round"]):
        place, errors = (record["round"], record.get("system", 0)), np.array(record["force_rmse_eV_per_A"], np.float64)
        rows = np.array(record.get("frames", range(len(errors))), np.int64)
        rows = chosen[place][rows] if place in chosen else rows
        # at every sampled frame those of all replicas come one after the other
        replica = rows % side_by_side.get(place, 1)
        if len(errors):
            strata.append(Stratum(*place, tuple(errors[replica == own] for own in np.unique(replica))))
    return strata


def persistence(strata: Sequence[Stratum]) -> float:
    """Correlation ``rho`` of neighbouring frames, in [0, 0.99]; 0 where there are none or nothing varies."""
    spread, pairs, n_frames, n_pairs = 0.0, 0.0, 0, 0
    for stratum in strata:
        mean = stratum.squares.mean() or 1.0
        for errors in stratum.trajectories:
            relative = errors**2 / mean - 1.0
            spread, n_frames = spread + np.sum(relative**2), n_frames + len(errors)
            pairs, n_pairs = pairs + np.sum(relative[1:] * relative[:-1]), n_pairs + len(errors) - 1
    if not n_pairs or not spread:
        return 0.0
    seen = (pairs / n_pairs) / (spread / n_frames)

    def too_large(rho: float) -> float:
        scatter = np.mean([stratum.scatter(rho) for stratum in strata])
        return float((rho - scatter) / (1.0 - scatter) - seen)

    if too_large(0.0) >= 0.0:
        return 0.0
    return _MOST if too_large(_MOST) <= 0.0 else float(optimize.root_scalar(too_large, bracket=(0.0, _MOST)).root)


def thinned(strata: Sequence[Stratum]) -> list[Stratum]:
    """Independent frames: of each trajectory the last one, and every g-th before it in a round.

    g is the statistical inefficiency, ``(1 + rho) / (1 - rho)``, rounded.
    """
    rho = persistence(strata)
    step = round((1.0 + rho) / (1.0 - rho))
    return [s._replace(trajectories=tuple(errors[::-1][::step] for errors in s.trajectories)) for s in strata]


def log_error(strata: Sequence[Stratum], rho: float, variance: float) -> tuple[float, float]:
    """Logarithm of the root mean square error of all frames, and its standard error.

    Args:
        strata: of one round.
        rho: correlation of neighbouring frames.
        variance: of the squared error of a frame relative to its mean.
    """
    sums = np.array([stratum.squares.sum() for stratum in strata])
    scatters = np.array([stratum.scatter(rho) for stratum in strata])
    mean = sums.sum() / sum(len(stratum.squares) for stratum in strata)
    return 0.5 * float(np.log(mean)), 0.5 * float(np.sqrt(variance * np.sum(sums**2 * scatters))) / float(sums.sum())
