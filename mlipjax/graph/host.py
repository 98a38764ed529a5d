"""Neighbour tables on the host, for data sets and calculators.

``matscipy`` finds candidate pairs; whether a pair is an edge is decided here, with the arithmetic of
``ase.neighborlist``, so that pairs that sit on the cutoff to the last bit (perfect crystals) fall on the same
side as in ASE; it is decided once per pair, so that no edge lacks its reverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

import numpy as np
from matscipy.neighbours import neighbour_list

from mlipjax.elements import listed
from mlipjax.lattice import independent
from mlipjax.system import System

# The candidates' cutoff is larger than the cutoff by more than rounding, and by nothing that costs time.
_CANDIDATE_CUTOFF = 1.0 + 1e-9
# Along directions without periodicity the search box is at most this many cutoffs long; atoms beyond it share
# the outermost bins. Bounds the memory for atoms that flew away.
_MAX_BINS = 64

COINCIDING = 0.05
"""Å: two nuclei that are closer are one atom given twice. No force pushes them apart at distance zero (its direction is
not defined, results are NaN), and no potential was made for what lies just above."""


class CoincidingAtoms(ValueError):
    """Two atoms of a structure, or an atom and its own periodic image, are at the same place."""


@dataclasses.dataclass(frozen=True)
class NeighborTable:
    """Neighbours of every atom of one structure as dense rows; unused slots are at the end of a row.

    Attributes:
        neighbors: (n, K) int32 index of the neighbour; the atom itself in unused slots.
        shifts: (n, K, 3) int32 lattice translation of the neighbour.
        mask: (n, K) true for edges.
        reverse: (n, K) int32 flat index ``j * K + k'`` of the edge back; an unused slot's own flat index.
        n_edges: number of directed edges.
        max_count: largest number of neighbours of an atom.
    """

    neighbors: np.ndarray
    shifts: np.ndarray
    mask: np.ndarray
    reverse: np.ndarray
    n_edges: int
    max_count: int

    @property
    def n_atoms(self) -> int:
        """Number of rows."""
        return self.neighbors.shape[0]


def neighbor_table(
    system: System, cutoff: float, n_neighbors: int | None = None, *, closest: float = COINCIDING
) -> NeighborTable:
    """Find all edges shorter than ``cutoff`` (strictly), periodic images included.

    An atom is a neighbour of its own images but not of itself. Equal input gives an equal table.

    Args:
        system: structure; positions may lie outside the cell, lattice vectors of directions without
            periodicity are not used.
        cutoff: Å.
        n_neighbors: slots per atom ``K``; ``None`` for as many as needed, at least one.
        closest: Å, smallest distance accepted; 0 where close atoms are what is looked for.

    Raises:
        CoincidingAtoms: if two atoms are closer than ``closest``.
        ValueError: for a cutoff that is not positive, positions or lattice vectors that are not finite,
            lattice vectors of periodic directions that are zero or linearly dependent, or fewer slots than
            neighbours.
    """
    positions = np.asarray(system.positions, dtype=np.float64)
    cell = np.asarray(system.cell, dtype=np.float64)
    _check_structure(positions, cell, system.pbc, cutoff)
    first, second, shifts, lengths = _half_edges(positions, cell, system.pbc, cutoff)
    if len(lengths) and lengths.min() < closest:
        edge = int(lengths.argmin())
        raise CoincidingAtoms(_coincidence(system, int(first[edge]), int(second[edge]), float(lengths[edge])))
    half = len(first)
    # both directions of every pair: edge e and edge half + e are each other's reverse
    return _dense_table(
        len(positions),
        np.concatenate([first, second]),
        np.concatenate([second, first]),
        np.concatenate([shifts, -shifts]),
        np.roll(np.arange(2 * half), half),
        n_neighbors,
    )


def neighbor_tables(systems: Iterable[System], cutoff: float) -> Iterator[NeighborTable]:
    """Tables of many structures, one after the other; errors say which structure they are about.

    Args:
        systems: structures.
        cutoff: Å.
    """
    for index, system in enumerate(systems):
        try:
            yield neighbor_table(system, cutoff)
        except ValueError as error:
            raise type(error)(f"structure {index}: {error}") from error


def coincidences(systems: Iterable[System]) -> dict[int, str]:
    """Structures in which atoms coincide, by index: which atoms, and how far apart they are."""
    found = {}
    for index, system in enumerate(systems):
        try:
            neighbor_table(system, 20.0 * COINCIDING)
        except CoincidingAtoms as error:
            found[index] = str(error)
    return found


def _coincidence(system: System, first: int, second: int, distance: float) -> str:
    names = [f"{listed([system.atomic_numbers[atom]])} {atom}" for atom in (first, second)]
    pair = f"atoms {names[0]} and {names[1]}" if first != second else f"atom {names[0]} and its periodic image"
    return (
        f"{pair} are {distance:.3g} Å apart; at least {COINCIDING} Å are needed. Remove the atom that is there twice, "
        "or correct the cell."
    )


def _half_edges(
    positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One direction ``(i, j, S)`` of every pair, and its length.

    It has ``i < j``, or ``i = j`` and the first non-zero component of ``S`` positive.
    """
    search_cell, origin = _search_cell(positions, cell, pbc, cutoff)
    first, second, shifts = neighbour_list(
        "ijS",
        positions=positions,
        cell=search_cell,
        pbc=np.array(pbc),
        cutoff=cutoff * _CANDIDATE_CUTOFF,
        cell_origin=origin,
    )
    a, b, c = shifts.T
    forward = (a > 0) | ((a == 0) & ((b > 0) | ((b == 0) & (c > 0))))
    half = (first < second) | ((first == second) & forward)
    first, second, shifts = first[half], second[half], shifts[half]
    vectors = positions[second] - positions[first] + shifts.dot(cell)
    lengths = np.sqrt(np.sum(vectors * vectors, axis=1))
    within = lengths < cutoff
    return first[within], second[within], shifts[within], lengths[within]


