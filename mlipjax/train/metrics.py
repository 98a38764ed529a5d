"""Errors of predictions against labels: float64 statistics on the host, with bootstrap intervals, and parity plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from mlipjax.data import Dataset
from mlipjax.elements import symbols
from mlipjax.statistics import RESAMPLES, confidence_95, draw_rows
from mlipjax.system import System
from mlipjax.train.batches import StructurePrediction

_TO_MEV = 1e3
# Structures drawn at once: bounds the memory of resampling.
_DRAWN = 2**19
_MOMENTS = ("count", "absolute", "squared", "cross", "reference", "norm", "atoms")


def error_report(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> dict[str, Any]:
    """Compare predictions with labels; structures without a label are left out of that label's statistics.

    Conventions: errors are prediction minus label. Energies are per atom; ``energy_std`` is what remains of the
    energy error after subtracting its mean (``rmse² = mean² + std²``). Force and stress errors are over Cartesian
    components. ``force_slope`` is the slope through the origin of predicted against reference forces,
    ``Σ F·F_ref / Σ F_ref²``: below 1 where the potential energy surface is too soft; ``force_slope_bulk``
    leaves out the structures whose own slope stands apart (``slopes_apart``), which ``force_slope_apart`` lists
    by their numbers. A quantity without labels is ``None``.

    ``confidence_95`` holds percentile intervals from resampling whole structures (fixed seed). Frames of one
    trajectory resemble each other, so for them the intervals are too narrow.

    Returns:
        JSON types; the keys say the units.
    """
    if len(predictions) != len(dataset):
        raise ValueError(f"{len(predictions)} predictions for {len(dataset)} structures.")
    energy, (forces, by_element), stress = _errors(dataset, predictions)
    counts, atoms = dataset.count_labels(), _count_atoms(dataset)
    return {
        **_statistics(energy, by_element.sum(axis=0), stress),
        **_bulk_slope(forces),
        "force_reference_mean_norm_meV_per_A": _mean_norm(by_element.sum(axis=0)),
        "n_frames": len(dataset),
        "n_atoms": int(atoms.sum()),
        "n_energies": counts["energy"],
        "n_force_frames": counts["forces"],
        "n_stresses": len(stress),
        "confidence_95": _intervals(energy, forces, stress),
        "per_element": _per_element(dataset.elements, by_element, atoms),
    }


def error_summary(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> dict[str, float | None]:
    """Return the main numbers of ``error_report`` only: cheap enough for every epoch."""
    energy, (_, by_element), stress = _errors(dataset, predictions)
    return _statistics(energy, by_element.sum(axis=0), stress)


def property_report(targets: np.ndarray, predictions: np.ndarray) -> dict[str, Any]:
    """Return mean error, MAE and RMSE in the property's unit, n, and 95 % bootstrap intervals over structures."""
    if targets.shape != predictions.shape or len(targets) == 0:
        raise ValueError(f"found {predictions.shape} predictions for {targets.shape} values.")
    errors = predictions - targets
    intervals = {name: confidence_95(values) for name, values in _moments(errors[draw_rows(len(errors))]).items()}
    return {"n": len(errors), **{k: float(v) for k, v in _moments(errors).items()}, "confidence_95": intervals}


def _moments(errors: np.ndarray) -> dict[str, Any]:
    """Statistics over the last axis."""
    rmse = np.sqrt((errors**2).mean(axis=-1))
    return {"mean": errors.mean(axis=-1), "mae": np.abs(errors).mean(axis=-1), "rmse": rmse}


def _errors(
    dataset: Dataset, predictions: Sequence[StructurePrediction]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray], np.ndarray]:
    return (
        _energy_errors(dataset, predictions),
        _force_moments(dataset, predictions),
        _stress_errors(dataset, predictions),
    )


def _statistics(energy: np.ndarray, forces: np.ndarray, stress: np.ndarray) -> dict[str, Any]:
    return {**_energy_statistics(energy), **_force_statistics(forces), **_stress_statistics(stress)}


