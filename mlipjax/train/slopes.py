"""Slopes of predicted on reference forces that few structures cannot decide."""

from __future__ import annotations

import numpy as np

_WIDTHS = 5.0
"""Robust standard deviations from the median slope beyond which a structure is set apart."""

_LEAST = 0.03
"""Smallest such deviation taken: slopes that agree to less than this are not told apart."""

_WEIGHTY = 0.5
"""Part of the median of ``F_ref^2`` below which a structure is not judged."""

_FEWEST = 5
"""Structures below which there is no bulk to set others apart from."""


def slopes_apart(cross: np.ndarray, square: np.ndarray) -> np.ndarray:
    """(n,) true for structures whose own slope of forces is not that of the bulk.

    A slope through the origin weighs structures by their squared forces: a few with large forces outweigh hundreds.
    Each structure's own slope ``cross / square`` is compared with the median of all, in units of the median deviation
    (Hampel, J. Am. Stat. Assoc. 69, 383 (1974)), which up to half of the structures cannot move. Structures with much
    smaller forces than most have uncertain slopes and move nothing: they are never set apart.

    Args:
        cross: (n,) sums of ``F F_ref`` over a structure.
        square: (n,) sums of ``F_ref^2``.
    """
    cross, square = np.asarray(cross, np.float64), np.asarray(square, np.float64)
    known = square > 0.0
    if known.sum() < _FEWEST:
        return np.zeros(len(square), bool)
    slopes = np.divide(cross, square, out=np.zeros_like(cross), where=known)
    middle = np.median(slopes[known])
    deviation = np.abs(slopes - middle)
    width = max(1.4826 * float(np.median(deviation[known])), _LEAST)
    weighty = square > _WEIGHTY * np.median(square[known])
    return known & weighty & (deviation > _WIDTHS * width)
