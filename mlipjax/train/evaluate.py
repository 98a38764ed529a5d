"""Errors of a potential on a data set."""

from __future__ import annotations

from typing import Any

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.potential import Potential
from mlipjax.train.batches import MAX_SLOTS, LabelledBatches
from mlipjax.train.metrics import error_report
from mlipjax.train.predict import predict
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
    params = tree.cast(params, dtype)
    batches = LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
    report = error_report(dataset, predict(potential, params, batches))
    return {**report, "dtype": str(dtype)}
