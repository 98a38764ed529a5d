"""Forces and stresses against the model's: placeholders, units and signs, wrong places, and disagreement without a name.

The worse labels and model agree, the more is said: what no hypothesis explains is a finding too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from mlipjax.data import Dataset
from mlipjax.finetune.agreement import CORRELATED, Row, cosine, disagrees, pooled, rms
from mlipjax.finetune.compared import Compared
from mlipjax.finetune.doctor_factors import FORCES, STRESSES, find_factors, knows_most, scales, virials, volume
from mlipjax.finetune.doctor_orders import (
    Explanation,
    atoms,
    axes,
    components,
    find_order,
    from_voigt,
    other_frames,
    rotations,
    shifted_frames,
    to_voigt,
    turned_axes,
)
from mlipjax.finetune.doctor_placeholders import find_placeholders
from mlipjax.finetune.findings import Finding

# eV/Å: forces below are as small as the errors of a calculation.
_STILL = 0.05
# Predictions that small may be nothing but the model's error about a structure at rest.
_MOVING = 0.1
_LEAST_STRESS = 1e-3
_LEAST_VALUES = 12
_FEW = 4
# Labels that follow the model less than that are doubted.
_DOUBTED = 0.97
# eV/Å, eV/Å^3: where labels of a structure alone are judged, both are at least that large (rms).
_LARGE = {"forces": 0.3, "stress": 0.01}
_RIGHT_UNITS = {"forces": "eV/Å", "stress": "eV/Å^3, tension positive"}


def check_forces(part: Compared) -> list[Finding]:
    """Everything about the forces of one data set."""
    rows = [
        Row(index, np.ravel(label.forces), np.ravel(found.forces), system)
        for index, (system, label, _), found in part
        if label.forces_weight > 0.0
    ]
    findings, rows = find_placeholders("forces", part.name, rows)
    moving = [row for row in rows if rms(row.model) > _STILL]
    found, left = find_factors(
        "forces",
        part.name,
        moving,
        scales(FORCES),
        unit=_RIGHT_UNITS["forces"],
        least_values=_LEAST_VALUES,
        large=_LARGE["forces"],
    )
    findings += found
    explained = {row.index for row in moving} - {row.index for row in left}
    left = [row for row in rows if row.index not in explained]
    doubted = [row for row in left if rms(row.model) > _MOVING]
    found = _find_orders("forces", part, doubted)
    return [*findings, *(found or _disagreement("forces", part.name, left, _STILL, 3.0))]


def check_stress(part: Compared) -> list[Finding]:
    """Everything about the stress of one data set; a constant pressure is left to the model's error."""
    rows, uneven = [], []
    for index, (system, label, _), found in part:
        if label.stress_weight > 0.0 and volume(system) > 0.0:
            stress = np.asarray(label.stress, np.float64)
            if np.max(np.abs(stress - stress.T)) > 0.05 * rms(stress) + 1e-6:
                uneven.append(index)
            rows.append(Row(index, to_voigt(0.5 * (stress + stress.T)), to_voigt(found.stress), system))
    findings = _uneven(part.name, uneven)
    found, rows = find_placeholders("stress", part.name, rows)
    findings += found
    rows = [row for row in rows if len(row.label) == 6]
    if not rows or rms(pooled(rows)[1]) <= _LEAST_STRESS:
        return findings
    deviating = _without_offset(rows)
    found, left = find_factors(
        "stress",
        part.name,
        deviating,
        [*virials(), *scales(STRESSES)],
        unit=_RIGHT_UNITS["stress"],
        least_values=6,
        large=_LARGE["stress"],
    )
    findings += found
    kept = {row.index for row in left}
    found = _find_orders("stress", part, [row for row in rows if row.index in kept])
    if found:
        return [*findings, *found]
    return [*findings, *_disagreement("stress", part.name, left, 2.0 * _LEAST_STRESS, 2.0)]


def _uneven(name: str, frames: Sequence[int]) -> list[Finding]:
    if not frames:
        return []
    message = f"stress of {name} is not symmetric in {len(frames)} structures"
    remedy = "A stress is a symmetric matrix; check the order of its components."
    return [Finding("fatal", "order", message, remedy, tuple((name, index) for index in frames))]


def _without_offset(rows: Sequence[Row]) -> list[Row]:
    """Deviators and pressures (10 numbers), pressures counted from their median if there are some.

    A model's equilibrium volume is not that of the labels, which is a pressure that all structures share.
    """
    labels, models = (np.array(values) for values in zip(*((row.label, row.model) for row in rows), strict=True))
    return [
        row._replace(label=label, model=model)
        for row, label, model in zip(rows, _split(labels), _split(models), strict=True)
    ]


