"""Control limits: the value of an index that a frame in control exceeds with a given probability (the level).

Parametric limits hold for independent atoms with normally distributed features; MD frames are neither, and the limits
are then exceeded many times too often. Split-conformal limits assume nothing about the distribution, only that
calibration and new frames are exchangeable, which thinning to independent frames brings about.

``level`` is the probability of a false alarm, 0.01 for one frame in a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from mlipjax.monitoring.correlation import statistical_inefficiency


def jackson_mudholkar(moments: Sequence[float], level: float) -> float:
    """Limit of Q from the left-out variances ``l_i`` (Jackson & Mudholkar, Technometrics 21, 341 (1979), eq. 3.4).

    ``(Q / theta_1)^h0`` is nearly normal with ``h0 = 1 - 2 theta_1 theta_3 / (3 theta_2^2)``.

    Args:
        moments: ``theta_k = sum_i l_i^k`` for k = 1, 2, 3.
        level: probability of a false alarm.
    """
    _check(level)
    theta1, theta2, theta3 = (float(moment) for moment in moments)
    if theta1 <= 0.0:
        return 0.0
    h0 = 1.0 - 2.0 * theta1 * theta3 / (3.0 * theta2**2)
    # h0 -> 0 is the logarithm; below it the power is negative and the upper tail of Q the lower one of the power
    h0 = h0 if abs(h0) > 1e-6 else 1e-6
    normal = stats.norm.isf(level) * np.sign(h0)
    inner = normal * np.sqrt(2.0 * theta2 * h0**2) / theta1 + 1.0 + theta2 * h0 * (h0 - 1.0) / theta1**2
    return float(theta1 * max(inner, 0.0) ** (1.0 / h0)) if inner > 0.0 or h0 > 0.0 else float("inf")


def box_limit(mean: float, variance: float, level: float) -> float:
    """Limit of a weighted sum of squares from its first two moments (Box, Ann. Math. Stat. 25, 290 (1954)).

    It is taken for ``g chi²_h`` with ``g = variance / (2 mean)`` and ``h = 2 mean² / variance``.

    Args:
        mean: of the index.
        variance: of the index.
        level: probability of a false alarm.
    """
    _check(level)
    if mean <= 0.0 or variance <= 0.0:
        return max(mean, 0.0)
    return float(variance / (2.0 * mean) * stats.chi2.isf(level, 2.0 * mean**2 / variance))


def box_q_limit(moments: Sequence[float], level: float) -> float:
    """``box_limit`` of Q: its mean is ``theta_1`` and its variance ``2 theta_2``."""
    return box_limit(float(moments[0]), 2.0 * float(moments[1]), level)


def t2_limit_f(n: int, rank: int, level: float) -> float:
    """Limit of T² for new atoms: ``p (n² - 1) / (n (n - p)) F(p, n - p)``; infinite for n <= p.

    Tracy, Young & Mason, J. Qual. Technol. 24, 88 (1992), with n training atoms and p components.

    Args:
        n: training atoms.
        rank: components p.
        level: probability of a false alarm.
    """
    _check(level)
    if rank == 0:
        return 0.0
    return float(rank * (n**2 - 1) / (n * (n - rank)) * stats.f.isf(level, rank, n - rank)) if n > rank else np.inf


def t2_limit_beta(n: int, rank: int, level: float) -> float:
    """Limit of T² for the training atoms themselves: ``(n - 1)² / n Beta(p / 2, (n - p - 1) / 2)`` (same paper).

    Args:
        n: training atoms.
        rank: components p.
        level: probability of a false alarm.
    """
    _check(level)
    if rank == 0:
        return 0.0
    return float((n - 1) ** 2 / n * stats.beta.isf(level, rank / 2, (n - rank - 1) / 2)) if n > rank + 1 else np.inf


class Conformal(NamedTuple):
    """A split-conformal limit and what it is worth.

    Attributes:
        limit: a new frame in control exceeds it with at most the probability ``guaranteed``.
        guaranteed: the level asked for; or, where the calibration frames are too few for it, ``1 / (n_used + 1)``.
        n: calibration frames.
        n_used: independent frames, or blocks, among them.
        inefficiency: frames that one independent frame is worth.
    """

    limit: float
    guaranteed: float
    n: int
    n_used: int
    inefficiency: float


def conformal_limit(scores: np.ndarray, level: float) -> Conformal:
    """Split-conformal limit of exchangeable scores: the ``ceil((n + 1) (1 - level))``-th smallest of n.

    Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005); Lei et al., J. Am. Stat. Assoc. 113, 1094
    (2018). The scores must not have been used to fit the charts. Fewer than ``1 / level - 1`` of them cannot guarantee
    the level: the limit is then the largest.
    """
    _check(level)
    scores = np.sort(np.asarray(scores, np.float64))
    n = len(scores)
    if n == 0 or not np.all(np.isfinite(scores)):
        raise ValueError(f"calibration needs finite scores, found {n} with {int(np.sum(~np.isfinite(scores)))} others.")
    rank = int(np.ceil((n + 1) * (1.0 - level) - 1e-9))
    attainable = rank <= n
    return Conformal(float(scores[min(rank, n) - 1]), level if attainable else 1.0 / (n + 1), n, n, 1.0)


def thinned_limit(series: Sequence[np.ndarray], level: float) -> Conformal:
    """Split-conformal limit of correlated frames: every g-th frame of every run counts.

    Each of the g ways to start the count gives a limit; their median is taken, which scatters less than any one. Where
    too few frames remain to guarantee the level, all frames set the limit: right for long runs, on AR(1) series of 50
    independent frames exceeded by 1.5 % of new ones at a level of 1 %.

    Args:
        series: scores of the calibration frames, one array in the order of time per run.
        level: probability of a false alarm.
    """
    series = [np.asarray(run, np.float64) for run in series if len(run)]
    n = sum(map(len, series))
    if n == 0:
        raise ValueError("calibration needs at least one frame.")
    g = statistical_inefficiency(series)
    stride = min(int(np.ceil(g - 1e-9)), max(map(len, series)))
    ways = [np.concatenate([run[start::stride] for run in series]) for start in range(stride)]
    ways = [conformal_limit(way, level) for way in ways if len(way)]
    guaranteed = max(way.guaranteed for way in ways)
    if guaranteed > level:
        limit = conformal_limit(np.concatenate(series), level).limit
    else:
        limit = float(np.median([way.limit for way in ways]))
    return Conformal(limit, guaranteed, n, min(way.n for way in ways), g)


def _check(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise ValueError(f"the level is the probability of a false alarm, between 0 and 1; found {level}.")
