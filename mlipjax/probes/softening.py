"""Softening: how much too flat a potential is away from equilibrium (Deng et al., npj Comput. Mater. 11, 9 (2025))."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from mlipjax.data import Dataset
from mlipjax.probes.evaluator import Evaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.statistics import confidence_95, draw_rows
from mlipjax.system import System
from mlipjax.train.metrics import slopes_apart

_RESAMPLES = 500
_RELATED, _SOFTEST = 0.6, 1.0 / 3.0
"""Correlation and slope from which on a model and labels are of the same forces; slopes from one over it, likewise."""
_LITTLE = 0.05
"""Distance of the slope from 1 that changes little in what a simulation gives, however surely it is known."""
_NAMED = 8
"""Structures that a verdict names."""


@dataclasses.dataclass(frozen=True)
class Softening(ProbeResult):
    """Regression of predicted on reference forces, over all structures but those that stand apart from the bulk.

    Attributes:
        reference, predicted: (m,) eV/Å, the components used.
        apart: (m,) whether a component is of a structure that stands apart.
        slope: of the regression through the origin over the bulk, ``sum F F_ref / sum F_ref^2``; below 1 is too soft.
        interval: 95 % interval of ``slope`` by resampling whole structures.
        correlation: of predicted and reference components of the bulk.
        slope_of_all: with the structures that stand apart.
        slope_apart: of these alone; NaN without any.
        structures_apart: their numbers, in the order given, largest share in ``slope_of_all`` first.
        n_structures: structures that had components to use.
        threshold: eV/Å, smallest reference force used.
    """

    reference: np.ndarray
    predicted: np.ndarray
    apart: np.ndarray
    slope: float
    interval: tuple[float, float]
    correlation: float
    slope_of_all: float
    slope_apart: float
    structures_apart: tuple[int, ...]
    n_structures: int
    threshold: float

    @property
    def verdict(self) -> str:
        """Tell whether the surface is too soft, too stiff or neither, beyond the scatter of the structures.

        Labels that do not follow the model, or by a factor that no model is soft by, say nothing about it.
        """
        low, high = self.interval
        if self.correlation < _RELATED or not _SOFTEST < self.slope < 1.0 / _SOFTEST:
            return (
                f"NOTHING about softness: the model's forces are {self.slope:.3g} times the labels, correlation "
                f"{self.correlation:.3f} ({self.n_structures} structures); labels with another unit, sign or order of "
                "atoms look so, and the doctor tells which"
            )
        soft = "too SOFT" if high < 1.0 - _LITTLE else "a little soft"
        stiff = "too STIFF" if low > 1.0 + _LITTLE else "a little stiff"
        word = soft if high < 1.0 else stiff if low > 1.0 else "neither soft nor stiff"
        return (
            f"{word}: slope of forces {self.slope:.3f} (95 % {low:.3f} to {high:.3f}, "
            f"{self.n_structures - len(self.structures_apart)} structures, correlation {self.correlation:.3f})"
        ) + self._others

    @property
    def _others(self) -> str:
        if not self.structures_apart:
            return ""
        named = ", ".join(map(str, self.structures_apart[:_NAMED]))
        more = ", ..." if len(self.structures_apart) > _NAMED else ""
        return (
            f"; APART from these: {len(self.structures_apart)} of {self.n_structures} structures with a slope of "
            f"{self.slope_apart:.3f} (structures {named}{more}); with them the slope would be {self.slope_of_all:.3f}"
        )

    def figure(self) -> Figure:
        """Predicted against reference components and the fitted slope."""
        return probe_figures.softening(self.reference, self.predicted, self.slope, self.apart)

    def as_dict(self):
        """As the base, without the single components."""
        return ProbeResult.as_dict(
            dataclasses.replace(self, reference=np.zeros(0), predicted=np.zeros(0), apart=np.zeros(0))
        )


def softening(evaluate: Evaluator, dataset: Dataset, *, threshold: float = 0.0) -> Softening:
    """Slope of predicted on reference forces over labelled structures off equilibrium.

    Args:
        evaluate: the potential.
        dataset: structures with reference forces; those without are left out.
        threshold: eV/Å, atoms whose reference force is smaller are left out: they are at equilibrium.

    Raises:
        ValueError: if fewer than two structures have forces above the threshold.
    """
    rows = [i for i, labels in enumerate(dataset.labels) if labels.forces_weight > 0]
    if not rows:
        raise ValueError("softening needs reference forces: no structure has them.")
    results = evaluate([dataset.systems[i] for i in rows])
    pairs = [(np.asarray(dataset.labels[i].forces), result.forces) for i, result in zip(rows, results, strict=True)]
    found = force_slope(pairs, threshold=threshold)
    return dataclasses.replace(found, structures_apart=tuple(rows[i] for i in found.structures_apart))


def force_slope(pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, threshold: float = 0.0, seed: int = 0) -> Softening:
    """The same from (reference, predicted) forces (n, 3) of each structure."""
    used, index = [], []
    for number, (reference, predicted) in enumerate(pairs):
        far = np.linalg.norm(reference, axis=1) > threshold
        if far.any():
            index.append(number)
            used.append((reference[far].ravel(), predicted[far].ravel()))
    if len(used) < 2:
        raise ValueError(
            f"softening needs at least two structures with forces above {threshold} eV/Å, found {len(used)}."
        )
    products = np.array([[np.sum(a * b), np.sum(a * a)] for a, b in used])
    apart = slopes_apart(*products.T)
    bulk = products[~apart]
    draws = draw_rows(len(bulk), _RESAMPLES, np.random.default_rng(seed))
    resampled = bulk[draws].sum(axis=1)
    reference, predicted = (np.concatenate(parts) for parts in zip(*used, strict=True))
    component_apart = np.repeat(apart, [len(a) for a, _ in used])
    low, high = confidence_95(resampled[:, 0] / resampled[:, 1])
    return Softening(
        reference=reference,
        predicted=predicted,
        apart=component_apart,
        slope=_slope(bulk),
        interval=(low, high),
        correlation=float(np.corrcoef(reference[~component_apart], predicted[~component_apart])[0, 1]),
        slope_of_all=_slope(products),
        slope_apart=_slope(products[apart]),
        structures_apart=tuple(index[k] for k in np.argsort(-products[:, 1]) if apart[k]),
        n_structures=len(used),
        threshold=threshold,
    )


def _slope(products: np.ndarray) -> float:
    """Slope through the origin from sums (n, 2) of ``F F_ref`` and ``F_ref^2``; NaN without any."""
    return float(products[:, 0].sum() / products[:, 1].sum()) if len(products) else np.nan


def rattled(system: System, amplitudes: Sequence[float], n_each: int = 4) -> list[System]:
    """Structures off equilibrium: Gaussian displacements of each amplitude (Å, per component).

    Args:
        system: at equilibrium.
        amplitudes: standard deviations in Å, per component.
        n_each: structures of each amplitude.
    """
    rng = np.random.default_rng(0)
    return [
        dataclasses.replace(system, positions=system.positions + amplitude * rng.normal(size=system.positions.shape))
        for amplitude in amplitudes
        for _ in range(n_each)
    ]
