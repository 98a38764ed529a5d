"""Checks that a structure of a file can be one: atoms, elements, cell, and what a site holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.lattice import independent, reduced

if TYPE_CHECKING:
    from ase import Atoms

MAX_ATOMS = 2_000_000
"""More atoms than this in one structure are refused before anything is allocated for them."""
MIN_HEIGHT = 0.5
"""Å. Along a periodic direction atoms repeat at least this far apart: no bond is shorter than 0.7."""
MAX_LENGTH = 1e6
"""Å. Longer lattice vectors, or positions farther from the origin, are not those of an atomic structure."""
MAX_DENSITY = 10.0
"""Atoms per Å^3 of a crystal. Diamond has 0.18; solid hydrogen at the centre of Jupiter about 2.5."""
_FULL = 1e-3  # how far an occupancy may be from 1


def check_count(n_atoms: int, where: str) -> None:
    """Refuse a number of atoms that is stated in a file.

    Raises:
        ValueError: if it is not between 1 and ``MAX_ATOMS``.
    """
    if n_atoms < 1:
        raise ValueError(f"{where}: says that it has {n_atoms} atoms; a structure has at least one.")
    if n_atoms > MAX_ATOMS:
        raise ValueError(f"{where}: says that it has {n_atoms} atoms; at most {MAX_ATOMS} are read.")


def check_structure(atoms: Atoms, where: str) -> None:
    """Refuse what no calculation can start from.

    Args:
        atoms: structure.
        where: file and structure, for the message.

    Raises:
        ValueError: if there are no or too many atoms; if an atom has no element, or its site is occupied partly; if
            positions, cell, momenta or masses are not finite, or farther out than ``MAX_LENGTH``; if a periodic
            direction is zero, flat or shorter than ``MIN_HEIGHT``; if more atoms than matter can hold share the cell.
    """
    check_system(
        np.asarray(atoms.numbers),
        np.asarray(atoms.positions),
        np.asarray(atoms.cell.array, np.float64),
        np.asarray(atoms.pbc, bool),
        where,
    )
    _check_motion(atoms, where)
    _check_occupancy(atoms, where)


def check_system(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, where: str) -> None:
    """As ``check_structure``, for atomic numbers (n,), positions (n, 3) Å, cell (3, 3) Å and pbc (3,)."""
    if len(numbers) == 0:
        raise ValueError(f"{where}: no atoms.")
    check_count(len(numbers), where)
    if (numbers < 1).any():
        raise ValueError(f"{where}: atom {int(np.argmin(numbers))} has no element (X); remove it.")
    if (numbers > 118).any():
        atom = int(np.argmax(numbers))
        raise ValueError(f"{where}: atom {atom} has the atomic number {numbers[atom]}; elements go up to 118.")
    for name, array in (("positions", positions), ("cell", cell)):
        if not np.isfinite(array).all():
            raise ValueError(f"{where}: positions or cell are not finite ({_first_bad(name, array)}).")
    far = np.abs(positions).max()
    if far > MAX_LENGTH:
        atom = int(np.argmax(np.abs(positions).max(axis=1)))
        raise ValueError(
            f"{where}: atom {atom} lies {far:.3g} Å from the origin, at most {MAX_LENGTH:g} are read; "
            "correct its position or wrap it into the cell."
        )
    _check_cell(cell, pbc, len(numbers), where)


def _check_motion(atoms: Atoms, where: str) -> None:
    for name, shape in (("momenta", (len(atoms), 3)), ("masses", (len(atoms),))):
        if name not in atoms.arrays:
            continue
        values = atoms.arrays[name]
        if values.dtype.kind not in "fiub" or values.shape != shape:
            raise ValueError(
                f"{where}: {name} are {values.dtype} of shape {values.shape}, expected numbers of {shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{where}: {name} are not finite ({_first_bad(name, values)}).")
    if "masses" in atoms.arrays and (atoms.arrays["masses"] <= 0.0).any():
        atom = int(np.argmin(atoms.arrays["masses"]))
        raise ValueError(f"{where}: atom {atom} has the mass {atoms.arrays['masses'][atom]:g} u; masses are positive.")


def _first_bad(name: str, array: np.ndarray) -> str:
    row = int(np.argmin(np.isfinite(array).reshape(len(array), -1).all(axis=1)))
    return f"lattice vector {row}" if name == "cell" else f"atom {row}"


def _check_cell(cell: np.ndarray, pbc: np.ndarray, n_atoms: int, where: str) -> None:
    lengths = np.linalg.norm(cell, axis=1)
    for axis in range(3):
        if lengths[axis] > MAX_LENGTH:
            raise ValueError(
                f"{where}: lattice vector {axis} is {lengths[axis]:.3g} Å long, at most {MAX_LENGTH:g} are read; "
                "correct the cell (its unit is Å)."
            )
        if pbc[axis] and lengths[axis] == 0.0:
            raise ValueError(f"{where}: periodic along lattice vector {axis}, which is zero; correct pbc or cell.")
    heights = _heights(cell[pbc])
    for axis, height in zip(np.flatnonzero(pbc), heights, strict=True):
        if height < MIN_HEIGHT:
            if independent(cell[pbc]) and min(_heights(reduced(cell, pbc.tolist())[0][pbc])) >= MIN_HEIGHT:
                raise ValueError(
                    f"{where}: the lattice vectors are nearly parallel, vector {axis} is only {height:.3g} Å off the "
                    f"other periodic ones, expected at least {MIN_HEIGHT} Å; the lattice itself is fine: give its "
                    "shortest vectors (ase.build.niggli_reduce, or minkowski_reduce of the cell)."
                )
            what = "is" if height > 0.99 * lengths[axis] else f"is {lengths[axis]:.3g} Å long, but only"
            raise ValueError(
                f"{where}: the cell is flat: lattice vector {axis} {what} {height:.3g} Å off the other periodic ones, "
                f"expected at least {MIN_HEIGHT} Å; correct pbc or cell (its unit is Å)."
            )
    if pbc.all():
        density = n_atoms / abs(np.linalg.det(cell))
        if density > MAX_DENSITY:
            raise ValueError(
                f"{where}: {n_atoms} atoms in {abs(np.linalg.det(cell)):.3g} Å^3, {density:.3g} per Å^3; matter has "
                f"less than {MAX_DENSITY:g}; correct the cell (its unit is Å)."
            )


def _heights(vectors: np.ndarray) -> list[float]:
    """Distance in Å of each lattice vector's end from the line or plane of the others."""
    if len(vectors) == 3:
        volume = abs(float(np.linalg.det(vectors)))
        # volume over the area of the opposite face; faces of no area belong to cells of no volume
        return [volume / max(_area(vectors[i - 2], vectors[i - 1]), 1e-300) for i in range(3)]
    heights = []
    for axis, vector in enumerate(vectors):
        others = np.delete(vectors, axis, axis=0)
        if len(others):
            basis = np.linalg.qr(others.T)[0]
            vector = vector - basis @ (basis.T @ vector)
        heights.append(float(np.linalg.norm(vector)))
    return heights