def _split(stresses: np.ndarray) -> np.ndarray:
    """(n, 10) deviator as a matrix and pressure, of (n, 6) components; of equal norm as a (3, 3) matrix."""
    matrices = np.array([from_voigt(values) for values in stresses])
    pressure = np.trace(matrices, axis1=1, axis2=2) / 3.0
    deviator = matrices - pressure[:, None, None] * np.eye(3)
    if len(stresses) >= 4:
        pressure = pressure - np.median(pressure)
    return np.column_stack([deviator.reshape(-1, 9), np.sqrt(3.0) * pressure])


def _find_orders(what: str, part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Labels in the wrong place: first among those that do not follow the model, then among all that might better."""
    by_frame = _labels_of(what, part.full)
    seen = [row if what == "forces" else _traceless(row) for row in rows]
    for least in (CORRELATED, _DOUBTED):
        doubted = [place for place, row in enumerate(seen) if cosine(row.label, row.model) < least]
        if not doubted:
            continue
        chosen = [seen[place] for place in doubted]
        if what == "forces":
            found = find_order(what, part.name, chosen, _force_orders(chosen, by_frame))
        else:
            raw = [rows[place] for place in doubted]
            found = find_order(what, part.name, chosen, _stress_orders(chosen, by_frame, len(rows)))
            found = found or find_order(what, part.name, raw, components(raw))
        if found:
            return found
    return []


def _force_orders(rows: Sequence[Row], labels: dict[int, np.ndarray]) -> Iterator[Explanation]:
    return itertools.chain(
        axes(rows), shifted_frames(rows, labels), atoms(rows), other_frames(rows, labels), rotations(rows)
    )


def _stress_orders(rows: Sequence[Row], labels: dict[int, np.ndarray], total: int) -> Iterator[Explanation]:
    # six numbers resemble those of other structures easily: all structures have to be out of step
    whole = 2 * len(rows) > total and len(rows) > 2 * _FEW
    shifted = shifted_frames(rows, {index: _flat(label) for index, label in labels.items()}) if whole else iter(())
    return itertools.chain(components(rows), turned_axes(rows), shifted)


def _traceless(row: Row) -> Row:
    return row._replace(label=_flat(row.label), model=_flat(row.model))


def _flat(stress: np.ndarray) -> np.ndarray:
    """Six components less the pressure."""
    return stress - np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) * np.mean(stress[:3])


def _labels_of(what: str, dataset: Dataset) -> dict[int, np.ndarray]:
    """Label vectors of a whole data set (labels need no prediction)."""
    found = {}
    for index, label in enumerate(dataset.labels):
        if getattr(label, f"{what}_weight") > 0.0:
            found[index] = np.ravel(label.forces) if what == "forces" else to_voigt(np.asarray(label.stress))
    return found


def _disagreement(what: str, name: str, rows: Sequence[Row], least: float, dependent: float) -> list[Finding]:
    """Labels that do not follow the model, and nobody knows why: all of them, or else the structures that do not."""
    if not rows:
        return []
    apart = [
        row
        for row in rows
        if knows_most(rows)
        and cosine(row.label, row.model) < 0.5 * CORRELATED
        and min(rms(row.label), rms(row.model)) > _LARGE[what]
    ]
    for chosen in (list(rows), apart):
        if not chosen:
            continue
        label, model = pooled(chosen)
        count = len(label) / dependent
        if len(label) < 2 * _LEAST_VALUES or max(rms(label), rms(model)) <= least:
            continue
        still = rms(label) <= least
        if still and not (rms(model) > 20.0 * least and cosine(label, model) < CORRELATED):
            continue
        if still or disagrees(label, model, count):
            return [_unexplained(what, name, chosen, len(rows))]
    return []


def _unexplained(what: str, name: str, rows: Sequence[Row], total: int) -> Finding:
    label, model = pooled(rows)
    share = "" if len(rows) == total else f" in {len(rows)} of {total} structures"
    slope = float(label @ model) / float(model @ model) if np.any(model) else 0.0
    message = (
        f"{what} of {name} and the model's disagree{share} (correlation {cosine(label, model):.2f}, slope {slope:.2f}, "
        f"n = {len(rows)}): no unit, sign, order of atoms, axes or structures explains it"
    )
    remedy = (
        "Compare one structure with the output of its calculation. If the labels are right, this model knows nothing "
        "of these structures: choose another one."
    )
    worst = sorted(rows, key=lambda row: cosine(row.label, row.model))
    return Finding("warning", "agreement", message, remedy, tuple((name, row.index) for row in worst))
