"""Errors of a potential on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.potential import Model
from mlipjax.train.batches import LabelledBatches, StructurePrediction, predict
from mlipjax.train.metrics import error_report


def evaluate(
    model: Model,
    dataset: Dataset,
    *,
    dtype: Any = "float32",
) -> dict[str, Any]:
    """Predict a labelled data set and report the errors (``metrics.error_report`` says what is in the report).

    Args:
        model: what to evaluate, with the isolated-atom energies of the labels' level of theory.
        dataset: structures and labels.
        dtype: ``"float32"`` or ``"float64"`` (needs JAX's 64-bit mode) for the network; total energies and
            statistics are always float64.

    Raises:
        CoincidingAtoms: for a structure in which atoms coincide.
        ValueError: for an empty data set, an unknown element, float64 without 64-bit mode, or a structure whose energy
            or forces are not finite.
    """
    found = predict_dataset(model, dataset, dtype=dtype)
    return {**error_report(dataset, found), "dtype": str(dtype)}


def predict_dataset(
    model: Model,
    dataset: Dataset,
    *,
    dtype: Any = "float32",
    batch_size: int = 8,
    max_slots: int | None = None,
) -> Sequence[StructurePrediction]:
    """Predict a data set, in its order; arguments and errors as ``evaluate``.

    Args:
        model, dataset, dtype: as there.
        batch_size: structures computed together, as far as ``max_slots`` allows.
        max_slots: limit of padded atoms times neighbour slots, for memory; as for ``LabelledBatches.create``.
    """
    batches = LabelledBatches.create(model.potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
    found = predict(model.potential, tree.cast(model.params, dtype), batches)
    _check_finite(found, str(dtype))
    return found


def _check_finite(predictions: Sequence[StructurePrediction], dtype: str) -> None:
    """Refuse statistics of NaN: they would be NaN, and say nothing of where it came from."""
    broken = [
        index
        for index, found in enumerate(predictions)
        if not (np.isfinite(found.energy) and np.isfinite(found.forces).all())
    ]
    if broken:
        named = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        raise ValueError(
            f"energy or forces are not finite for {len(broken)} of {len(predictions)} structures (number {named}): "
            f"they are outside what this model, in {dtype}, can compute; look at them, then leave them out."
        )
