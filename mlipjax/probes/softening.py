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
from mlipjax.system import System

_BOOTSTRAP = 500


@dataclasses.dataclass(frozen=True)
class Softening(ProbeResult):
    """Regression of predicted on reference forces.

    Attributes:
        reference, predicted: (m,) eV/Å, the components used.
        slope: of the regression through the origin, ``sum F F_ref / sum F_ref^2``; below 1 is too soft.
        interval: 95 % interval of ``slope`` by resampling whole structures.
        correlation: of predicted and reference components.
        n_structures: structures that had components to use.
        threshold: eV/Å, smallest reference force used.
    """

    reference: np.ndarray
    predicted: np.ndarray
    slope: float
    interval: tuple[float, float]
    correlation: float
    n_structures: int
    threshold: float

    @property
    def verdict(self) -> str:
        """Whether the surface is too soft, too stiff or neither."""
        low, high = self.interval
        word = "too SOFT" if high < 1.0 else "too STIFF" if low > 1.0 else "neither soft nor stiff"
        return (
            f"{word}: slope of forces {self.slope:.3f} (95 % {low:.3f} to {high:.3f}, {self.n_structures} structures, "
            f"correlation {self.correlation:.3f})"
        )

    def figure(self) -> Figure:
        """Predicted against reference components and the fitted slope."""
        return probe_figures.softening(self.reference, self.predicted, self.slope)

    def as_dict(self):
        """As the base, without the single components."""
        return ProbeResult.as_dict(dataclasses.replace(self, reference=np.zeros(0), predicted=np.zeros(0)))


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
    return force_slope(pairs, threshold=threshold)


def force_slope(pairs: Sequence[tuple[np.ndarray, np.ndarray]], *, threshold: float = 0.0, seed: int = 0) -> Softening:
    """The same from (reference, predicted) forces (n, 3) of each structure."""
    used = []
    for reference, predicted in pairs:
        far = np.linalg.norm(reference, axis=1) > threshold
        if far.any():
            used.append((reference[far].ravel(), predicted[far].ravel()))
    if len(used) < 2:
        raise ValueError(
            f"softening needs at least two structures with forces above {threshold} eV/Å, found {len(used)}."
        )
    products = np.array([[np.sum(a * b), np.sum(a * a)] for a, b in used])
    draws = np.random.default_rng(seed).integers(len(used), size=(_BOOTSTRAP, len(used)))
    resampled = products[draws].sum(axis=1)
    reference, predicted = (np.concatenate(parts) for parts in zip(*used, strict=True))
    low, high = np.percentile(resampled[:, 0] / resampled[:, 1], [2.5, 97.5])
    return Softening(
        reference=reference,
        predicted=predicted,
        slope=float(products[:, 0].sum() / products[:, 1].sum()),
        interval=(float(low), float(high)),
        correlation=float(np.corrcoef(reference, predicted)[0, 1]),
        n_structures=len(used),
        threshold=threshold,
    )


def softening_against(evaluate: Evaluator, reference: Evaluator, systems: Sequence[System]) -> Softening:
    """The same with another potential as the reference, for structures without labels (``rattled``, say)."""
    ours, theirs = evaluate(systems), reference(systems)
    return force_slope([(b.forces, a.forces) for a, b in zip(ours, theirs, strict=True)])


def rattled(system: System, amplitudes: Sequence[float], n_each: int = 4, seed: int = 0) -> list[System]:
    """Structures off equilibrium: Gaussian displacements of each amplitude (Å, per component)."""
    rng = np.random.default_rng(seed)
    return [
        dataclasses.replace(system, positions=system.positions + amplitude * rng.normal(size=system.positions.shape))
        for amplitude in amplitudes
        for _ in range(n_each)
    ]
