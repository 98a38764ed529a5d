"""Intervals by drawing structures with replacement (bootstrap); one stream of draws for every number of a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 1000


def draw_rows(n: int, n_resamples: int = RESAMPLES, rng: np.random.Generator | None = None) -> np.ndarray:
    """Rows (n_resamples, n) drawn with replacement from ``n``; the same ones in every call without an ``rng``."""
    return (rng or np.random.default_rng(0)).integers(0, n, (n_resamples, n))


def draw_groups(
    groups: Sequence[Any], n_resamples: int = RESAMPLES, rng: np.random.Generator | None = None
) -> list[np.ndarray]:
    """Rows of whole groups drawn with replacement: frames of one trajectory come together, or not at all.

    Args:
        groups: (n,) name of each row's group.
        n_resamples: how many draws.
        rng: of the draws; the same ones in every call without.
    """
    names = list(dict.fromkeys(groups))
    place = {name: number for number, name in enumerate(names)}
    number = np.array([place[name] for name in groups])
    members = [np.flatnonzero(number == k) for k in range(len(names))]
    return [np.concatenate([members[k] for k in drawn]) for drawn in draw_rows(len(names), n_resamples, rng)]


def confidence_95(values: Any) -> list[float]:
    """Both ends of the interval that holds 95 % of the values."""
    return np.percentile(values, [2.5, 97.5]).tolist()


class Difference(NamedTuple):
    """A number of one model less that of another on the same structures, with the ends of its 95 % interval.

    Attributes:
        value: first less second.
        low, high: ends; NaN where nothing can be drawn (a single group).
    """

    value: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Tell whether the interval leaves zero out."""
        return self.low > 0.0 or self.high < 0.0


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    measure: Callable[[np.ndarray], float],
    groups: Sequence[Any] | None = None,
) -> Difference:
    """Compare a number of two models on the same structures, which are drawn for both at once.

    What makes a structure hard is hard for both models, so that the difference is known far better than its two parts
    are: intervals of two models may overlap where one is better for sure. Seeds are a level of their own: those of each
    model are drawn too, independently, so that few seeds make a wide interval (Davison & Hinkley, Bootstrap Methods and
    their Application (1997), section 3.8: levels are drawn from the top).

    Args:
        first: (seeds, n, ...) what is known of every structure, such as squared errors and their number.
        second: (seeds', n, ...) likewise, of the same structures.
        measure: the number, of the rows (m, ...) of all drawn seeds and structures.
        groups: (n,) what is drawn as a whole; by default every structure.

    Raises:
        ValueError: if the structures differ in number.
    """
    if first.shape[1:2] != second.shape[1:2] or first.shape[1] == 0:
        raise ValueError(
            f"found {first.shape[1]} and {second.shape[1]} structures; compare the same ones, at least one."
        )
    rng = np.random.default_rng(0)

    def number(values: np.ndarray, seeds: np.ndarray, rows: np.ndarray) -> float:
        drawn = values[seeds][:, rows]
        return float(measure(drawn.reshape(-1, *values.shape[2:])))

    everything = np.arange(first.shape[1])
    value = number(first, np.arange(len(first)), everything) - number(second, np.arange(len(second)), everything)
    draws = [
        number(first, rng.integers(0, len(first), len(first)), rows)
        - number(second, rng.integers(0, len(second), len(second)), rows)
        for rows in draw_groups(everything.tolist() if groups is None else groups, RESAMPLES, rng)
    ]
    alone = len(set(everything if groups is None else groups)) == 1
    low, high = (np.nan, np.nan) if alone else confidence_95(draws)
    return Difference(value, float(low), float(high))
