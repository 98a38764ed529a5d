"""Paths through the Brillouin zone, from high-symmetry point to high-symmetry point."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase.cell import Cell

from mlipjax.system import System

_POINTS = 200
"""Wave vectors of a path, about."""
_TOLERANCE = 1e-3
"""Relative differences of lengths and angles that a relaxed cell may have from its Bravais lattice."""


class BandPath(NamedTuple):
    """Wave vectors along a path; where it breaks off, two follow each other without a distance between them.

    Attributes:
        lattice: name of the Bravais lattice.
        points: (q, 3) in units of the reciprocal lattice vectors of the cell.
        distances: (q,) 1/Å, along the path (without 2 pi).
        ticks: (t,) distances of the points that have names.
        labels: (t,) these names; where the path breaks off both, as ``U|K``.
    """

    lattice: str
    points: np.ndarray
    distances: np.ndarray
    ticks: np.ndarray
    labels: tuple[str, ...]


def band_path(system: System) -> BandPath:
    """The usual path of a lattice, after Setyawan and Curtarolo, Comput. Mater. Sci. 49, 299 (2010), by ASE.

    It depends on the lattice vectors alone, which may be any of the lattice: atoms that lower its symmetry make some
    of its points equivalent to no others, and the path is still one.

    Args:
        system: cell of the crystal, periodic along all axes.
    """
    path = Cell(np.asarray(system.cell, np.float64)).bandpath(npoints=_POINTS, eps=_TOLERANCE)
    distances, ticks, names = path.get_linear_kpoint_axis()
    labels: list[str] = []
    places: list[float] = []
    for place, name in zip(ticks.tolist(), (_written(name) for name in names), strict=True):
        if places and place - places[-1] < 1e-9:
            labels[-1] = labels[-1] if labels[-1] == name else f"{labels[-1]}|{name}"
        else:
            places.append(place)
            labels.append(name)
    return BandPath(
        path.cell.get_bravais_lattice(_TOLERANCE).name, path.kpts, distances, np.array(places), tuple(labels)
    )


def _written(name: str) -> str:
    """A name as it is printed: Γ for G, a digit as an index."""
    letter = "Γ" if name[0] == "G" else name[0]
    return letter + "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in name[1:] if digit.isdigit())
