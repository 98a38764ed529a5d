"""Checks that positions, elements and cell of a file can be those of a structure: of one, or of many in flat arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from mlipjax.lattice import independent, reduced

MAX_ATOMS = 2_000_000
"""More atoms than this in one structure are refused before anything is allocated for them."""
MIN_HEIGHT = 0.5
"""Å. Along a periodic direction atoms repeat at least this far apart: no bond is shorter than 0.7."""
MAX_LENGTH = 1e6
"""Å. Longer lattice vectors, or positions farther from the origin, are not those of an atomic structure."""
MAX_DENSITY = 10.0
"""Atoms per Å^3 of a crystal. Diamond has 0.18; solid hydrogen at the centre of Jupiter about 2.5."""


def check_count(n_atoms: int, where: str) -> None:
    """Refuse a number of atoms that is stated in a file.

    Raises:
        ValueError: if it is not between 1 and ``MAX_ATOMS``.
    """
    if n_atoms < 1:
        raise ValueError(f"{where}: says that it has {n_atoms} atoms; a structure has at least one.")
    if n_atoms > MAX_ATOMS:
        raise ValueError(f"{where}: says that it has {n_atoms} atoms; at most {MAX_ATOMS} are read.")


def check_system(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, where: str) -> None:
    """Refuse what no calculation can start from.

    Args:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        cell: (3, 3) Å, rows.
        pbc: (3,) periodicity.
        where: file and structure, for the message.

    Raises:
        ValueError: if there are no or too many atoms, or an atom has no element; if positions or cell are not finite,
            or farther out than ``MAX_LENGTH``; if a periodic direction is zero, flat or shorter than ``MIN_HEIGHT``; if
            more atoms than matter can hold share the cell.
    """
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
            raise ValueError(f"{where}: positions or cell are not finite ({first_bad(name, array)}).")
    far = np.abs(positions).max()
    if far > MAX_LENGTH:
        atom = int(np.argmax(np.abs(positions).max(axis=1)))
        raise ValueError(
            f"{where}: atom {atom} lies {far:.3g} Å from the origin, at most {MAX_LENGTH:g} are read; "
            "correct its position or wrap it into the cell."
        )
    _check_cell(cell, pbc, len(numbers), where)


def first_bad(name: str, array: np.ndarray) -> str:
    """Name of the first row that is not finite: a lattice vector of the "cell", else an atom."""
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


_CHUNK = 1024
"""Structures that are looked at together."""
_MARGIN = 1.001  # rounding must not hide from the screen what the check would refuse


def check_counts(counts: np.ndarray, totals: Mapping[str, int], where: str, what: str = "n_atoms") -> None:
    """Refuse numbers of rows by structure that do not add up to the rows there are.

    Args:
        counts: (n,) whole numbers.
        totals: rows of each array that they divide.
        where: file, for the message.
        what: name of the counts, for the message.

    Raises:
        ValueError: if there is no structure, a count is negative, or the sum is another.
    """
    if len(counts) == 0:
        raise ValueError(f"{where}: holds no structure.")
    largest = max(totals.values())
    for bad in np.flatnonzero((counts < 0) | (counts > largest))[:1]:
        raise ValueError(f"{where}: structure {bad}: {what!r} is {counts[bad]}, of {largest} in all.")
    for name, total in totals.items():
        if int(counts.sum(dtype=np.int64)) != total:
            raise ValueError(f"{where}: {name!r} has {total} rows, {what!r} asks for {counts.sum(dtype=np.int64)}.")


def check_systems(
    numbers: np.ndarray,
    positions: np.ndarray,
    counts: np.ndarray,
    cells: np.ndarray | None,
    pbc: np.ndarray | None,
    where: Callable[[int], str],
) -> None:
    """Refuse structures as ``check_system`` does, one after the other.

    All are screened together, which costs next to nothing; only those that the screen cannot clear are checked alone.

    Args:
        numbers, positions: (A,) and (A, 3) Å of all structures.
        counts: (n,) atoms of each; their sum is A.
        cells, pbc: (n, 3, 3) Å and (n, 3), or ``None`` for zero and open.
        where: names a structure by its number.

    Raises:
        ValueError: for the first structure that is none.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    for first in range(0, len(counts), _CHUNK):
        rows = slice(first, min(first + _CHUNK, len(counts)))
        atoms = slice(starts[rows.start], starts[rows.stop])
        n = rows.stop - rows.start
        chunk_cells = np.zeros((n, 3, 3)) if cells is None else np.asarray(cells[rows], np.float64)
        chunk_pbc = np.zeros((n, 3), bool) if pbc is None else np.asarray(pbc[rows], bool)
        near = np.all(np.abs(np.asarray(positions[atoms])) <= MAX_LENGTH, axis=1)  # not so for NaN
        elements = np.asarray(numbers[atoms])
        suspect = _odd_cells(chunk_cells, chunk_pbc, counts[rows])
        suspect[np.repeat(np.arange(n), counts[rows])[~near | (elements < 1) | (elements > 118)]] = True
        for row in np.flatnonzero(suspect):
            part = slice(starts[first + row], starts[first + row + 1])
            check_system(
                np.asarray(numbers[part]),
                np.asarray(positions[part], np.float64),
                chunk_cells[row],
                chunk_pbc[row],
                where(first + int(row)),
            )


def _odd_cells(cells: np.ndarray, pbc: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(n,) whether a cell, or the number of atoms in it, needs a closer look."""
    # then no vector is longer than MAX_LENGTH; not for NaN
    short = np.all(np.abs(cells) <= MAX_LENGTH / 2, axis=(1, 2))
    cells = np.where(short[:, None, None], cells, 0.0)
    # no height of a cell, or of some of its vectors, is smaller than its smallest singular value
    heights = np.linalg.svd(cells, compute_uv=False)[:, -1]
    flat = pbc.any(axis=1) & (heights < MIN_HEIGHT * _MARGIN)
    dense = pbc.all(axis=1) & (counts * _MARGIN > MAX_DENSITY * np.abs(np.linalg.det(cells)))
    return ~short | flat | dense | (counts < 1) | (counts > MAX_ATOMS)
