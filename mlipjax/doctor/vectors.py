"""Forces and stresses against the model's: placeholders, units, signs, wrong places, and unexplained disagreement.

The worse labels and model agree, the more is said: what no hypothesis explains is a finding too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from ase import units

from mlipjax.data import Dataset
from mlipjax.doctor.agreement import CORRELATED, DEVIATIONS, Row, cosine, disagrees, is_near, pooled, ratio, rms
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.factors import FORCES, STRESSES, find_factors, knows_most, scales, virials, volume
from mlipjax.doctor.findings import Finding
from mlipjax.doctor.orders import (
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
from mlipjax.doctor.placeholders import find_placeholders

# eV/Å: forces below are as small as the errors of a calculation.
_STILL = 0.05
# Predictions that small may be nothing but the model's error about a structure at rest.
_MOVING = 0.1
_LEAST_STRESS = 1e-3
_LEAST_VALUES = 12
_FEW = 4
# Shears are out by a factor of two if they and the other components follow the model that well, to this factor.
_SURE, _EXACTLY = 0.95, 1.25
# eV/Å^3 (10 GPa): a pressure beyond what levels of theory differ by.
_OFFSET = 0.0624
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
    doubted = [row for row in left if min(rms(row.label), rms(row.model)) > _MOVING]
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
    if not found:
        findings += [*_shears(part.name, rows), *_pressures(part.name, rows)]
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


def _shears(name: str, rows: Sequence[Row]) -> list[Finding]:
    """Shears that are twice, or half, what they should be beside the other components, structure by structure."""
    others = pooled([row._replace(label=_flat(row.label)[:3], model=_flat(row.model)[:3]) for row in rows])
    if cosine(*others) < _SURE or rms(others[1]) < _LEAST_STRESS:
        return []
    shears = [row._replace(label=row.label[3:], model=row.model[3:]) for row in rows]
    shears = [row for row in shears if rms(row.model) > _LEAST_STRESS and cosine(row.label, row.model) > _SURE]
    findings = []
    for factor, text in ((2.0, "doubled"), (0.5, "halved")):
        found = [row for row in shears if is_near(ratio(row.label, row.model) / ratio(*others), factor, _EXACTLY)]
        # of a few structures, the model's own error may be a factor of two
        if len(found) < _FEW or 2 * len(shears) < len(rows):
            continue
        message = (
            f"stress of {name} has shears {ratio(*pooled(found)):.2f} times the model's in {len(found)} of {len(rows)} "
            f"structures, other components {ratio(*others):.2f} times: as if shears were {text}"
        )
        remedy = "Write the components of the stress itself, without the factors of Voigt's notation for strains."
        findings.append(Finding("fatal", "order", message, remedy, tuple((name, row.index) for row in found)))
    return findings


def _pressure(stress: np.ndarray) -> float:
    return -float(np.mean(stress[:3]))


def _pressures(name: str, rows: Sequence[Row]) -> list[Finding]:
    """A pressure that is added to all stresses, or to some of them."""
    errors = np.array([np.mean(row.label[:3] - row.model[:3]) for row in rows])
    offset = float(np.median(errors))
    own = float(np.median(np.abs([np.mean(row.model[:3]) for row in rows])))
    findings = []
    if len(rows) >= _FEW and abs(offset) > max(_OFFSET, 3.0 * float(np.median(np.abs(errors - offset)))):
        message = (
            f"stress of {name} is the model's and a pressure of {-offset / units.GPa:.1f} GPa more (n = {len(rows)}, "
            f"the model's own is about {own / units.GPa:.1f})"
        )
        remedy = "Look for a kinetic or external pressure in the labels, or for an unconverged basis."
        findings.append(Finding("warning", "pressure", message, remedy, tuple((name, row.index) for row in rows)))
    spread = 1.4826 * float(np.median(np.abs(errors - offset)))
    least = max(10.0 * spread, _OFFSET / 2.0)
    out = [
        row
        for row, error in zip(rows, errors, strict=True)
        if abs(error - offset) > max(least, 0.75 * max(abs(_pressure(row.label)), abs(_pressure(row.model))))
    ]
    if len(rows) >= 2 * _FEW and out and 2 * len(out) < len(rows):
        message = f"stress of {name} has another pressure than the others beside the model in {len(out)} structures"
        remedy = "Look for an external pressure, another basis or another level of theory in these calculations."
        findings.append(Finding("warning", "outlier", message, remedy, tuple((name, row.index) for row in out)))
    return findings


def _find_orders(what: str, part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Labels in the wrong place, among those that do not follow the model and among all that might follow better."""
    by_frame = _labels_of(what, part.full)
    seen = [row if what == "forces" else _traceless(row) for row in rows]
    best: list[Finding] = []
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
        if found and (not best or len(found[0].frames) > len(best[0].frames)):
            best = found
    return best


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
    if rows and _is_apart(rows, least, dependent):
        return [_unexplained(what, name, rows, len(rows))]
    large = _LARGE[what]
    apart = [
        row
        for row in rows
        if cosine(row.label, row.model) < 0.5 * CORRELATED
        and rms(row.model) > large
        and max(rms(row.label), rms(row.model) / 3.0) > large
    ]
    # where the model is right elsewhere, less is proof enough
    if apart and knows_most(rows) and _is_apart(apart, least, dependent, 1.0):
        return [_unexplained(what, name, apart, len(rows))]
    return []


def _is_apart(rows: Sequence[Row], least: float, dependent: float, deviations: float = DEVIATIONS) -> bool:
    label, model = pooled(rows)
    if len(label) < 2 * _LEAST_VALUES or max(rms(label), rms(model)) <= least:
        return False
    if rms(label) <= max(least, 0.1 * rms(model)):
        # next to nothing, where the model's own error cannot be as large as its prediction
        return len(rows) >= _FEW and rms(model) > 20.0 * least and cosine(label, model) < CORRELATED
    return disagrees(label, model, len(label) / dependent, deviations)


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
