"""Results of another structure: those that a calculator remembers, or returns twice."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from mlipjax.files import digest
from mlipjax.lattice import minimum_image
from mlipjax.system import Labels, System

TOLERANCE = 1e-4
"""Å: what units converted there and back, or digits in a file, may move atoms; a step of dynamics moves them more."""

_REMEMBERED = 256
"""Structures whose labels are compared with: far more than are under way at once."""


def is_same_structure(first: System, second: System) -> bool:
    """Say if two structures are one: the same atoms at the same places, up to lattice vectors and a common shift."""
    if not np.array_equal(first.atomic_numbers, second.atomic_numbers) or tuple(first.pbc) != tuple(second.pbc):
        return False
    periodic = np.asarray(first.pbc, bool)
    cells = np.asarray(first.cell, np.float64), np.asarray(second.cell, np.float64)
    if not np.allclose(cells[0][periodic], cells[1][periodic], rtol=0.0, atol=TOLERANCE):
        return False
    return _in_the_same_places(first, second)


def _in_the_same_places(first: System, second: System) -> bool:
    """The same for as many atoms of whatever elements, in the cell of the first."""
    moved = np.asarray(first.positions, np.float64) - np.asarray(second.positions, np.float64)
    moved = minimum_image(moved - moved[:1], first.cell, first.pbc)
    return bool(np.all(np.abs(moved) < TOLERANCE))


class RecentLabels:
    """The last labels that were made, to notice those that come again for another structure.

    Atoms in other places have the same energy and forces to the last of sixteen digits if nothing was computed for
    them, or if nothing depends on the places. Without forces (atoms far apart) that is to be expected, as it is for
    other elements or another cell, which an oracle may ignore.
    """

    def __init__(self) -> None:
        self._structures: OrderedDict[str, System] = OrderedDict()

    def repeats(self, system: System, labels: Labels) -> bool:
        """Return whether labels are those of another structure; if not, remember them."""
        forces = np.asarray(labels.forces, np.float64)
        if not forces.any():
            return False
        key = digest(np.asarray(labels.energy, np.float64), forces)
        known = self._structures.setdefault(key, system)
        if len(self._structures) > _REMEMBERED:
            self._structures.popitem(last=False)
        return not _in_the_same_places(system, known)
