"""Error bars that a verb is asked for: where they are found, and errors to compare them with."""

from __future__ import annotations

import dataclasses
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
    spreads_of,
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


def columns_of(found: Spread) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Standard deviations as files have them: ``energy_std`` (eV), and of atoms ``energies_std``, ``forces_std``."""
    arrays = {
        "energies_std": np.asarray(found.energies, np.float64),
        "forces_std": np.asarray(found.forces, np.float64),
    }
    return {"energy_std": float(found.energy[0])}, arrays


def put_spread(atoms: Atoms, found: Spread) -> None:
    """Give a structure its standard deviations (``columns_of``)."""
    info, arrays = columns_of(found)
    atoms.info.update(info)
    atoms.arrays.update(arrays)


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


@dataclasses.dataclass(frozen=True)
class ErrorBars:
    """Error bars that are to be judged by labels.

    Attributes:
        method: what they were asked for by.
        estimator: of ``model``.
        model: with the chosen head first.
        charts: to compare them with, if any.
    """

    method: str
    estimator: Any
    model: Model
    charts: Monitor | None

    @classmethod
    def open(
        cls,
        model: ModelLike,
        opened: NativeModel | ForeignModel,
        uncertainty: Uncertainty | None,
        monitor: str | os.PathLike[str] | Monitor | None,
    ) -> ErrorBars | None:
        """Find error bars and charts; arguments and errors as ``open_uncertainty`` and ``load_monitor``.

        Raises:
            ValueError: also for charts without error bars.
        """
        if uncertainty is None:
            if monitor is not None:
                raise ValueError("charts (monitor) are compared with error bars; choose which (uncertainty).")
            return None
        estimator = open_uncertainty(model, opened, uncertainty)
        assert isinstance(opened, NativeModel)  # others were refused
        charts = load_monitor(monitor, opened.params) if isinstance(monitor, (str, os.PathLike)) else monitor
        method = uncertainty if isinstance(uncertainty, str) else type(estimator).__name__
        return cls(method, estimator, opened.first, charts)

    def judge(
        self, dataset: Dataset, found: Sequence[StructurePrediction], how: Computed
    ) -> tuple[list[Spread], dict[str, Any]]:
        """Standard deviations, and how they and the charts compare with errors (``uncertainty.score``).

        Args:
            dataset: structures and labels.
            found: predictions of the model.
            how: precision and sizes.
        """
        errors = errors_of(dataset, found)
        spreads = spreads_of(self.estimator, self.model, dataset.systems, how=how)
        cost = relative_cost(self.estimator, self.model, dataset.systems[0], how)
        report = {"method": self.method, **score(spreads, errors), "cost": cost}
        if self.charts is not None:
            features = frame_features(self.model, dataset.systems, layers=self.charts.layers, dtype=how.dtype)
            frame = read_frames(self.charts, features).frame
            report["charts"] = {name: score_structures(frame[:, k], errors) for k, name in enumerate(FRAME_INDICES)}
        return spreads, report
