"""Errors of single structures, from which comparisons draw."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mlipjax.data import Dataset
from mlipjax.train.batches import StructurePrediction

_TO_MEV = 1e3


def force_squares(data: Dataset, predictions: Iterable[StructurePrediction]) -> list[float]:
    """Mean squared error over the force components of every structure, meV²/Å²."""
    return [
        float(np.mean((_TO_MEV * (one.forces - np.asarray(labels.forces, np.float64))) ** 2))
        for one, labels in zip(predictions, data.labels, strict=True)
    ]
