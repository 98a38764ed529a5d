"""Labels that were never computed: zeros, constants, and numbers copied from other structures.

A model is equivariant, so what is zero by symmetry is zero in its predictions too: an exact zero where the prediction
is not is a placeholder, however bad the model is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.doctor.compared import Compared, Row, grouped, pooled, rms, without
from mlipjax.doctor.findings import Finding


class Vanishing(NamedTuple):
    """Forces or stresses where they were not computed.

    Attributes:
        unit: in messages.
        least: predictions below may be the model's error about something that vanishes in print.
        remedy: for labels of whole structures.
        component_remedy: for some components.
    """

    unit: str
    least: float
    remedy: str
    component_remedy: str


_KINDS = {
    "forces": Vanishing(
        "eV/Å",
        0.1,
        "Read the calculations again; leave forces that were not computed out of the file.",
        "Write raw forces: ASE zeroes those of fixed atoms (get_forces(apply_constraint=False)).",
    ),
    "stress": Vanishing(
        "eV/Å^3",
        2e-3,
        "Leave a stress that was not computed out of the file, or compute it.",
        "Write all six components.",
    ),
}
_FIXED_SHARE = 0.1
# eV/atom: of a few energies that agree, in the digits of a file, by chance or because the structures do.
_SAME_ENERGY = 4e-3


def find_placeholders(part: Compared, what: str, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Find placeholders among the forces or stresses of a data set.

    Args:
        part: data set.
        what: "forces" or "stress".
        rows: labels and predictions of its structures.

    Returns:
        Findings, and the rows that are left: without those at fault, and without components at fault.
    """
    findings: list[Finding] = []
    kind = _KINDS[what]
    constant = [row for row in rows if len(row.label) > 3 and np.all(row.label == row.label[0])]
    constant = [row for row in constant if rms(row.model - np.mean(row.model)) > kind.least]
    for value, same in grouped(constant, lambda row: float(row.label[0]) + 0.0).items():
        message = (
            f"{what} of {part.name} are {value:g} in all components of {len(same)} of {len(rows)} structures, where "
            f"the model has {rms(pooled(same).model):.3g} {kind.unit} (rms): a placeholder"
        )
        findings.append(part.finding("fatal", "placeholder", message, kind.remedy, same))
    left = without(rows, constant)
    if copied := _copied(left, kind.least):
        message = (
            f"{what} of {len(copied)} structures of {part.name} repeat those of another structure to the last digit, "
            "where the model has different ones"
        )
        findings.append(part.finding("fatal", "placeholder", message, kind.remedy, copied))
    found, left = _zero_components(part, what, without(left, copied))
    return findings + found, left


def _zero_components(part: Compared, what: str, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Components that are zero to the last digit in labels that are not: fixed atoms, or shears left out."""
    kind, affected, kept, share, worst = _KINDS[what], [], [], 0.0, 0.0
    for row in rows:
        known = row.label != 0.0
        wrong = np.abs(row.model[~known])[np.abs(row.model[~known]) > 2.0 * kind.least]
        if len(wrong) >= 2:
            affected.append(row)
            share, worst = max(share, float(np.mean(~known))), max(worst, float(wrong.max()))
            row = row._replace(label=row.label[known], model=row.model[known])
        kept.append(row)
    if not affected:
        return [], kept
    message = (
        f"{what} of {part.name} have components that are exactly zero in {len(affected)} of {len(rows)} structures (up "
        f"to {100 * share:.0f} % of them), where the model has up to {worst:.3g} {kind.unit}: not computed, or "
        "written with too few digits"
    )
    severity = "fatal" if share > _FIXED_SHARE else "warning"
    return [part.finding(severity, "placeholder", message, kind.component_remedy, affected)], kept


def find_constant_energies(part: Compared, rows: Sequence[Row]) -> list[Finding]:
    """Find one energy of many structures that the model tells apart."""
    found, shown = [], 0.0
    for value, same in grouped(rows, lambda row: row.label.item()).items():
        spread = float(np.ptp([row.model.item() / row.system.n_atoms for row in same]))
        if len(same) >= max(3, 0.1 * len(rows)) and spread > _SAME_ENERGY:
            found, shown = found + same, value
    if not found:
        return []
    message = (
        f"energies of {part.name} are {shown:g} eV for {len(found)} of {len(rows)} structures, to which the model "
        "gives different ones: a placeholder, or too few digits"
    )
    remedy = "Read the calculations again; leave energies that were not computed out of the file."
    return [part.finding("fatal", "placeholder", message, remedy, found)]


def _copied(rows: Sequence[Row], least: float) -> list[Row]:
    """Rows whose label is that of an earlier or later row, of another prediction; it is not zero, as any may be."""
    return [
        row
        for same in grouped(rows, lambda row: row.label.tobytes()).values()
        for row in same
        if rms(row.label) > 0.0 and any(rms(row.model - other.model) > least for other in same)
    ]
