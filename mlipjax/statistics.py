"""Intervals by drawing structures with replacement (bootstrap); one stream of draws for every number of a report."""

from __future__ import annotations

from typing import Any

import numpy as np

RESAMPLES = 1000


def draw_rows(n: int, n_resamples: int = RESAMPLES, rng: np.random.Generator | None = None) -> np.ndarray:
    """Rows (n_resamples, n) drawn with replacement from ``n``; the same ones in every call without an ``rng``."""
    return (rng or np.random.default_rng(0)).integers(0, n, (n_resamples, n))


def confidence_95(values: Any) -> list[float]:
    """Both ends of the interval that holds 95 % of the values."""
    return np.percentile(values, [2.5, 97.5]).tolist()
