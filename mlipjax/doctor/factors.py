"""Labels of another unit or sign: structure by structure, so that a few wrong ones do not hide among right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from ase import units

from mlipjax.doctor.agreement import CORRELATED, NEAR, PLAUSIBLE, Row, cosine, is_near, pooled, ratio, rms
from mlipjax.doctor.findings import Finding
from mlipjax.system import System

_KCAL, _KJ = units.kcal / units.mol, units.kJ / units.mol
# What one eV/Å (eV, eV/Å^3) amounts to in other units.
FORCES = {
    "kcal/mol/Å": 1.0 / _KCAL,
    "kJ/mol/Å": 1.0 / _KJ,
    "kJ/mol/nm": units.nm / _KJ,
    "Hartree/Bohr": units.Bohr / units.Hartree,
    "Hartree/Å": 1.0 / units.Hartree,
    "Rydberg/Bohr": units.Bohr / units.Rydberg,
    "meV/Å": 1e3,
}
ENERGIES = {
    "kcal/mol": 1.0 / _KCAL,
    "kJ/mol": 1.0 / _KJ,
    "Hartree": 1.0 / units.Hartree,
    "Rydberg": 1.0 / units.Rydberg,
    "meV": 1e3,
}
STRESSES = {"GPa": 1.0 / units.GPa, "kBar": 10.0 / units.GPa, "bar": 1e4 / units.GPa, "Pa": 1e9 / units.GPa}
# A single structure is judged if it follows the model that closely.
_CLOSELY = 0.9
_LEAST_ALONE = 20
# ... and that closely if its factor is that of no unit.
_SURELY = 0.98


class Scale(NamedTuple):
    """What labels are compared with besides the model's numbers as they are.

    Attributes:
        name: of the unit.
        factor: label over prediction, of a structure.
    """

    name: str
    factor: Callable[[System], float]


class Kind(NamedTuple):
    """What labels of some structures amount to: the prediction times a factor.

    Attributes:
        name: unit; "" for the right one, ``None`` for none that is known.
        sign: +1, or -1 for the other sign.
    """

    name: str | None
    sign: int


RIGHT = Kind("", 1)


def scales(factors: dict[str, float]) -> list[Scale]:
    """Factors that are the same for every structure."""
    return [Scale(name, lambda _, factor=factor: factor) for name, factor in factors.items()]


def virials() -> list[Scale]:
    """Stresses multiplied by the volume."""
    return [Scale("the model's virial (-stress · volume)", lambda system: -volume(system))]


def volume(system: System) -> float:
    """Volume of the cell in Å^3; 0 without one."""
    return abs(float(np.linalg.det(np.asarray(system.cell, np.float64))))


def find_factors(
    what: str,
    name: str,
    rows: Sequence[Row],
    others: Sequence[Scale],
    *,
    unit: str,
    least_values: int,
    large: float,
    correlated: float = CORRELATED,
) -> tuple[list[Finding], list[Row]]:
    """Find labels that follow the model by a factor it should not have.

    Structures with few values are judged together. If most are of one kind, that kind is judged by correlation alone;
    a few that differ from the others have to follow the model closely, by numbers too large to be its error.

    Args:
        what: "forces", "stress" or "energies".
        name: of the data set.
        rows: labels and predictions.
        others: units that labels may be in.
        unit: the right one, in words.
        least_values: fewer say nothing.
        large: label (and prediction) beyond which a structure alone is judged, rms.
        correlated: least correlation.

    Returns:
        Findings, and the rows that are not explained by them.
    """
    groups = [[row] for row in rows if len(row.label) >= least_values]
    small = [row for row in rows if len(row.label) < least_values]
    if sum(len(row.label) for row in small) >= least_values:
        groups.append(small)
    following = [group for group in groups if abs(cosine(*pooled(group))) >= correlated]
    kinds = _kinds(following, others)
    by_kind: dict[Kind, list[Row]] = {}
    for group, kind in zip(following, kinds, strict=True):
        by_kind.setdefault(kind, []).extend(group)
    findings, explained = [], set()
    knows = knows_most(rows)
    for kind, members in by_kind.items():
        if kind == RIGHT:
            continue
        whole = 2 * len(members) > len(rows)
        certain = members if whole else [row for row in members if knows and _alone(row, kind, large, least_values)]
        enough = whole or sum(len(row.label) for row in certain) >= _LEAST_ALONE
        if certain and enough:
            findings.append(_finding(what, name, kind, certain, len(rows), unit))
            explained |= {row.index for row in certain}
    return findings, [row for row in rows if row.index not in explained]


def knows_most(rows: Sequence[Row]) -> bool:
    """Whether the model follows most labels closely, so that a few that it does not follow are suspect."""
    close = sum(abs(cosine(row.label, row.model)) >= _CLOSELY for row in rows)
    return 2 * close >= len(rows)


def _alone(row: Row, kind: Kind, large: float, least_values: int) -> bool:
    """Whether a structure can be judged although most others are of another kind."""
    if len(row.label) < least_values or abs(cosine(row.label, row.model)) < _CLOSELY:
        return False
    if kind.name is None and abs(cosine(row.label, row.model)) < _SURELY:
        return False
    if kind.name == "":
        return min(rms(row.label), rms(row.model)) > large
    return max(rms(row.label), rms(row.model)) > 3.0 * large


def _kinds(groups: Sequence[Sequence[Row]], others: Sequence[Scale]) -> list[Kind]:
    """The kind of each group: of those that fit, the one that most groups have in common."""
    options = [_options(group, others) for group in groups]
    found: list[Kind | None] = [None] * len(groups)
    while any(kind is None for kind in found):
        misfits: dict[Kind, list[float]] = {}
        for kind, fitting in zip(found, options, strict=True):
            if kind is None:
                for name, misfit in fitting.items():
                    misfits.setdefault(name, []).append(misfit)
        common = min(misfits, key=lambda kind: (-len(misfits[kind]), float(np.mean(misfits[kind]))))
        found = [common if kind is None and common in fit else kind for kind, fit in zip(found, options, strict=True)]
    return [kind for kind in found if kind is not None]


def _options(group: Sequence[Row], others: Sequence[Scale]) -> dict[Kind, float]:
    """Kinds that fit, with the logarithm of what is left over."""
    slope = ratio(*pooled(group))
    if is_near(abs(slope), 1.0):
        return {Kind("", 1 if slope > 0.0 else -1): abs(math.log(abs(slope)))}
    found: dict[Kind, float] = {}
    for scale in others:
        factors = np.array([scale.factor(row.system) for row in group])
        if not np.all(np.abs(factors) > 0.0):
            continue
        scaled = [row._replace(model=factor * row.model) for row, factor in zip(group, factors, strict=True)]
        left = ratio(*pooled(scaled))
        if is_near(abs(left), 1.0):
            found[Kind(scale.name, 1 if left > 0.0 else -1)] = abs(math.log(abs(left)))
    if not found:
        known = 1.0 / PLAUSIBLE < abs(slope) < PLAUSIBLE
        found[Kind("" if known else None, 1 if slope > 0.0 else -1)] = abs(math.log(abs(slope)))
    return found


def _finding(what: str, name: str, kind: Kind, rows: Sequence[Row], total: int, unit: str) -> Finding:
    labels, models = pooled(rows)
    share = "" if len(rows) == total else f" in {len(rows)} of {total} structures"
    text = (
        f"{what} of {name} are {ratio(labels, models):.4g} times the model's{share} (correlation "
        f"{cosine(labels, models):.2f}, n = {len(rows)})"
    )
    frames = tuple((name, row.index) for row in rows)
    other = "" if kind.sign > 0 else ", of the other sign"
    if kind.name:
        return Finding("fatal", "units", f"{text}, like {kind.name}{other}", f"Convert them to {unit}.", frames)
    if kind.sign < 0:
        remedy = f"Change their sign: {unit}" + ("; forces are minus the gradient." if what == "forces" else ".")
        return Finding("fatal", "sign", f"{text}: they have the other sign", remedy, frames)
    remedy = f"Check that they are in {unit}; if so, this model is far off for this material."
    return Finding("warning", "units", f"{text}, and no common unit explains it", remedy, frames)


__all__ = [
    "ENERGIES",
    "FORCES",
    "NEAR",
    "RIGHT",
    "STRESSES",
    "Kind",
    "Scale",
    "find_factors",
    "knows_most",
    "scales",
    "virials",
]
