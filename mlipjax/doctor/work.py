"""Consistency of energies with forces and stresses: what energies differ by is the work done on the way.

From one structure to another along a straight path, to the third order in the step (trapezoidal rule),
``E_j - E_i = -(F_i + F_j) / 2 . dx + (V_i s_i + V_j s_j) / 2 : de``. A model obeys this up to the error of the rule,
because its forces are gradients; labels of one calculation do so too, whatever level of theory they are of. A factor on
forces and stresses alone, or on energies alone, looks like a model that is too soft everywhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mlipjax.doctor.compared import Compared, cosine
from mlipjax.doctor.findings import Finding
from mlipjax.system import Labels, System
from mlipjax.train import StructurePrediction

# Each structure is compared with so many that follow it in the file: of one material they resemble each other most.
_AHEAD = 4
_LEAST_PAIRS = 8
# eV: smaller work is rounding. A pair says something if the rule holds for the model's own numbers within this part.
_LEAST_WORK, _RULE = 0.01, 0.3
# Labels are at fault where their factor differs by this much, and by so many standard errors, from the model's.
_FACTOR, _ERRORS = 0.08, 5.0
_FITS = 0.9


def check_work(part: Compared) -> list[Finding]:
    """Find energies that change by another amount than the work of the forces and stresses beside them."""
    pairs = list(_pairs(part))
    if len(pairs) < _LEAST_PAIRS:
        return []
    energy, work = np.array(pairs).T
    size = float(work @ work)
    if cosine(energy, work) < _FITS:
        return []
    factor = float(energy @ work) / size
    # a structure is in several pairs, so that these are not independent of each other
    error = float(np.sqrt(_AHEAD * np.sum(((energy - factor * work) * work) ** 2))) / size
    if abs(factor - 1.0) < max(_FACTOR, _ERRORS * error):
        return []
    message = (
        f"energies of {part.name} change by {factor:.2f} ± {error:.2f} times the work of the forces and stresses "
        f"beside them, where 1 is expected of one calculation (n = {len(pairs)} pairs of structures)"
    )
    remedy = (
        "Check that all three are in one unit and of one calculation; training would have to choose between them. "
        "Energies extrapolated to zero smearing belong to no forces: take free energies."
    )
    return [Finding("warning", "work", message, remedy)]


def _pairs(part: Compared) -> Iterator[tuple[float, float]]:
    """Energy difference and work (eV) of the labels of pairs of structures that the trapezoidal rule holds for."""
    rows = [
        (system, label, found)
        for _, (system, label, _), found in part
        if label.energy_weight > 0.0 and label.forces_weight > 0.0
    ]
    for place, (system, label, found) in enumerate(rows):
        for other, there, found_there in rows[place + 1 : place + 1 + _AHEAD]:
            path = _path(system, other)
            if path is None or (path.is_strained and not (label.stress_weight > 0.0 and there.stress_weight > 0.0)):
                continue
            work = path.work(found, found_there)
            # the error of the rule is nearly the same for labels and model
            beyond = found_there.energy - found.energy - work
            if abs(beyond) < _RULE * abs(work) and abs(work) > _LEAST_WORK:
                yield float(there.energy) - float(label.energy) - beyond, path.work(label, there)


class Path(NamedTuple):
    """From one structure to another.

    Attributes:
        moves: Å, displacements in the cell of the first and of the second structure, without what the strain does.
        strains: displacement gradient over the first and over the second cell, times their volume in Å^3.
        is_strained: whether the cell changes.
    """

    moves: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]
    strains: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]
    is_strained: bool

    def work(self, *ends: Labels | StructurePrediction) -> float:
        """Work in eV by the forces and stresses of both ends."""
        total = 0.0
        for move, strain, end in zip(self.moves, self.strains, ends, strict=True):
            total -= 0.5 * float(np.sum(np.asarray(end.forces, np.float64) * move))
            if self.is_strained:
                total += 0.5 * float(np.sum(np.asarray(end.stress, np.float64) * strain))
        return total


def _path(one: System, other: System) -> Path | None:
    """The straight path between two structures of the same atoms in the same order; ``None`` for others."""
    if one.pbc != other.pbc or not np.array_equal(one.atomic_numbers, other.atomic_numbers):
        return None
    flat = min(one.volume, other.volume) == 0.0
    first, second = (np.eye(3) if flat else np.asarray(system.cell, np.float64) for system in (one, other))
    inverses = np.linalg.inv(first), np.linalg.inv(second)
    fractions = (
        np.asarray(other.positions, np.float64) @ inverses[1] - np.asarray(one.positions, np.float64) @ inverses[0]
    )
    fractions -= np.where(np.asarray(one.pbc) & (not flat), np.round(fractions), 0.0)
    strains = tuple(inverse @ (second - first) for inverse in inverses)
    return Path(
        (fractions @ first, fractions @ second),
        (one.volume * strains[0], other.volume * strains[1]),
        is_strained=bool(np.abs(strains[0]).max() > 1e-9),
    )
