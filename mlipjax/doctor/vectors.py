"""Forces and stresses against the model's: placeholders, units, signs, wrong places, and unexplained disagreement.

The worse labels and model agree, the more is said: what no hypothesis explains is a finding too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import units

from mlipjax.doctor.compared import (
    CLOSELY,
    CORRELATED,
    DEVIATIONS,
    Compared,
    Row,
    is_near,
    knows_most,
    pooled,
    rms,
    without,
)
from mlipjax.doctor.exchanged import AS_IS, find_exchanged
from mlipjax.doctor.factors import FORCES, STRESS, Quantity, find_factors
from mlipjax.doctor.findings import Finding
from mlipjax.doctor.orders import components, find_order, force_orders, shifted_frames, turned_axes
from mlipjax.doctor.placeholders import find_placeholders
from mlipjax.system import voigt_to_full

# eV/Å: forces below are as small as the errors of a calculation; predictions, as the model's about a structure at rest.
_STILL, _MOVING = 0.05, 0.1
_LEAST_STRESS = 1e-3
_LEAST_VALUES = 24
_FEW = 4
# Shears are out by a factor of two if they and the other components follow the model that well, to this factor.
_SURE, _EXACTLY = 0.95, 1.25
# eV/Å^3 (10 GPa): a pressure beyond what levels of theory differ by.
_OFFSET = 0.0624
# Labels that follow the model less than that are doubted.
_DOUBTED = 0.97

UNKNOWN_STRUCTURES = (
    "Compare one structure with the output of its calculation. If the labels are right, this model knows nothing of "
    "these structures: choose another one."
)


def check_forces(part: Compared) -> list[Finding]:
    """Everything about the forces of one data set."""
    findings, rows = find_placeholders(part, "forces", part.rows("forces"))
    found, explained = find_factors(part, FORCES, [row for row in rows if rms(row.model) > _STILL])
    rows, labels = without(rows, explained), part.labels("forces")
    moving = [row for row in rows if min(row.sizes) > _MOVING]
    orders = _misplaced(moving, lambda rows: find_order(part, "forces", rows, force_orders(rows, labels)))
    return [*findings, *found, *(orders or _disagreement(part, FORCES, rows, _STILL, 3.0))]


def check_stress(part: Compared) -> list[Finding]:
    """Everything about the stress of one data set; a constant pressure is left to the model's error."""
    rows = [row for row in part.rows("stress") if row.system.volume > 0.0]
    findings = _uneven(part, rows)
    found, rows = find_placeholders(part, "stress", rows)
    findings += found
    rows = [row for row in rows if len(row.label) == 6]
    if rms(pooled(rows).model) <= _LEAST_STRESS:
        return findings
    compared = _comparable(rows)
    found, explained = find_factors(part, STRESS, compared)
    if not found:
        found, explained = _shears(part, rows)
        findings += _pressures(part, rows)
    findings += found
    rows, compared = without(rows, explained), without(compared, explained)
    labels = {index: _flat(label) for index, label in part.labels("stress").items()}

    def find(doubted: Sequence[Row]) -> list[Finding]:
        # six numbers resemble those of other structures easily: all structures have to be out of step
        whole = 2 * len(doubted) > len(rows) and len(doubted) > 2 * _FEW
        ways = [*components(doubted), *turned_axes(), *(shifted_frames(labels) if whole else ())]
        raw = without(rows, without(rows, doubted))
        return find_order(part, "stress", doubted, ways) or find_order(part, "stress", raw, components(raw))

    orders = _misplaced([row.apply(_flat) for row in rows], find)
    if not orders and (orders := find_exchanged(part, "stress", rows, AS_IS)):
        findings = [finding for finding in findings if finding.check != "outlier"]  # which these are
    return findings + (orders or _disagreement(part, STRESS, compared, 2.0 * _LEAST_STRESS, 2.0))


