"""Intervals by resampling structures, for statistics that copies would spoil."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A number and its 95 % interval; NaN limits where there are too few structures for one."""

    value: float
    low: float
    high: float


MIN_STRUCTURES = 8
"""Fewer structures give no interval: their halves are hardly different draws."""


def half_samples(structure: np.ndarray, n: int, seed: int = 0) -> list[np.ndarray]:
    """Draw ``n`` random halves of the structures; return the members (indices into ``structure``) of each.

    The ordinary bootstrap draws structures with replacement. Copies of an atom are then neighbours at distance
    zero, and silhouettes, t-SNE and spectra of such a sample say more about the copies than about the data. Halves
    drawn without replacement are spread around the full sample's value just as bootstrap samples are: for the mean of
    n structures the variance is ``s² (2/n - 1/n) = s²/n`` (half-sample bootstrap; Praestgaard & Wellner, Ann. Probab.
    21, 2053 (1993), weights 0 and 2). Atoms of one structure are never divided: they are not independent.

    Args:
        structure: (M,) structure of each atom or pair.
        n: number of halves.
        seed: of the draw.
    """
    names, row = np.unique(structure, return_inverse=True)
    if len(names) < MIN_STRUCTURES:
        return []
    rng = np.random.default_rng(seed)
    return [np.flatnonzero(np.isin(row, rng.permutation(len(names))[: len(names) // 2])) for _ in range(n)]


def estimate(
    statistics: Callable[[np.ndarray], Mapping[str, float]], structure: np.ndarray, *, n: int = 100, seed: int = 0
) -> dict[str, Estimate]:
    """Compute statistics of the whole sample and a 95 % interval of each.

    Deviations of the halves from *their own* mean are put around the full sample's value: most of these statistics
    depend a little on the size of the sample, and half of it would shift the interval. All statistics see the same
    halves, so intervals of ratios and differences are paired.

    Args:
        statistics: from members (indices) to named numbers; NaN where one cannot be computed.
        structure: (M,) structure of each atom or pair.
        n: number of halves.
        seed: of the draw.
    """
    whole = statistics(np.arange(len(structure)))
    draws = [statistics(half) for half in half_samples(structure, n, seed)]
    n_structures = len(np.unique(structure))
    # an odd number of structures: halves of n // 2 spread a little more than n // 2 of an even number would
    half = n_structures // 2
    scale = np.sqrt(half / max(n_structures - half, 1))
    result = {}
    for name, value in whole.items():
        drawn = np.array([draw[name] for draw in draws], np.float64)
        drawn = drawn[np.isfinite(drawn)]
        low = high = np.nan
        if len(drawn) >= max(n // 2, 2):
            deviations = np.percentile(scale * (drawn - drawn.mean()), [2.5, 97.5])
            low, high = value + deviations
        result[name] = Estimate(float(value), float(low), float(high))
    return result
