"""Checks of labels against the model's predictions: units, signs, and the error before training.

A universal model is rarely exact but nearly always right within a factor of two, so labels in another unit, or of the
other sign, stand out in a regression through the origin.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase import units

from mlipjax.data import Dataset
from mlipjax.finetune.findings import Finding
from mlipjax.finetune.settings import STEP_0_LIMIT
from mlipjax.potential import Potential
from mlipjax.train import StructurePrediction

_KCAL, _KJ = units.kcal / units.mol, units.kJ / units.mol
# What one eV/Å (eV, eV/Å^3) amounts to in other units.
_FORCES = {
    "kcal/mol/Å": 1.0 / _KCAL,
    "kJ/mol/Å": 1.0 / _KJ,
    "kJ/mol/nm": units.nm / _KJ,
    "Hartree/Bohr": units.Bohr / units.Hartree,
    "Hartree/Å": 1.0 / units.Hartree,
    "Rydberg/Bohr": units.Bohr / units.Rydberg,
    "meV/Å": 1e3,
}
_ENERGIES = {"kcal/mol": 1.0 / _KCAL, "kJ/mol": 1.0 / _KJ, "Hartree": 1.0 / units.Hartree, "meV": 1e3}
_STRESSES = {"GPa": 1.0 / units.GPa, "kBar": 10.0 / units.GPa, "bar": 1e4 / units.GPa}
# A slope belongs to a unit if it is within this factor of it; other slopes up to ``_PLAUSIBLE`` are the model's error.
_NEAR, _PLAUSIBLE = 1.5, 3.0
_CORRELATED = 0.6
_LEAST_VALUES = 12
_LEAST_ENERGIES = 6
_STILL = 0.05
# A label stands out if its error is that many robust standard deviations, and eV/atom, from others of its composition.
_OUTLYING, _LEAST_OUTLYING = 10.0, 5e-3
_LEAST_STRESS = 1e-3


class Compared(NamedTuple):
    """Structures of one data set, their labels, and what the model says of them before training.

    Attributes:
        name: of the data set.
        indices: of the structures in it.
        dataset: these structures.
        predictions: total energies with the isolated-atom energies that training will use.
    """

    name: str
    indices: tuple[int, ...]
    dataset: Dataset
    predictions: Sequence[StructurePrediction]


def check_predictions(potential: Potential, compared: list[Compared], *, e0s: str, dtype: str) -> list[Finding]:
    """Run all checks against the model.

    While a unit is wrong, the error before training says nothing else and is left out.

    Args:
        potential: with the isolated-atom energies that training will use.
        compared: labels and predictions.
        e0s: where the isolated-atom energies are from, in words.
        dtype: precision of training.
    """
    findings = [*check_forces(compared), *check_energy_unit(compared), *check_stress(compared)]
    if any(finding.severity == "fatal" and finding.check in ("units", "sign") for finding in findings):
        return findings
    findings += [*check_step_0(compared, e0s), *check_energy_range(potential, compared, dtype)]
    return [*findings, *check_energy_outliers(compared)]


def check_forces(compared: list[Compared]) -> list[Finding]:
    """Unit and sign of the forces."""
    findings = []
    for part in compared:
        pairs = [
            (label.forces, prediction.forces, index)
            for index, label, prediction in zip(part.indices, part.dataset.labels, part.predictions, strict=True)
            if label.forces_weight > 0.0 and _root_mean_square(prediction.forces) > _STILL
        ]
        findings += _compare("forces", part.name, pairs, "eV/Å", _FORCES)
    return findings


def check_stress(compared: list[Compared]) -> list[Finding]:
    """Unit and sign of the stress; also whether it is a virial (minus stress times volume)."""
    findings = []
    for part in compared:
        pairs, virials = [], []
        for index, (system, label, _), prediction in zip(part.indices, part.dataset, part.predictions, strict=True):
            volume = abs(float(np.linalg.det(np.asarray(system.cell, np.float64))))
            if label.stress_weight > 0.0 and volume > 0.0:
                pairs.append((label.stress, prediction.stress, index))
                virials.append((label.stress, -volume * prediction.stress, index))
        strong = pairs and _root_mean_square(np.array([model for _, model, _ in pairs])) > _LEAST_STRESS
        if not strong:
            continue
        slope, correlation = _regress(virials)
        if correlation > _CORRELATED and _is_near(slope, 1.0) and not _is_near(_regress(pairs)[0], 1.0):
            message = f"stress labels of {part.name} are {slope:.2f} times the model's virial (-stress · volume)"
            remedy = "Divide by minus the volume: stress in eV/Å^3, tension positive."
            findings.append(Finding("fatal", "units", message, remedy, tuple((part.name, i) for *_, i in pairs)))
            continue
        findings += _compare("stress", part.name, pairs, "eV/Å^3, tension positive", _STRESSES)
    return findings


def check_energy_unit(compared: list[Compared]) -> list[Finding]:
    """Unit of the energies, from their differences between structures of one composition."""
    findings = []
    for part in compared:
        pairs = []
        for rows in _rows_by_composition(part.dataset):
            labels = np.array([float(part.dataset.labels[row].energy) for row in rows])
            found = np.array([part.predictions[row].energy for row in rows])
            if len(rows) >= 3:
                pairs += zip(labels - labels.mean(), found - found.mean(), [part.indices[r] for r in rows], strict=True)
        if len(pairs) < _LEAST_ENERGIES:
            continue
        sizes = [system.n_atoms for system in part.dataset.systems]
        per_atom = {"eV per atom": 1.0 / float(np.median(sizes))} if np.median(sizes) > _PLAUSIBLE else {}
        findings += _compare("energies", part.name, pairs, "eV per structure", {**_ENERGIES, **per_atom}, 0.9)
    return findings


def check_step_0(compared: list[Compared], e0s: str) -> list[Finding]:
    """The energy error before training: above 500 meV/atom the isolated-atom energies do not fit."""
    findings = []
    for part in compared:
        rows = [row for row, label in enumerate(part.dataset.labels) if label.energy_weight > 0.0]
        if not rows:
            continue
        errors = np.array(
            [
                (part.predictions[row].energy - float(part.dataset.labels[row].energy))
                / part.dataset.systems[row].n_atoms
                for row in rows
            ]
        )
        error = float(np.sqrt(np.mean(errors**2)))
        if not error <= STEP_0_LIMIT:
            message = (
                f"before training the energy error is {1e3 * error:.0f} meV/atom with E0s from {e0s!r}, above "
                f"{1e3 * STEP_0_LIMIT:.0f}: they do not fit (n = {len(rows)}, {part.name})"
            )
            remedy = (
                "Either the labels come from another code or other pseudopotentials than the E0s, or this model was "
                "trained with E0s fitted to total energies, which true isolated atoms cannot replace. Use e0s "
                "'estimate'; to train all the same, allow the mismatch."
            )
            worst = [rows[i] for i in np.argsort(-np.abs(errors))]
            frames = tuple((part.name, part.indices[row]) for row in worst)
            findings.append(Finding("fatal", "step-0", message, remedy, frames))
    return findings


def check_energy_range(potential: Potential, compared: list[Compared], dtype: str) -> list[Finding]:
    """Energies that are still so large without isolated atoms that single precision rounds them noticeably."""
    if dtype != "float32":
        return []
    frames, worst = [], 0.0
    for part in compared:
        for index, (system, label, _) in zip(part.indices, part.dataset, strict=True):
            if label.energy_weight > 0.0:
                interaction = float(label.energy) - potential.reference_energy(np.asarray(system.atomic_numbers))
                rounding = 2.0**-24 * abs(interaction) / system.n_atoms
                if rounding > 1e-4:
                    worst = max(worst, rounding)
                    frames.append((part.name, index))
    if not frames:
        return []
    message = f"float32 rounds energies by up to {1e3 * worst:.2g} meV/atom, so large are they without isolated atoms"
    return [Finding("warning", "range", message, "Use e0s 'estimate' or a file, or dtype float64.", tuple(frames))]


def check_energy_outliers(compared: list[Compared]) -> list[Finding]:
    """Energies that stand out from those of the same composition, such as another electronic state.

    A model's error varies little along a trajectory, so a label far from where its neighbours' errors put it is more
    likely wrong than the model; one such frame outweighs all others in energy statistics and in a squared loss. The
    scale is the median absolute deviation within a composition.
    """
    findings = []
    for part in compared:
        outlying: list[tuple[float, int]] = []
        for rows in _rows_by_composition(part.dataset):
            if len(rows) < _LEAST_ENERGIES:
                continue
            labels = np.array([float(part.dataset.labels[row].energy) for row in rows])
            errors = (labels - [part.predictions[row].energy for row in rows]) / part.dataset.systems[rows[0]].n_atoms
            errors -= np.median(errors)
            scale = max(1.4826 * float(np.median(np.abs(errors))), _LEAST_OUTLYING / _OUTLYING)
            outlying += [
                (error, part.indices[row])
                for error, row in zip(errors.tolist(), rows, strict=True)
                if abs(error) > _OUTLYING * scale
            ]
        if outlying:
            outlying.sort(key=lambda pair: -abs(pair[0]))
            message = (
                f"{len(outlying)} energy label(s) of {part.name} stand out from others of the same composition, by up "
                f"to {1e3 * outlying[0][0]:+.0f} meV/atom"
            )
            remedy = (
                "Look at how these calculations converged (electronic state, spin, k-points); compute them again or "
                "leave them out. If the structure itself is far from the others, the model may be what is wrong."
            )
            findings.append(Finding("warning", "outlier", message, remedy, tuple((part.name, i) for _, i in outlying)))
    return findings


def check_zero_shot(
    before: Sequence[StructurePrediction], after: list[StructurePrediction], name: str, dtype: str
) -> list[Finding]:
    """Whether a model with adapters or another head, not yet trained, predicts what the model it was made from does."""
    tolerance = 1e-3 if dtype == "float32" else 1e-8
    difference = max(
        float(np.max(np.abs(new.forces - old.forces), initial=0.0)) for old, new in zip(before, after, strict=True)
    )
    if difference <= tolerance:
        return []
    message = f"at step 0 forces differ from the model's own by {difference:.2g} eV/Å on {name}, above {tolerance:g}"
    remedy = "Adapters or heads changed the model before training: this is a defect of the program, please report it."
    return [Finding("fatal", "zero-shot", message, remedy)]


def _rows_by_composition(dataset: Dataset) -> list[list[int]]:
    """Rows of structures with an energy label, those of one composition together."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for row, (system, label, _) in enumerate(dataset):
        if label.energy_weight > 0.0:
            groups[np.sort(np.asarray(system.atomic_numbers)).tobytes()].append(row)
    return list(groups.values())


