"""Predictions for whole data sets, in float64 and with isolated-atom energies, on the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mlipjax.graph import GraphBatch
from mlipjax.potential import Prediction
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.state import Batch
from mlipjax.typing import Params

Apply = Callable[[Params, GraphBatch], Prediction]
"""``jax.jit(potential.apply)``: made once by whoever predicts more than once, so that it is compiled once."""


class StructurePrediction(NamedTuple):
    """Prediction for one structure, float64.

    Attributes:
        energy: total energy in eV, isolated-atom energies included.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å^3.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def predict(
    apply: Apply,
    params: Params,
    batches: LabelledBatches,
    on_batch: Callable[[Prediction, Batch], None] | None = None,
) -> list[StructurePrediction]:
    """Predict every structure of a data set (or the planned ones of a part), in the data set's order.

    Args:
        apply: compiled ``Potential.apply``.
        params: parameters, in the dtype of ``batches``.
        batches: the data set.
        on_batch: called with the prediction and labels of every batch, still on the device and padded.
    """
    results: list[StructurePrediction | None] = [None] * len(batches.dataset)
    for plan in batches.plans:
        batch = batches.batch(plan)
        prediction = apply(params, batch.graph)
        if on_batch is not None:
            on_batch(prediction, batch)
        energy, forces, stress = jax.device_get((prediction.energy, prediction.forces, prediction.stress))
        start = 0
        for row, index in enumerate(plan.indices):
            numbers = np.asarray(batches.dataset.systems[index].atomic_numbers)
            stop = start + len(numbers)
            results[index] = StructurePrediction(
                energy=float(energy[row]) + batches.potential.reference_energy(numbers, batches.task),
                forces=forces[start:stop].astype(np.float64),
                stress=stress[row].astype(np.float64),
            )
            start = stop
    return [result for result in results if result is not None]