def _energy_errors(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> np.ndarray:
    errors = [
        (prediction.energy - float(labels.energy)) / len(system.atomic_numbers)
        for prediction, system, labels in zip(predictions, dataset.systems, dataset.labels, strict=True)
        if labels.energy_weight > 0
    ]
    return _TO_MEV * np.array(errors, np.float64)


def _force_moments(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> tuple[np.ndarray, np.ndarray]:
    """(structures, moments) and (elements, moments): sums over atoms from which all force statistics follow."""
    elements = dataset.elements
    by_structure, by_element = np.zeros((len(dataset), len(_MOMENTS))), np.zeros((len(elements), len(_MOMENTS)))
    for row, (prediction, (system, labels, _)) in enumerate(zip(predictions, dataset, strict=True)):
        if not labels.forces_weight > 0:
            continue
        column = np.searchsorted(elements, system.atomic_numbers)
        found, reference = _TO_MEV * prediction.forces, _TO_MEV * np.asarray(labels.forces, np.float64)
        error = found - reference
        per_atom = np.stack(
            [
                np.full(len(column), 3.0),
                np.abs(error).sum(axis=1),
                (error**2).sum(axis=1),
                (found * reference).sum(axis=1),
                (reference**2).sum(axis=1),
                np.linalg.norm(reference, axis=1),
                np.ones(len(column)),
            ],
            axis=1,
        )
        moments = np.zeros_like(by_element)
        np.add.at(moments, column, per_atom)
        by_structure[row] = moments.sum(axis=0)
        by_element += moments
    return by_structure, by_element


def _stress_errors(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> np.ndarray:
    """Mean absolute error over the nine components of every structure with a stress, in meV/Å^3."""
    errors = [
        np.abs(prediction.stress - np.asarray(labels.stress)).mean()
        for prediction, (system, labels, _) in zip(predictions, dataset, strict=True)
        if labels.stress_weight > 0 and np.linalg.det(system.cell) != 0.0
    ]
    return _TO_MEV * np.array(errors, np.float64)


def _energy_statistics(errors: np.ndarray) -> dict[str, Any]:
    """Statistics over the last axis."""
    known = errors.shape[-1] > 0
    values = {
        "mean": errors.mean(axis=-1) if known else None,
        "std": errors.std(axis=-1) if known else None,
        "rmse": np.sqrt((errors**2).mean(axis=-1)) if known else None,
        "mae": np.abs(errors).mean(axis=-1) if known else None,
    }
    return {f"energy_{name}_meV_per_atom": _number(value) for name, value in values.items()}


def _force_statistics(sums: np.ndarray) -> dict[str, Any]:
    """Statistics from summed moments, the last axis; other axes are resamples."""
    count, absolute, squared, cross, reference, *_ = np.moveaxis(sums, -1, 0)
    known = np.all(count > 0)
    return {
        "force_mae_meV_per_A": _number(absolute / count if known else None),
        "force_rmse_meV_per_A": _number(np.sqrt(squared / count) if known else None),
        "force_slope": _number(cross / reference if known and np.all(reference > 0) else None),
    }


def _bulk_slope(by_structure: np.ndarray) -> dict[str, Any]:
    """Slope of forces without the structures that stand apart, and the numbers of these."""
    cross, square = by_structure[:, _MOMENTS.index("cross")], by_structure[:, _MOMENTS.index("reference")]
    apart = slopes_apart(cross, square)
    total = square[~apart].sum()
    return {
        "force_slope_bulk": float(cross[~apart].sum() / total) if total > 0.0 else None,
        "force_slope_apart": np.flatnonzero(apart).tolist(),
    }


def _mean_norm(sums: np.ndarray) -> float | None:
    norm, atoms = sums[_MOMENTS.index("norm")], sums[_MOMENTS.index("atoms")]
    return float(norm / atoms) if atoms > 0 else None


def _stress_statistics(errors: np.ndarray) -> dict[str, Any]:
    return {"stress_mae_meV_per_A3": _number(errors.mean(axis=-1) if errors.shape[-1] else None)}


def _count_atoms(dataset: Dataset) -> np.ndarray:
    """Number of atoms of each of the data set's elements."""
    counts = np.zeros(len(dataset.elements), int)
    for system in dataset.systems:
        counts += np.bincount(np.searchsorted(dataset.elements, system.atomic_numbers), minlength=len(counts))
    return counts


def _per_element(elements: Sequence[int], sums: np.ndarray, atoms: np.ndarray) -> dict[str, dict[str, Any]]:
    return {
        symbol: {
            **_force_statistics(sums[column]),
            "force_reference_mean_norm_meV_per_A": _mean_norm(sums[column]),
            "n_atoms": int(atoms[column]),
        }
        for column, symbol in enumerate(symbols(elements))
    }


def _intervals(energy: np.ndarray, forces: np.ndarray, stress: np.ndarray) -> dict[str, list[float] | None]:
    """95 % percentile intervals of all main numbers, structures drawn with replacement."""
    rng = np.random.default_rng(0)
    labelled = forces[forces[:, 0] > 0]
    resampled = {
        **_resampled(rng, energy, _energy_statistics),
        **_resampled(rng, labelled, lambda drawn: _force_statistics(drawn.sum(axis=1))),
        **_resampled(rng, stress, _stress_statistics),
    }
    return {name: None if values is None else confidence_95(values) for name, values in resampled.items()}


def _resampled(
    rng: np.random.Generator, values: np.ndarray, statistics: Callable[[np.ndarray], dict[str, Any]]
) -> dict[str, Any]:
    """Statistics of values drawn with replacement, (resamples,) each, or ``None`` as ``statistics`` has it."""
    n = len(values)
    if n <= 1:
        return statistics(values[np.zeros((RESAMPLES, 0), int)])
    step = max(1, _DRAWN // n)
    counts = (min(step, RESAMPLES - start) for start in range(0, RESAMPLES, step))
    parts = [statistics(values[draw_rows(n, count, rng)]) for count in counts]
    columns = {name: [part[name] for part in parts] for name in parts[0]}
    return {
        name: None if any(part is None for part in found) else np.concatenate(found) for name, found in columns.items()
    }


def _number(value: Any) -> Any:
    return float(value) if value is not None and np.ndim(value) == 0 else value


_WIDTHS = 5.0
"""Robust standard deviations from the median slope beyond which a structure is set apart."""

_LEAST = 0.03
"""Smallest such deviation taken: slopes that agree to less than this are not told apart."""

_WEIGHTY = 0.5
"""Part of the median of ``F_ref^2`` below which a structure is not judged."""

_FEWEST = 5
"""Structures below which there is no bulk to set others apart from."""


def slopes_apart(cross: np.ndarray, square: np.ndarray) -> np.ndarray:
    """(n,) true for structures whose own slope of forces is not that of the bulk.

    A slope through the origin weighs structures by their squared forces: a few with large forces outweigh hundreds.
    Each structure's own slope ``cross / square`` is compared with the median of all, in units of the median deviation
    (Hampel, J. Am. Stat. Assoc. 69, 383 (1974)), which up to half of the structures cannot move. Structures with much
    smaller forces than most have uncertain slopes and move nothing: they are never set apart.

    Args:
        cross: (n,) sums of ``F F_ref`` over a structure.
        square: (n,) sums of ``F_ref^2``.
    """
    cross, square = np.asarray(cross, np.float64), np.asarray(square, np.float64)
    known = square > 0.0
    if known.sum() < _FEWEST:
        return np.zeros(len(square), bool)
    slopes = np.divide(cross, square, out=np.zeros_like(cross), where=known)
    middle = np.median(slopes[known])
    deviation = np.abs(slopes - middle)
    width = max(1.4826 * float(np.median(deviation[known])), _LEAST)
    weighty = square > _WEIGHTY * np.median(square[known])
    return known & weighty & (deviation > _WIDTHS * width)


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


def force_errors(dataset: Dataset, predictions: Sequence[StructurePrediction]) -> list[tuple[Atoms, np.ndarray]]:
    """Structures whose forces are known, with the error of the force on each atom (n,) in eV/Å, a norm.

    Each has in ``info["structure"]`` its number in the data set.

    Args:
        dataset: structures and labels.
        predictions: of a model, in the same order.
    """
    found = []
    for number, (system, labels, prediction) in enumerate(
        zip(dataset.systems, dataset.labels, predictions, strict=True)
    ):
        if labels.forces_weight > 0.0:
            atoms = system.to_ase()
            atoms.info["structure"] = number
            found.append((atoms, np.linalg.norm(np.asarray(prediction.forces) - np.asarray(labels.forces), axis=1)))
    return found


def _pair(reference: Any, predicted: Any) -> np.ndarray:
    return np.stack([np.asarray(reference, np.float64).ravel(), np.asarray(predicted, np.float64).ravel()])


def thinned(points: np.ndarray) -> np.ndarray:
    """Draw ``MAX_POINTS`` of (k, n) points, always the same ones, in their order; all if there are no more."""
    if points.shape[1] <= MAX_POINTS:
        return points
    chosen = np.random.default_rng(0).choice(points.shape[1], MAX_POINTS, replace=False)
    return points[:, np.sort(chosen)]
