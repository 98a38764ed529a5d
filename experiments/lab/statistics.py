"""Bootstrap intervals over structures and, where there are several, seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Rows = list[np.ndarray]


class Estimate(NamedTuple):
    """A number with the ends of its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap(
    measure: Callable[[Rows, Rows], float],
    groups: Sequence[int],
    seeds: Sequence[int] = (),
    n: int = 1000,
    level: float = 0.95,
) -> Estimate:
    """A measure with the ends of its interval under drawing seeds and structures with replacement at once.

    Args:
        measure: of the rows drawn in each set of seeds and in each group of structures.
        groups: structures in each group.
        seeds: seeds in each set.
        n: resamples; draws for which the measure is not defined (NaN) are left out.
        level: of the interval; of several comparisons together, each has to miss less often than 5 %.
    """
    rng = np.random.default_rng(0)
    value = measure([np.arange(size) for size in seeds], [np.arange(size) for size in groups])
    draws = [
        measure([rng.integers(0, size, size) for size in seeds], [rng.integers(0, size, size) for size in groups])
        for _ in range(n)
    ]
    tail = 50.0 * (1.0 - level)
    low, high = np.nanpercentile(draws, [tail, 100.0 - tail])
    return Estimate(float(value), float(low), float(high))


def rmse(groups: Rows, seeds: np.ndarray, drawn: Rows) -> float:
    """Root of the mean over groups (each counts alike) of squared errors, mean over seeds.

    Args:
        groups: (seeds, structures) each.
        seeds: rows of all groups, and
        drawn: columns of each that count.
    """
    parts = [group[seeds][:, own].mean(axis=1) for group, own in zip(groups, drawn, strict=True)]
    return float(np.sqrt(np.mean(parts, axis=0)).mean())


def rmse_of_all(groups: Rows) -> float:
    """The same of all seeds and structures."""
    return rmse(groups, np.arange(len(groups[0])), [np.arange(group.shape[1]) for group in groups])


def rmse_ratio(mine: Rows, others: Rows, **options: float) -> Estimate:
    """Ratio of two errors of the same structures, which are drawn for both at once; options as ``bootstrap``."""
    return bootstrap(
        lambda seeds, drawn: rmse(mine, seeds[0], drawn) / rmse(others, seeds[1], drawn),
        [group.shape[1] for group in mine],
        [len(mine[0]), len(others[0])],
        **options,  # pyright: ignore[reportArgumentType]
    )
