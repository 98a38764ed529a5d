"""Errors of single structures, from which comparisons draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mlipjax.data import Dataset
from mlipjax.report import ErrorCurve
from mlipjax.train.batches import StructurePrediction

_TO_MEV = 1e3

ERRORS = {
    "energy_mean": "energy_mean_meV_per_atom",
    "energy_std": "energy_std_meV_per_atom",
    "energy_rmse": "energy_rmse_meV_per_atom",
    "force_rmse": "force_rmse_meV_per_A",
}
"""Fields of ``report.ErrorCurve``, and where error reports hold them."""


def force_squares(data: Dataset, predictions: Iterable[StructurePrediction]) -> list[float]:
    """Mean squared error over the force components of every structure, meV²/Å²."""
    return [
        float(np.mean((_TO_MEV * (one.forces - np.asarray(labels.forces, np.float64))) ** 2))
        for one, labels in zip(predictions, data.labels, strict=True)
    ]


def error_curve(reports: Iterable[tuple[int, Mapping[str, Any]]]) -> ErrorCurve:
    """Errors against labels, from numbers of labels and the error reports of models with as many (their seeds).

    Of several reports the mean; the band reaches to the furthest end of their intervals.
    """
    by_labels: dict[int, list[Mapping[str, Any]]] = {}
    for labels, report in reports:
        by_labels.setdefault(labels, []).append(report)
    order = sorted(by_labels)
    errors = {}
    for name, key in ERRORS.items():
        values = []
        for labels in order:
            ends = np.array([report["confidence_95"][key] for report in by_labels[labels]])
            values.append([np.mean([r[key] for r in by_labels[labels]]), ends[:, 0].min(), ends[:, 1].max()])
        errors[name] = np.array(values, float)
    return ErrorCurve(labels=order, **errors)
