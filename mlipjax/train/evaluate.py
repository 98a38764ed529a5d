"""Errors of a potential on a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.potential import Potential
from mlipjax.train.batches import MAX_SLOTS, LabelledBatches
from mlipjax.train.metrics import error_report
from mlipjax.train.predict import StructurePrediction, predict
from mlipjax.typing import Params


def evaluate(
    potential: Potential,
    params: Params,
    dataset: Dataset,
    *,
    dtype: Any = "float32",
    batch_size: int = 8,
    max_slots: int = MAX_SLOTS,
) -> dict[str, Any]:
    """Predict a labelled data set and report the errors (``metrics.error_report`` says what is in the report).

    Args:
        potential: what to evaluate, with the isolated-atom energies of the labels' level of theory.
        params: its parameters.
        dataset: structures and labels.
        dtype: ``"float32"`` or ``"float64"`` (needs JAX's 64-bit mode) for the network; total energies and
            statistics are always float64.
        batch_size: structures evaluated together, as far as ``max_slots`` allows.
        max_slots: limit of padded atoms times neighbour slots, for memory.

    Raises:
        ValueError: for an empty data set, an unknown element, or float64 without 64-bit mode.
    """
    found = predict_dataset(potential, params, dataset, dtype=dtype, batch_size=batch_size, max_slots=max_slots)
    return {**error_report(dataset, found), "dtype": str(dtype)}


def predict_dataset(
    potential: Potential,
    params: Params,
    dataset: Dataset,
    *,
    dtype: Any = "float32",
    batch_size: int = 8,
    max_slots: int = MAX_SLOTS,
) -> Sequence[StructurePrediction]:
    """Predict a data set, in its order; arguments and errors as ``evaluate``."""
    batches = LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
    return predict(jax.jit(potential.apply), tree.cast(params, dtype), batches)
