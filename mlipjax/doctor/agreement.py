"""How labels and a model's predictions agree: the numbers by which the doctor judges.

Labels are compared as vectors about zero. Where a model is far off, its error does not depend on the label: the
regression of the prediction on the label then still has a slope near one, however small the correlation is. Labels of
other atoms or frames have no such slope.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.system import System

NEAR, PLAUSIBLE = 1.5, 3.0
"""A slope belongs to a unit if it is within ``NEAR`` of it; others up to ``PLAUSIBLE`` are the model's error."""
CORRELATED = 0.6
"""Labels below this correlation with the model do not follow it."""
# What explains labels has to fit this well, and to leave at most this part of the error.
_FITS, _LEFT = 0.85, 0.5
# Labels follow the model no more if a slope of this size is out by so many standard deviations.
_SLOPE, DEVIATIONS = 0.7, 2.5


class Row(NamedTuple):
    """One label and its prediction, as vectors.

    Attributes:
        index: of the structure in its data set.
        label, model: (k,) numbers of one unit.
        system: the structure.
    """

    index: int
    label: np.ndarray
    model: np.ndarray
    system: System


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation about zero; 0 where one of them is zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0.0 else 0.0


def rms(values: np.ndarray) -> float:
    """Root of the mean square; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if np.size(values) else 0.0


def is_near(value: float, target: float, factor: float = NEAR) -> bool:
    """Whether two numbers of one sign differ by less than a factor."""
    return value * target > 0.0 and abs(math.log(value / target)) < math.log(factor)


def pooled(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Labels and predictions of all rows, one after the other."""
    return np.concatenate([row.label for row in rows]), np.concatenate([row.model for row in rows])


def ratio(label: np.ndarray, model: np.ndarray) -> float:
    """Geometric-mean slope of labels against predictions, with the sign of their correlation; 0 where one is zero."""
    scale = float(np.linalg.norm(model))
    return math.copysign(float(np.linalg.norm(label)) / scale, float(label @ model)) if scale > 0.0 else 0.0


def disagrees(label: np.ndarray, model: np.ndarray, n_independent: float, deviations: float = DEVIATIONS) -> bool:
    """Whether predictions do not follow labels at all, beyond what the model's own error can do.

    Args:
        label, model: (k,) numbers.
        n_independent: how many of them are independent of each other.
        deviations: standard deviations by which the slope has to be too small.
    """
    size = float(label @ label)
    if size == 0.0 or cosine(label, model) >= CORRELATED:
        return False
    slope = float(label @ model) / size
    deviation = float(np.linalg.norm(model - slope * label)) / math.sqrt(size * max(n_independent - 1.0, 1.0))
    return slope + deviations * deviation < _SLOPE


def explains(label: np.ndarray, model: np.ndarray, before: float) -> bool:
    """Whether labels follow a prediction well, and much better than another, whose correlation was ``before``."""
    after = cosine(label, model)
    return after > _FITS and math.sqrt(max(1.0 - after**2, 0.0)) < _LEFT * math.sqrt(
        max(1.0 - max(before, 0.0) ** 2, 0.0)
    )
