"""Error bars that a verb is asked for: where they are found, and errors to compare them with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlipjax.data import Dataset
from mlipjax.data.splits import find_group_key
from mlipjax.monitoring import FRAME_INDICES, Monitor, frame_features, load_monitor, read_frames
from mlipjax.potential import Model
from mlipjax.train.batches import StructurePrediction
from mlipjax.uncertainty import (
    Computed,
    Errors,
    Estimator,
    Spread,
    load_uncertainty,
    relative_cost,
    score,
    score_structures,
)
from mlipjax.verbs.inputs import ForeignModel, ModelLike, NativeModel

Uncertainty = str | Estimator
"""``"llpr"``, ``"shallow"``, ``"shallow:MEMBERS"`` or ``"committee"`` of a saved model; or an estimator in memory."""


def open_uncertainty(model: ModelLike, opened: NativeModel | ForeignModel, uncertainty: Uncertainty) -> Any:
    """The estimator that is meant: of ``opened.first``, whose head is the chosen one.

    Args:
        model: as the verb was given it.
        opened: the same, loaded.
        uncertainty: by name, for a model that is a folder.

    Raises:
        FileNotFoundError: if the folder has no error bars of this kind.
        ValueError: for a foreign calculator, a name for a model that is no folder, or error bars that do not fit.
    """
    if isinstance(opened, ForeignModel):
        raise ValueError(f"{opened.name} is a foreign calculator, which has no error bars here.")
    if not isinstance(uncertainty, str):
        return uncertainty
    if not isinstance(model, (str, os.PathLike)) or not Path(model).is_dir():
        raise ValueError(
            f"uncertainty={uncertainty!r} is read from the folder of a saved model, found {opened.name}; calibrate "
            "it into a folder first."
        )
    return load_uncertainty(model, opened.first, uncertainty)


def put_spread(atoms: Atoms, found: Spread) -> None:
    """Give a structure its standard deviations: ``energy_std`` (eV), and of atoms ``energies_std``, ``forces_std``."""
    atoms.info["energy_std"] = float(found.energy[0])
    atoms.arrays["energies_std"] = np.asarray(found.energies, np.float64)
    atoms.arrays["forces_std"] = np.asarray(found.forces, np.float64)


def compared(
    estimator: Estimator, model: Model, dataset: Dataset, errors: Errors, spreads: Sequence[Spread], how: Computed
) -> dict[str, Any]:
    """Scores of error bars (``uncertainty.score``), and what they cost in units of a plain prediction."""
    return {**score(spreads, errors), "cost": relative_cost(estimator, model, dataset.systems[0], how)}


def charts_compared(
    monitor: str | os.PathLike[str] | Monitor,
    model: Model,
    dataset: Dataset,
    found: Sequence[StructurePrediction],
    dtype: str,
) -> dict[str, Any]:
    """How well each index of the charts ranks structures by their force errors, as ``uncertainty.score`` does."""
    charts = monitor if isinstance(monitor, Monitor) else load_monitor(monitor, model.params)
    features = frame_features(model, dataset.systems, layers=charts.layers, dtype=dtype)
    frame = read_frames(charts, features).frame
    errors = errors_of(dataset, found)
    return {name: score_structures(frame[:, k], errors) for k, name in enumerate(FRAME_INDICES)}


def errors_of(dataset: Dataset, found: Sequence[StructurePrediction]) -> Errors:
    """Errors of predictions, in groups: trajectories, or single structures where the data carry no group."""
    key = find_group_key(dataset)
    energy, forces = np.full(len(dataset), np.nan), []
    for index, (one, labels) in enumerate(zip(found, dataset.labels, strict=True)):
        if labels.energy_weight > 0:
            energy[index] = one.energy - float(labels.energy)
        known = labels.forces_weight > 0
        error = np.asarray(one.forces, np.float64) - np.asarray(labels.forces, np.float64)
        forces.append(error if known else np.full_like(error, np.nan))
    groups = [
        ("alone", i) if key is None or key not in info else str(info[key]) for i, info in enumerate(dataset.infos)
    ]
    return Errors(energy, forces, groups)
