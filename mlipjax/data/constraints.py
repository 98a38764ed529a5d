"""Coordinates that the constraints of a structure leave free."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def free_coordinates(atoms: Atoms) -> np.ndarray | None:
    """Cartesian coordinates that no constraint fixes.

    Known are fixed atoms (``FixAtoms``), fixed Cartesian coordinates (``FixCartesian``), planes and lines along the
    Cartesian axes (``FixedPlane``, ``FixedLine``), fractional coordinates of a cell along these axes (``FixScaled``).
    ``FixCom`` leaves everything free: whoever moves atoms here keeps their centre of mass.

    Args:
        atoms: structure with its constraints.

    Returns:
        (n, 3) true for coordinates that may move, or ``None`` if all may.

    Raises:
        ValueError: for any other constraint, by its name.
    """
    free = np.ones((len(atoms), 3), bool)
    for constraint in atoms.constraints:
        fixed = _fixed_axes(constraint, atoms)
        if fixed.any():
            free[np.ix_(np.atleast_1d(constraint.index), np.flatnonzero(fixed))] = False
    return None if free.all() else free


def _fixed_axes(constraint: Any, atoms: Atoms) -> np.ndarray:
    """(3,) Cartesian axes along which a constraint fixes its atoms."""
    from ase import constraints as known

    match constraint:
        case known.FixAtoms():
            return np.ones(3, bool)
        case known.FixCartesian():
            return np.asarray(constraint.mask, bool)
        case known.FixedPlane():
            return _axis(constraint)
        case known.FixedLine():
            return ~_axis(constraint)
        case known.FixCom():
            return np.zeros(3, bool)
        case known.FixScaled() if np.array_equal(atoms.cell.array, np.diag(np.diag(atoms.cell.array))):
            return np.asarray(constraint.mask, bool)
    raise ValueError(f"the constraint {_describe(constraint)} is not known here; {_KNOWN}.")


_KNOWN = "fixed atoms, and coordinates fixed along Cartesian axes, are (remove it, or use ASE with the calculator)"


def _axis(constraint: Any) -> np.ndarray:
    """(3,) the one Cartesian axis that a plane's normal or a line follows."""
    direction = np.abs(np.asarray(constraint.dir, np.float64))
    along = direction > 1.0 - 1e-8
    if along.sum() != 1:
        raise ValueError(f"the constraint {_describe(constraint)} does not follow a Cartesian axis; {_KNOWN}.")
    return along


def _describe(constraint: Any) -> str:
    name = type(constraint).__name__
    index = getattr(constraint, "index", None)
    if index is None or np.size(index) == 0:
        return name
    first = np.atleast_1d(index)
    more = f" and {len(first) - 1} more" if len(first) > 1 else ""
    return f"{name} (atom {int(first[0])}{more})"