def _dense_table(
    n_atoms: int,
    first: np.ndarray,
    second: np.ndarray,
    shifts: np.ndarray,
    partner: np.ndarray,
    n_neighbors: int | None,
) -> NeighborTable:
    counts = np.bincount(first, minlength=n_atoms)
    max_count = int(counts.max(initial=0))
    width = max(max_count, 1) if n_neighbors is None else n_neighbors
    if max_count > width:
        raise ValueError(f"an atom has {max_count} neighbours, the table has n_neighbors={width} slots; enlarge it.")
    starts = np.cumsum(counts) - counts
    order = np.argsort(first, kind="stable")
    slot = np.empty(len(first), np.int64)
    slot[order] = first[order] * width + np.arange(len(first)) - starts[first[order]]
    neighbors = np.repeat(np.arange(n_atoms, dtype=np.int32), width)
    reverse = np.arange(n_atoms * width, dtype=np.int32)
    dense_shifts = np.zeros((n_atoms * width, 3), np.int32)
    neighbors[slot] = second
    reverse[slot] = slot[partner]
    dense_shifts[slot] = shifts
    return NeighborTable(
        neighbors=neighbors.reshape(n_atoms, width),
        shifts=dense_shifts.reshape(n_atoms, width, 3),
        mask=np.arange(width) < counts[:, None],
        reverse=reverse.reshape(n_atoms, width),
        n_edges=len(first),
        max_count=max_count,
    )


def _search_cell(
    positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool], cutoff: float
) -> tuple[np.ndarray, np.ndarray]:
    """Box and origin for the search: the lattice where periodic, elsewhere orthogonal and around all atoms.

    Which vectors complete the lattice does not change the edges: translations along them are always zero.
    """
    periodic = np.array(pbc)
    if periodic.all():
        return cell, np.zeros(3)
    # rows of `normals` beyond the number of periodic directions span what is orthogonal to all of them
    normals = np.linalg.svd(cell[periodic], full_matrices=True)[2][int(periodic.sum()) :]
    heights = positions @ normals.T
    low = heights.min(axis=0)
    length = np.minimum(heights.max(axis=0) - low, _MAX_BINS * cutoff) + cutoff
    box = cell.copy()
    box[~periodic] = normals * length[:, None]
    return box, low @ normals


def _check_structure(positions: np.ndarray, cell: np.ndarray, pbc: tuple[bool, bool, bool], cutoff: float) -> None:
    if not (np.isfinite(cutoff) and cutoff > 0.0):
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive and finite.")
    if positions.ndim != 2 or positions.shape[1] != 3 or len(positions) == 0:
        raise ValueError(f"positions have shape {positions.shape}; expected (n, 3) with at least one atom.")
    if cell.shape != (3, 3):
        raise ValueError(f"the cell has shape {cell.shape}; expected (3, 3) with lattice vectors as rows.")
    if not np.isfinite(cell).all():
        raise ValueError("lattice vectors are not finite (NaN or infinity).")
    finite = np.isfinite(positions).all(axis=1)
    if not finite.all():
        raise ValueError(f"the position of atom {int(np.argmin(finite))} is not finite (NaN or infinity).")
    vectors = cell[np.array(pbc)]
    if not independent(vectors):
        raise ValueError(
            f"pbc={tuple(map(bool, pbc))} but the lattice vectors of the periodic directions are zero or "
            f"linearly dependent: {vectors.tolist()}. Set pbc to False for a molecule, or give a cell."
        )
