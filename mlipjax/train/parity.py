"""Reference and predicted numbers side by side, thinned out: what a parity plot needs of a data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlipjax.data import Dataset
from mlipjax.system import System
from mlipjax.train.batches import StructurePrediction

MAX_POINTS = 20_000
"""Points of a quantity that are kept: a figure shows no more, and files stay small."""


def parity_points(
    dataset: Dataset,
    predictions: Sequence[StructurePrediction],
    zero: Callable[[System], float] = lambda system: 0.0,
) -> dict[str, np.ndarray]:
    """Collect points of energies, forces and stresses.

    Args:
        dataset: structures and labels.
        predictions: of a model, in the same order.
        zero: eV, subtracted from the energies of a structure (those of its isolated atoms).

    Returns:
        ``energy`` (eV/atom), ``forces`` (eV/Å, components) and ``stress`` (eV/Å^3, components), as far as there are
        labels: (2, n) float64, reference first; of more than ``MAX_POINTS`` some (``thinned``).
    """
    points: dict[str, list[np.ndarray]] = {"energy": [], "forces": [], "stress": []}
    for (system, labels, _), prediction in zip(dataset, predictions, strict=True):
        if labels.energy_weight > 0:
            pair = np.array([[float(labels.energy)], [prediction.energy]])
            points["energy"].append((pair - zero(system)) / system.n_atoms)
        if labels.forces_weight > 0:
            points["forces"].append(_pair(labels.forces, prediction.forces))
        if labels.stress_weight > 0 and np.linalg.det(system.cell) != 0.0:
            points["stress"].append(_pair(labels.stress, prediction.stress))
    joined = {name: np.concatenate(found, axis=1) for name, found in points.items() if found}
    return {name: thinned(found) for name, found in joined.items()}


def _pair(reference: Any, predicted: Any) -> np.ndarray:
    return np.stack([np.asarray(reference, np.float64).ravel(), np.asarray(predicted, np.float64).ravel()])


def thinned(points: np.ndarray) -> np.ndarray:
    """Draw ``MAX_POINTS`` of (k, n) points, always the same ones, in their order; all if there are no more."""
    if points.shape[1] <= MAX_POINTS:
        return points
    chosen = np.random.default_rng(0).choice(points.shape[1], MAX_POINTS, replace=False)
    return points[:, np.sort(chosen)]