def _compare(
    what: str, name: str, pairs: list, unit: str, others: dict[str, float], least: float = _CORRELATED
) -> list[Finding]:
    """Judge the slope of labels against predictions."""
    if sum(np.size(label) for label, _, _ in pairs) < (_LEAST_ENERGIES if what == "energies" else _LEAST_VALUES):
        return []
    slope, correlation = _regress(pairs)
    if abs(correlation) < least or slope == 0.0:
        return []
    frames = tuple((name, index) for *_, index in pairs)
    text = f"{what} of {name} are {slope:.4g} times the model's (correlation {correlation:.2f}, n = {len(pairs)})"
    size = abs(slope)
    fitting = [other for other, factor in others.items() if _is_near(size, factor)]
    best = min(fitting, key=lambda other: abs(math.log(size / others[other])), default=None)
    sign = "" if slope > 0.0 else ", of the other sign"
    if best is not None and not _is_near(size, 1.0):
        message = f"{text}, like {best}{sign}"
        return [Finding("fatal", "units", message, f"Convert them to {unit}.", frames)]
    if slope < 0.0:
        remedy = f"Change their sign: {unit}" + ("; forces are minus the gradient." if what == "forces" else ".")
        return [Finding("fatal", "sign", f"{text}: they have the other sign", remedy, frames)]
    if not 1.0 / _PLAUSIBLE < size < _PLAUSIBLE:
        remedy = f"Check that they are in {unit}; if so, this model is far off for this material."
        return [Finding("warning", "units", f"{text}, and no common unit explains it", remedy, frames)]
    return []


def _regress(pairs: list) -> tuple[float, float]:
    """Geometric-mean slope through the origin, with the sign of the correlation, and the (uncentred) correlation."""
    labels = np.concatenate([np.ravel(label) for label, _, _ in pairs])
    model = np.concatenate([np.ravel(prediction) for _, prediction, _ in pairs])
    norms = float(np.linalg.norm(labels)), float(np.linalg.norm(model))
    if min(norms) == 0.0:
        return 0.0, 0.0
    correlation = float(labels @ model) / (norms[0] * norms[1])
    return math.copysign(norms[0] / norms[1], correlation), correlation


def _is_near(value: float, target: float) -> bool:
    return value > 0.0 and abs(math.log(value / target)) < math.log(_NEAR)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
