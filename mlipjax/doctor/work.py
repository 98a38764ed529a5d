"""Whether energies belong to forces and stresses: what energies differ by is the work done on the way.

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

from mlipjax.data import Example
from mlipjax.doctor.agreement import cosine
from mlipjax.doctor.compared import Compared
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


class Work(NamedTuple):
    """Differences of energy and work, in eV, of one pair of structures.

    Attributes:
        energy: of the labels.
        work: by forces and stresses of the labels.
        rule: what the model's energies differ by beyond the work of its own forces and stresses.
    """

    energy: float
    work: float
    rule: float


def check_work(part: Compared) -> list[Finding]:
    """Find energies that change by another amount than the work of the forces and stresses beside them."""
    pairs = list(_pairs(part))
    if len(pairs) < _LEAST_PAIRS:
        return []
    # the error of the rule is nearly the same for labels and model
    energy = np.array([pair.energy - pair.rule for pair in pairs])
    work = np.array([pair.work for pair in pairs])
    size = float(work @ work)
    if size == 0.0 or cosine(energy, work) < _FITS:
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


def _pairs(part: Compared) -> Iterator[Work]:
    """Pairs of structures of the same atoms, near enough for the trapezoidal rule."""
    rows = [(example, found) for _, example, found in part if _is_complete(example)]
    for first, (one, found) in enumerate(rows):
        for other, there in rows[first + 1 : first + 1 + _AHEAD]:
            step = _step(one[0], other[0])
            if step is None or (step.strained and not all(label.stress_weight > 0.0 for label in (one[1], other[1]))):
                continue
            rise = there.energy - found.energy
            work = _work(step, found, there)
            if abs(rise - work) < _RULE * abs(work) and abs(work) > _LEAST_WORK:
                gain = float(other[1].energy) - float(one[1].energy)
                yield Work(gain, _work(step, one[1], other[1]), rise - work)


def _is_complete(example: Example) -> bool:
    return example[1].energy_weight > 0.0 and example[1].forces_weight > 0.0


class Step(NamedTuple):
    """From one structure to another.

    Attributes:
        moves: Å, displacements in the cell of the first and of the second structure, without what the strain does.
        strains: displacement gradient over the first and over the second cell.
        volumes: Å^3.
        strained: whether the cell changes.
    """

    moves: tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]
    strains: tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]
    volumes: tuple[float, float]
    strained: bool


def _step(one: System, other: System) -> Step | None:
    """The straight path between two structures of the same atoms in the same order; ``None`` for others."""
    if one.pbc != other.pbc or not np.array_equal(one.atomic_numbers, other.atomic_numbers):
        return None
    cells = [np.asarray(system.cell, np.float64) for system in (one, other)]
    places = [np.asarray(system.positions, np.float64) for system in (one, other)]
    volumes = [abs(float(np.linalg.det(cell))) for cell in cells]
    if min(volumes) == 0.0:
        move = places[1] - places[0]
        return Step((move, move), (np.zeros((3, 3)), np.zeros((3, 3))), (0.0, 0.0), strained=False)
    inverses = [np.linalg.inv(cell) for cell in cells]
    fractions = places[1] @ inverses[1] - places[0] @ inverses[0]
    fractions -= np.where(np.asarray(one.pbc), np.round(fractions), 0.0)
    change = cells[1] - cells[0]
    return Step(
        (fractions @ cells[0], fractions @ cells[1]),
        (inverses[0] @ change, inverses[1] @ change),
        (volumes[0], volumes[1]),
        strained=bool(np.abs(inverses[0] @ change).max() > 1e-9),
    )


def _work(step: Step, *ends: Labels | StructurePrediction) -> float:
    """Work in eV from forces and stresses of both ends."""
    total = 0.0
    for move, strain, volume, end in zip(step.moves, step.strains, step.volumes, ends, strict=True):
        total -= 0.5 * float(np.sum(np.asarray(end.forces, np.float64) * move))
        if step.strained:
            total += 0.5 * volume * float(np.sum(np.asarray(end.stress, np.float64) * strain))
    return total
