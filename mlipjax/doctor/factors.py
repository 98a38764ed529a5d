"""Labels of another unit or sign: structure by structure, so that a few wrong ones do not hide among right ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from ase import units

from mlipjax.doctor.compared import CLOSELY, CORRELATED, PLAUSIBLE, Compared, Row, is_near, knows_most, pooled
from mlipjax.doctor.findings import Finding
from mlipjax.system import System

Scale = float | Callable[[System], float]
"""Label over prediction; of a structure, if it is not the same for all."""


class Quantity(NamedTuple):
    """A kind of labels, and what it amounts to where it is not in the right unit.

    Attributes:
        name: in messages.
        unit: the right one, in words.
        scales: what one of it amounts to in other units.
        least_values: numbers of a structure (or of several together) that say something.
        large: beyond it (rms) the label and prediction of a structure are judged alone.
        correlated: least correlation.
    """

    name: str
    unit: str
    scales: Mapping[str, Scale]
    least_values: int
    large: float
    correlated: float = CORRELATED

    def cure(self, other: str | None, sign: int) -> str:
        """The option that reads labels in another unit, of those known, or of another sign."""
        if other == VIRIAL:
            return ' (virial_key="stress" reads them so, if that is their name)' if sign > 0 else ""
        if other is not None and "per atom" in other:
            return ""
        kind = "energy" if self.name == "energies" else self.name
        return f' (units="{kind}={"-" if sign < 0 else ""}{other or self.unit.split(" per ")[0].split(",")[0]}" does)'


VIRIAL = "the model's virial (-stress · volume)"
_KCAL, _KJ, _GPA = units.kcal / units.mol, units.kJ / units.mol, 1.0 / units.GPa
ENERGY = Quantity(
    "energies",
    "eV per structure",
    {
        "kcal/mol": 1.0 / _KCAL,
        "kJ/mol": 1.0 / _KJ,
        "Hartree": 1.0 / units.Hartree,
        "Rydberg": 1.0 / units.Rydberg,
        "meV": 1e3,
    },
    least_values=6,
    large=math.inf,
    correlated=0.9,
)
FORCES = Quantity(
    "forces",
    "eV/Å",
    {
        "kcal/mol/Å": 1.0 / _KCAL,
        "kJ/mol/Å": 1.0 / _KJ,
        "kJ/mol/nm": units.nm / _KJ,
        "Hartree/Bohr": units.Bohr / units.Hartree,
        "Hartree/Å": 1.0 / units.Hartree,
        "Rydberg/Bohr": units.Bohr / units.Rydberg,
        "meV/Å": 1e3,
    },
    least_values=12,
    large=0.3,
)
STRESS = Quantity(
    "stress",
    "eV/Å^3, tension positive",
    {
        VIRIAL: lambda system: -system.volume,
        "GPa": _GPA,
        "kBar": 10.0 * _GPA,
        "bar": 1e4 * _GPA,
        "Pa": 1e9 * _GPA,
        "Hartree/Bohr^3": units.Bohr**3 / units.Hartree,
        "Rydberg/Bohr^3": units.Bohr**3 / units.Rydberg,
    },
    least_values=6,
    large=0.01,
)
# A few structures that differ from the others are judged if they hold so many numbers, and follow the model so closely.
_LEAST_ALONE = 20
# ... and so closely if their factor is that of no unit.
_SURELY = 0.98
# No model that follows labels closely is wrong by this factor.
_FAR = 10.0


class Kind(NamedTuple):
    """Unit and sign of some labels: the prediction times a factor.

    Attributes:
        name: unit; "" for the right one, ``None`` for none that is known.
        sign: +1, or -1 for the other sign.
    """

    name: str | None
    sign: int


def find_factors(part: Compared, quantity: Quantity, rows: Sequence[Row]) -> tuple[list[Finding], list[Row]]:
    """Find labels that follow the model by a factor it should not have.

    Structures with few values are judged together. If most are of one kind, that kind is judged by correlation alone;
    a few that differ from the others have to follow the model closely, by numbers too large to be its error.

    Args:
        part: data set.
        quantity: kind of labels.
        rows: labels and predictions of its structures.

    Returns:
        Findings, and the rows that they explain.
    """
    groups = [[row] for row in rows if len(row.label) >= quantity.least_values]
    small = [row for row in rows if len(row.label) < quantity.least_values]
    if sum(len(row.label) for row in small) >= quantity.least_values:
        groups.append(small)
    following = [group for group in groups if abs(pooled(group).fit) >= quantity.correlated]
    by_kind: dict[Kind, list[Row]] = {}
    for group, kind in zip(following, _kinds(following, quantity.scales), strict=True):
        by_kind.setdefault(kind, []).extend(group)
    by_kind.pop(Kind("", 1), None)
    findings, explained, knows = [], [], knows_most(rows)
    for kind, members in by_kind.items():
        whole = 2 * len(members) > len(rows)
        certain = members if whole else [row for row in members if knows and _is_certain(row, kind, quantity)]
        least = _LEAST_ALONE
        if kind.name is None and not whole:  # the model's own error has any factor, a unit has one
            certain, least = _alike(certain), 2 * _LEAST_ALONE
        if certain and (whole or sum(_weight(row.label) for row in certain) >= least):
            findings.append(_finding(part, quantity, kind, certain, len(rows)))
            explained += certain
    return findings, explained


def _weight(label: np.ndarray) -> float:
    """Numbers that a label is worth: all of those that scatter alike, three if one outweighs others."""
    squares = np.square(label)
    return min(float(len(label)), 3.0 * float(squares.sum()) ** 2 / max(float(squares @ squares), 1e-300))


def _alike(rows: Sequence[Row]) -> list[Row]:
    """The rows whose factor is about that of most."""
    common = float(np.median([abs(row.ratio) for row in rows])) if rows else 1.0
    return [row for row in rows if is_near(abs(row.ratio), common)]


def _is_certain(row: Row, kind: Kind, quantity: Quantity) -> bool:
    """Return whether a structure can be judged although most others are of another kind."""
    least = _SURELY if kind.name is None else CLOSELY
    if len(row.label) < quantity.least_values or abs(row.fit) < least:
        return False
    return min(row.sizes) > quantity.large if kind.name == "" else max(row.sizes) > 3.0 * quantity.large


def _kinds(groups: Sequence[Sequence[Row]], scales: Mapping[str, Scale]) -> list[Kind]:
    """The kind of each group: of those that fit, the one that most groups have in common."""
    options = [_options(group, scales) for group in groups]
    found: dict[int, Kind] = {}
    while len(found) < len(groups):
        misfits: dict[Kind, list[float]] = {}
        left = {place: fitting for place, fitting in enumerate(options) if place not in found}
        for fitting in left.values():
            for kind, misfit in fitting.items():
                misfits.setdefault(kind, []).append(misfit)
        common = min(misfits, key=lambda kind: (-len(misfits[kind]), float(np.mean(misfits[kind]))))
        found |= {place: common for place, fitting in left.items() if common in fitting}
    return [found[place] for place in range(len(groups))]


def _options(group: Sequence[Row], scales: Mapping[str, Scale]) -> dict[Kind, float]:
    """Kinds that fit, with the logarithm of what is left over."""
    slope = pooled(group).ratio
    if is_near(abs(slope), 1.0):
        return {_kind("", slope): abs(math.log(abs(slope)))}
    found: dict[Kind, float] = {}
    for name, scale in scales.items():
        factors = [scale(row.system) if callable(scale) else scale for row in group]
        if all(factors):
            scaled = [row._replace(model=factor * row.model) for row, factor in zip(group, factors, strict=True)]
            left = pooled(scaled).ratio
            if is_near(abs(left), 1.0):
                found[_kind(name, left)] = abs(math.log(abs(left)))
    known = 1.0 / PLAUSIBLE < abs(slope) < PLAUSIBLE
    return found or {_kind("" if known else None, slope): abs(math.log(abs(slope)))}


def _kind(name: str | None, slope: float) -> Kind:
    return Kind(name, 1 if slope > 0.0 else -1)


def _finding(part: Compared, quantity: Quantity, kind: Kind, rows: Sequence[Row], total: int) -> Finding:
    whole = pooled(rows)
    share = "" if len(rows) == total else f" in {len(rows)} of {total} structures"
    text = (
        f"{quantity.name} of {part.name} are {whole.ratio:.4g} times the model's{share} (correlation "
        f"{whole.fit:.2f}, n = {len(rows)})"
    )
    unit, cure = quantity.unit, part.option(quantity.cure(kind.name, kind.sign)) if len(rows) == total else ""
    if kind.name:
        other = "" if kind.sign > 0 else ", of the other sign"
        remedy = f"Convert them to {unit}{cure}."
        return part.finding("fatal", "units", f"{text}, like {kind.name}{other}", remedy, rows)
    if kind.sign < 0:
        remedy = f"Change their sign{cure}: {unit}" + (
            "; forces are minus the gradient." if quantity is FORCES else "."
        )
        return part.finding("fatal", "sign", f"{text}: they have the other sign", remedy, rows)
    remedy = f"Check that they are in {unit}; if so, this model is far off for this material."
    far = whole.fit >= CLOSELY and not is_near(whole.ratio, 1.0, _FAR)
    return part.finding("fatal" if far else "warning", "units", f"{text}, and no common unit explains it", remedy, rows)
