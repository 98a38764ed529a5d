"""Numbers of a frame that ``experiments.monitors`` compares: charts, Mahalanobis distance, rigidity, SOAP."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from sklearn.covariance import LedoitWolf

from experiments.monitors.config import Config
from mlipjax import monitoring, uncertainty
from mlipjax.data import Dataset, runs_of
from mlipjax.monitoring.cross import MIN_RUNS
from mlipjax.monitoring.soap import SoapChart, fit_soap
from mlipjax.potential import Model

INDICES = (*monitoring.FRAME_INDICES, "mahalanobis", "mahalanobis_worst", "llpr", "llpr_worst")

SOAP_INDICES = ("soap_q", "soap_worst")
"""Q of the paper's pooled SOAP chart: mean over the atoms of a frame, and its largest atom."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Everything fitted to the reference, and the model it belongs to.

    ``mahalanobis`` by row of the charts; ``soap`` only if it was asked for; ``crossed`` has limits from all runs, where
    there are enough of them.
    """

    model: Model
    monitor: monitoring.Monitor
    mahalanobis: dict[int, LedoitWolf]
    rigidity: uncertainty.Rigidity
    soap: SoapChart | None = None
    crossed: monitoring.Monitor | None = None

    @property
    def indices(self) -> tuple[str, ...]:
        """Names of all numbers of a frame."""
        return INDICES if self.soap is None else (*INDICES, *SOAP_INDICES)

    @classmethod
    def fit(cls, config: Config, model: Model, reference: Dataset) -> Comparison:
        """Fit charts, Mahalanobis distances and rigidity to the same frames."""
        features = monitoring.frame_features(model, reference.systems, layers=config.layers)
        options: Any = {"level": config.level, "n_components": config.components, "layers": config.layers}
        fitted = monitoring.fit_monitor(features, runs_of(reference), **options)
        values, numbers, frame = features.atoms()
        chosen = np.isin(frame, monitoring.split_reference(runs_of(reference))[0])
        of_rows = {row: values[chosen & (numbers == z)] for row, z in enumerate(fitted.species)}
        distance = {row: LedoitWolf().fit(own.astype(np.float64)) for row, own in of_rows.items() if len(own) > 1}
        known = np.asarray(sums(values, frame)[np.unique(frame[chosen])], np.float64)
        rigidity = uncertainty.rigidity_of(known.T @ known)
        fit = [reference.systems[i] for i in np.unique(frame[chosen])]
        soap = fit_soap(fit) if config.descriptor == "soap" else None
        enough = len(set(runs_of(reference))) >= MIN_RUNS
        crossed = monitoring.cross_fit_monitor(features, runs_of(reference), **options) if enough else None
        return cls(model, fitted, distance, rigidity, soap, crossed)

    def scores(self, frames: Dataset) -> tuple[dict[str, np.ndarray], monitoring.FrameFeatures]:
        """All indices of every frame, and the features they come from."""
        features = monitoring.frame_features(self.model, frames.systems, layers=self.monitor.layers)
        readings = monitoring.read_frames(self.monitor, features)
        values, numbers, frame = features.atoms()
        atoms = self._distances(values, np.asarray(self.monitor.rows(numbers)))
        local = np.asarray(self.rigidity.variance(jnp.asarray(values)))
        starts = np.flatnonzero(np.diff(frame, prepend=-1))
        columns = [
            *readings.frame.T,
            np.bincount(frame, atoms) / np.bincount(frame),
            np.maximum.reduceat(atoms, starts),
            np.asarray(self.rigidity.variance(jnp.asarray(sums(values, frame)))),
            np.maximum.reduceat(local, starts),
        ]
        if self.soap is not None:
            q = self.soap.q(frames.systems)
            columns += [np.array([np.mean(own) for own in q]), np.array([np.max(own) for own in q])]
        return dict(zip(self.indices, columns, strict=True)), features

    def _distances(self, values: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of each atom from the centre of its element, NaN without one."""
        result = np.full(len(rows), np.nan)
        for row in set(rows.tolist()) & set(self.mahalanobis):
            result[rows == row] = self.mahalanobis[row].mahalanobis(values[rows == row].astype(np.float64))
        return result


def sums(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Features of each frame, summed over its atoms."""
    return np.add.reduceat(values, np.flatnonzero(np.diff(frame, prepend=-1)))