def _area(first: np.ndarray, second: np.ndarray) -> float:
    """Area in Å^2 between two vectors."""
    (a, b, c), (d, e, f) = first.tolist(), second.tolist()
    return math.hypot(b * f - c * e, c * d - a * f, a * e - b * d)


def _check_occupancy(atoms: Atoms, where: str) -> None:
    """Sites that hold an element in part, as CIF and PDB files may say."""
    column = atoms.arrays.get("occupancy")
    if column is not None and np.issubdtype(np.asarray(column).dtype, np.number) and np.ndim(column) == 1:
        partly = np.flatnonzero((column > _FULL) & (column < 1.0 - _FULL))
        if len(partly):
            _refuse_occupancy(f"atom {partly[0]} ({atoms.symbols[partly[0]]} {column[partly[0]]:g})", where)
    sites = atoms.info.get("occupancy")
    if isinstance(sites, Mapping):
        for site, species in sites.items():
            if isinstance(species, Mapping) and _is_partial(species):
                parts = " ".join(f"{symbol} {value}" for symbol, value in species.items())
                _refuse_occupancy(f"site {site} ({parts})", where)


def _is_partial(species: Mapping[Any, Any]) -> bool:
    try:  # "." and "?" are the default of a CIF file, 1
        values = [1.0 if value in (".", "?") else float(value) for value in species.values()]
    except (TypeError, ValueError):
        return True
    return len(values) != 1 or not abs(values[0] - 1.0) <= _FULL


def _refuse_occupancy(site: str, where: str) -> None:
    raise ValueError(
        f"{where}: {site} is occupied in part; an atom is there or not. Give an ordered supercell of this structure."
    )
