"""The checks of ``checks`` for many structures in flat arrays, which may lie on disk and hold millions."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mlipjax.data.checks import MAX_ATOMS, MAX_DENSITY, MAX_LENGTH, MIN_HEIGHT, check_system

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
