"""Bootstrap intervals over structures and, where there are several, seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Rows = list[np.ndarray]


def bootstrap(
    measure: Callable[[Rows, Rows], float],
    groups: Sequence[int],
    seeds: Sequence[int] = (),
    n: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
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
    return float(value), float(low), float(high)