def _uneven(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    labels = dict(zip(part.indices, part.dataset.labels, strict=True))
    uneven = []
    for row in rows:
        stress = np.asarray(labels[row.index].stress, np.float64)
        if np.max(np.abs(stress - stress.T)) > 0.05 * rms(stress) + 1e-6:
            uneven.append(row)
    if not uneven:
        return []
    message = f"stress of {part.name} is not symmetric in {len(uneven)} structures"
    remedy = "A stress is a symmetric matrix; check the order of its components."
    return [part.finding("fatal", "order", message, remedy, uneven)]


def _comparable(rows: Sequence[Row]) -> list[Row]:
    """Deviators and pressures (10 numbers), pressures counted from their median unless most structures agree as is.

    A model's equilibrium volume may not be that of the labels, which is a pressure that all structures share.
    """
    split = [row.apply(_split) for row in rows]
    if len(rows) < _FEW or 2 * sum(row.fit >= CLOSELY for row in split) >= len(rows):
        return split
    label, model = (np.eye(10)[9] * np.median([getattr(row, name)[9] for row in split]) for name in ("label", "model"))
    return [row._replace(label=row.label - label, model=row.model - model) for row in split]


def _split(stress: np.ndarray) -> np.ndarray:
    """(10,) deviator as a matrix and pressure, of (6,) components; of equal norm as a (3, 3) matrix."""
    return np.append(voigt_to_full(_flat(stress)).ravel(), np.sqrt(3.0) * np.mean(stress[:3]))


def _shears(part: Compared, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Shears that are twice, or half, what they should be beside the other components, and the rows where they are."""
    others = pooled([row.apply(lambda stress: _flat(stress)[:3]) for row in rows])
    if others.fit < _SURE or rms(others.model) < _LEAST_STRESS:
        return [], []
    shears = [row.apply(lambda stress: stress[3:]) for row in rows]
    shears = [row for row in shears if rms(row.model) > _LEAST_STRESS and row.fit > _SURE]
    findings, explained = [], []
    for factor, text in ((2.0, "doubled"), (0.5, "halved")):
        found = [row for row in shears if is_near(row.ratio / others.ratio, factor, _EXACTLY)]
        # of a few structures, the model's own error may be a factor of two
        if len(found) < _FEW or 2 * len(shears) < len(rows):
            continue
        message = (
            f"stress of {part.name} has shears {pooled(found).ratio:.2f} times the model's in {len(found)} of "
            f"{len(rows)} structures, other components {others.ratio:.2f} times: as if shears were {text}"
        )
        remedy = "Write the components of the stress itself, without the factors of Voigt's notation for strains."
        findings.append(part.finding("fatal", "order", message, remedy, found))
        explained += found
    return findings, explained


def _pressures(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """A pressure that is added to all stresses, or to some of them."""
    label, model = (np.mean([getattr(row, name)[:3] for row in rows], axis=1) for name in ("label", "model"))
    offset = float(np.median(label - model))
    spread = float(np.median(np.abs(label - model - offset)))
    findings = []
    if len(rows) >= _FEW and abs(offset) > max(_OFFSET, 3.0 * spread):
        message = (
            f"stress of {part.name} is the model's and a pressure of {-offset / units.GPa:.1f} GPa more (n = "
            f"{len(rows)}, the model's own is about {np.median(np.abs(model)) / units.GPa:.1f})"
        )
        remedy = "Look for a kinetic or external pressure in the labels, or for an unconverged basis."
        findings.append(part.finding("warning", "pressure", message, remedy, rows))
    least = np.maximum(max(14.826 * spread, _OFFSET / 2.0), 0.75 * np.maximum(np.abs(label), np.abs(model)))
    out = [row for row, far in zip(rows, np.abs(label - model - offset) > least, strict=True) if far]
    if len(rows) >= 2 * _FEW and out and 2 * len(out) < len(rows):
        message = (
            f"stress of {part.name} has another pressure than the others beside the model in {len(out)} structures"
        )
        remedy = "Look for an external pressure, another basis or another level of theory in these calculations."
        findings.append(part.finding("warning", "outlier", message, remedy, out))
    return findings


def _misplaced(rows: Sequence[Row], find: Callable[[Sequence[Row]], list[Finding]]) -> list[Finding]:
    """Labels in the wrong place, among those that do not follow the model and among all that might follow better."""
    found: list[list[Finding]] = [[]]
    for least in (CORRELATED, _DOUBTED):
        if doubted := [row for row in rows if row.fit < least]:
            found.append(find(doubted))
    return max(found, key=lambda findings: sum(len(finding.frames) for finding in findings))


def _flat(stress: np.ndarray) -> np.ndarray:
    """Six components less the pressure."""
    return stress - np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0]) * np.mean(stress[:3])


def _disagreement(
    part: Compared, quantity: Quantity, rows: Sequence[Row], least: float, dependent: float
) -> list[Finding]:
    """Labels that do not follow the model, and nobody knows why: all of them, or else the structures that do not."""
    large = quantity.large
    apart = [
        row for row in rows if row.fit < 0.5 * CORRELATED and (rms(row.model) > 3.0 * large or min(row.sizes) > large)
    ]
    # where the model is right elsewhere, less is proof enough, and a few large numbers are not those of all
    suspects, deviations = (apart, 1.0) if knows_most(rows) else (rows, DEVIATIONS)
    return (
        [_unexplained(part, quantity, suspects, len(rows))] if _is_apart(suspects, least, dependent, deviations) else []
    )


def _is_apart(rows: Sequence[Row], least: float, dependent: float, deviations: float) -> bool:
    whole = pooled(rows)
    label, model = whole.sizes
    if len(whole.label) < _LEAST_VALUES or max(label, model) <= least:
        return False
    if label <= max(least, 0.1 * model):
        # next to nothing, where the model's own error cannot be as large as its prediction
        return len(rows) >= _FEW and model > 20.0 * least and whole.fit < CORRELATED
    return whole.disagrees(len(whole.label) / dependent, deviations)


def _unexplained(part: Compared, quantity: Quantity, rows: Sequence[Row], total: int) -> Finding:
    whole = pooled(rows)
    share = "" if len(rows) == total else f" in {len(rows)} of {total} structures"
    slope = float(whole.label @ whole.model) / float(whole.model @ whole.model) if np.any(whole.model) else 0.0
    message = (
        f"{quantity.name} of {part.name} and the model's disagree{share} (correlation {whole.fit:.2f}, slope "
        f"{slope:.2f}, n = {len(rows)}): no unit, sign, order of atoms, axes or structures explains it"
    )
    worst = sorted(rows, key=lambda row: row.fit)
    return part.finding("warning", "agreement", message, UNKNOWN_STRUCTURES, worst)
