"""Bringing structures near the origin, where single precision has digits to spare.

An atom a thousand ångström away is known to 0.1 mÅ in float32, one near the origin to 0.1 µÅ. Which image of an atom a
file happens to name, or how far a diffusing atom has walked, must not decide that: atoms are brought back along the
periodic directions by whole lattice vectors, and structures along the others by a shift of all atoms.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mlipjax.lattice import completed, independent, inverse
from mlipjax.precision import exact
from mlipjax.system import System
from mlipjax.typing import Array

_GRAIN = 64.0
"""Å: shifts along open directions are multiples of it, so exact, and none for what lies near the origin anyway."""


class Near(NamedTuple):
    """A structure near the origin and the way back.

    Attributes:
        system: with ``positions = original - images @ cell - origin``, float64.
        images: (n, 3) integers, lattice vectors taken off each atom.
        origin: (3,) Å, taken off all atoms along the open directions.
    """

    system: System
    images: np.ndarray
    origin: np.ndarray


@exact
def cells_away(positions: Any, cell: Any, pbc: tuple[bool, bool, bool], xp: Any = jnp) -> Any:
    """Whole cells (n, 3) by which atoms lie outside; zero within half a cell of it.

    The margin keeps atoms that vibrate about a face, or lie on it, where they are.

    Args:
        positions: (n, 3) Å.
        cell: (3, 3) Å, rows.
        pbc: periodicity.
        xp: ``jax.numpy`` or ``numpy``.
    """
    fractional = positions @ inverse(completed(cell, pbc, xp), xp)
    outside = (fractional < -0.5) | (fractional >= 1.5)
    return xp.where(outside & np.array(pbc)[None, :], xp.floor(fractional), 0.0)


def near_origin(system: System) -> Near:
    """Bring a structure near the origin, on the host in float64; nothing changes for what is near already.

    Raises:
        ValueError: for lattice vectors of periodic directions that are linearly dependent.
    """
    positions = np.asarray(system.positions, np.float64)
    cell = np.asarray(system.cell, np.float64)
    if not independent(cell[np.array(system.pbc)]):
        raise ValueError("the lattice vectors of the periodic directions are linearly dependent.")
    images = cells_away(positions, cell, system.pbc, np)
    lattice = completed(cell, system.pbc)
    centre = (positions - images @ lattice).mean(axis=0) @ np.linalg.inv(lattice)
    # open directions are orthogonal to the periodic ones and of unit length
    origin = np.where(system.pbc, 0.0, _GRAIN * np.round(centre / _GRAIN)) @ lattice
    if not (images.any() or origin.any()):
        return Near(system, np.zeros(images.shape, np.int64), np.zeros(3))
    placed = dataclasses.replace(system, positions=positions - images @ cell - origin)
    return Near(placed, images.astype(np.int64), origin)


def way_of(position: Array | np.ndarray, images: Any, cell: Any, origin: Any = 0.0) -> np.ndarray:
    """Positions with no cell taken off, float64 on the host: ``position + images @ cell + origin``.

    Args:
        position: (..., n, 3) Å, within a cell.
        images: (..., n, 3) whole cells that were taken off.
        cell: (..., 3, 3) Å, rows.
        origin: Å, taken off besides.
    """
    cells = np.asarray(images, np.float64) @ np.asarray(cell, np.float64)
    return np.asarray(position, np.float64) + cells + np.asarray(origin, np.float64)
