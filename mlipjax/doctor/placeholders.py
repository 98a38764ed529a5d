"""Labels that were never computed: zeros, constants, and numbers copied from other structures.

A model is equivariant, so what is zero by symmetry is zero in its predictions too: an exact zero where the prediction
is not is a placeholder, however bad the model is.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence

import numpy as np

from mlipjax.doctor.agreement import Row, rms
from mlipjax.doctor.findings import Finding

# Predictions below the least size (eV/Å, eV/Å^3) may be the model's error about something that vanishes in print.
_LEAST = {"forces": 0.1, "stress": 2e-3}
_REMEDY = {
    "forces": "Read the calculations again; leave forces that were not computed out of the file.",
    "stress": "Leave a stress that was not computed out of the file, or compute it.",
}
_FIXED_SHARE = 0.1


def find_placeholders(what: str, name: str, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Find placeholders among forces or stresses.

    Args:
        what: "forces" or "stress".
        name: of the data set.
        rows: labels and predictions of whole structures.

    Returns:
        Findings, and the rows that are left: without those at fault, and without components at fault.
    """
    findings: list[Finding] = []
    least = _LEAST[what]
    constant = [row for row in rows if _is_constant(row.label) and rms(row.model - np.mean(row.model)) > least]
    for value, same in _by_value(constant).items():
        size = rms(np.concatenate([row.model for row in same]))
        message = (
            f"{what} of {name} are {value:g} in all components of {len(same)} of {len(rows)} structures, where the "
            f"model has {size:.3g} {_UNIT[what]} (rms): a placeholder"
        )
        findings.append(Finding("fatal", "placeholder", message, _REMEDY[what], _frames(name, same)))
    left = _without(rows, constant)
    copied = _copied(left, least)
    if copied:
        message = (
            f"{what} of {len(copied)} structures of {name} repeat those of another structure to the last digit, where "
            "the model has different ones"
        )
        findings.append(Finding("fatal", "placeholder", message, _REMEDY[what], _frames(name, copied)))
        left = _without(left, copied)
    found, left = _zero_components(what, name, left)
    return [*findings, *found], left


_UNIT = {"forces": "eV/Å", "stress": "eV/Å^3"}


def _zero_components(what: str, name: str, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Components that are zero to the last digit in labels that are not: fixed atoms, or shears left out."""
    least, affected, kept, share, worst = 2.0 * _LEAST[what], [], [], [], 0.0
    for row in rows:
        zero = (row.label == 0.0) & (np.abs(row.model) > least)
        if np.sum(zero) >= 2:
            affected.append(row)
            share.append(float(np.mean(row.label == 0.0)))
            worst = max(worst, float(np.max(np.abs(row.model[zero]))))
            row = row._replace(label=row.label[row.label != 0.0], model=row.model[row.label != 0.0])
        kept.append(row)
    if not affected:
        return [], kept
    message = (
        f"{what} of {name} have components that are exactly zero in {len(affected)} of {len(rows)} structures (up to "
        f"{100 * max(share):.0f} % of them), where the model has up to {worst:.3g} {_UNIT[what]}: not computed, or "
        "written with too few digits"
    )
    remedy = (
        "Write raw forces: ASE zeroes those of fixed atoms (get_forces(apply_constraint=False))."
        if what == "forces"
        else "Write all six components."
    )
    severity = "fatal" if max(share) > _FIXED_SHARE else "warning"
    return [Finding(severity, "placeholder", message, remedy, _frames(name, affected))], kept


def _is_constant(label: np.ndarray) -> bool:
    return len(label) > 3 and bool(np.all(label == label[0]))


def _copied(rows: Sequence[Row], least: float) -> list[Row]:
    """Rows whose label is that of an earlier or later row, of another prediction."""
    groups: dict[bytes, list[Row]] = collections.defaultdict(list)
    for row in rows:
        groups[row.label.tobytes()].append(row)
    copied = []
    for same in groups.values():
        differing = [row for row in same if any(rms(row.model - other.model) > least for other in same)]
        # a label that vanishes is the same everywhere
        copied += [row for row in differing if rms(row.label) > 0.0]
    return copied


def _by_value(rows: Sequence[Row]) -> dict[float, list[Row]]:
    groups: dict[float, list[Row]] = collections.defaultdict(list)
    for row in rows:
        groups[float(row.label[0]) + 0.0].append(row)
    return groups


def _without(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    gone = {row.index for row in others}
    return [row for row in rows if row.index not in gone]


def _frames(name: str, rows: Sequence[Row]) -> tuple[tuple[str, int], ...]:
    return tuple((name, row.index) for row in rows)
