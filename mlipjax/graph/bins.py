"""Pairs within reach, found in time and memory of the order of N: atoms are sorted into bins of a grid over the cell.

An atom's partners are in the bins around its own. Bins are counted on through the periodic images of the cell, so a
cell that is smaller than the reach is the same search with one bin and several images, for lattices of any angles.
All sizes are static.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.lattice import completed, heights, inverse
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Cell, EdgeMask, Int, Neighbors, Positions, Shifts

AT_ONCE = 2**22
"""Distances held in memory at once; more than that go one block of atoms after the other."""

_THINNER = 1.03  # by so much may a cell become thinner, in each direction
_FULLER = 1.25  # times the atoms in the fullest bin
_FINENESS = (1, 2, 3)  # bins over the length of the reach
_ROUNDING = 1e-6  # relative, of heights and distances in single precision


class Bins(NamedTuple):
    """Sizes of a search.

    Attributes:
        number: bins along each lattice vector.
        images: how many bins away partners may be, along each lattice vector.
        occupancy: room for atoms in a bin.
    """

    number: tuple[int, int, int]
    images: tuple[int, int, int]
    occupancy: int

    @property
    def partners(self) -> int:
        """Room for partners that an atom's distance is taken to."""
        return int(np.prod([2 * images + 1 for images in self.images])) * self.occupancy

    def joined(self, other: Bins) -> Bins:
        """Sizes that hold whatever fits either, if both have equally many bins; otherwise those of ``other``."""
        if self.number != other.number:
            return other
        first, second, third = np.maximum(self.images, other.images).tolist()
        return Bins(self.number, (first, second, third), max(self.occupancy, other.occupancy))

    def grown(self, pbc: Sequence[bool]) -> Bins:
        """Room for more atoms in a bin, and for a thinner cell."""
        first, second, third = (np.array(self.images) + np.array(pbc)).tolist()
        return Bins(self.number, (first, second, third), _with_room(self.occupancy))


def choose_bins(systems: Sequence[System], reach: float, at_most: Sequence[int] = (2**20,) * 3) -> Bins:
    """Bins with some room that take the fewest distances in structures that differ in positions and cell only.

    Args:
        systems: at least one.
        reach: Å.
        at_most: largest numbers of bins along the lattice vectors.
    """
    pbc, reached = systems[0].pbc, _THINNER * reach
    placed = [_placed(np.asarray(s.positions, np.float64), np.asarray(s.cell, np.float64), pbc, np) for s in systems]
    lengths = np.min([np.where(pbc, heights(lattice), np.ptp(at, axis=0)) for _, at, lattice in placed], axis=0)

    def with_fineness(fineness: int) -> Bins:
        number = np.clip(np.floor(fineness * lengths / reached), 1, at_most).astype(int)
        open_images = np.where(number > 1, fineness, 0)
        images = np.where(pbc, np.ceil(reached * number / np.where(pbc, lengths, 1.0)), open_images).astype(int)
        sizes = tuple(number.tolist()), tuple(images.tolist())
        flat = [_flat(_bin_of(at, *sizes, reach, pbc, np), sizes[0]) for _, at, _ in placed]
        fullest = max(int(np.bincount(bins).max()) for bins in flat)
        return Bins(*sizes, min(_with_room(fullest), len(flat[0])))

    return min(map(with_fineness, _FINENESS), key=lambda bins: bins.partners)


class Pairs(NamedTuple):
    """Partners of every atom in dense rows, as in ``GraphBatch``, between atoms where they are.

    Attributes:
        neighbors, shifts, edge_mask, reverse: as in ``GraphBatch``; an edge that lacks its reverse is left out.
        overflow: whether the sizes did not hold all pairs.
    """

    neighbors: Neighbors
    shifts: Shifts
    edge_mask: EdgeMask
    reverse: Neighbors
    overflow: Bool[Array, ""]


def find_pairs(
    bins: Bins, reach: float, pbc: tuple[bool, bool, bool], width: int, positions: Positions, cell: Cell
) -> Pairs:
    """Find all pairs that are closer than ``reach``.

    Args:
        bins: static sizes, from ``choose_bins``.
        reach: Å.
        pbc: periodicity along the three lattice vectors.
        width: slots per atom.
        positions: (n, 3) Å; atoms may be anywhere, inside the cell or not.
        cell: (3, 3) Å, rows are lattice vectors; those of directions without periodicity are not used.

    Raises:
        ValueError: for more slots than 32-bit integers count.
    """
    n_atoms = len(positions)
    if n_atoms * width >= 2**31:
        raise ValueError(f"{n_atoms} atoms with {width} slots each are too many for a device table.")
    bins = bins._replace(occupancy=min(bins.occupancy, n_atoms))
    away, fractional, lattice = _placed(positions, cell, pbc, jnp)
    home = _flat(_bin_of(fractional, bins.number, bins.images, reach, pbc, jnp), bins.number)
    members, place, fullest = _sorted_into(bins, home)
    offsets, around, wraps, inside = _surroundings(bins, pbc)
    partners = jnp.where(inside[..., None], members[around], n_atoms)
    partners = partners.reshape(len(members), -1)  # of the atoms in each bin; n_atoms where there is none
    within_cell = jnp.concatenate([positions - away @ lattice, jnp.full((1, 3), jnp.inf, positions.dtype)])
    translations = wraps.astype(positions.dtype) @ lattice
    at_home = np.repeat((wraps == 0).all(axis=-1), bins.occupancy, axis=-1)

    def row(atom: Int[Array, ""]) -> tuple[Int[Array, " width"], Int[Array, ""]]:
        others = partners[home[atom]]
        # in this order the vector back is the negative to the last bit
        vectors = (within_cell[others] - within_cell[atom][None, :]).reshape(offsets, bins.occupancy, 3)
        vectors = vectors + translations[home[atom]][:, None, :]
        close = jnp.sum(vectors**2, axis=-1).reshape(-1) < reach**2
        close &= (others != atom) | ~jnp.asarray(at_home)[home[atom]]
        rank = jnp.cumsum(close, dtype=jnp.int32)
        slots = jnp.searchsorted(rank, jnp.arange(1, width + 1, dtype=jnp.int32)).astype(jnp.int32)
        return slots, rank[-1]

    rows = max(1, AT_ONCE // bins.partners)
    atoms = jnp.arange(n_atoms, dtype=jnp.int32)
    places, counts = jax.vmap(row)(atoms) if rows >= n_atoms else jax.lax.map(row, atoms, batch_size=rows)

    own, taken = atoms[:, None], jnp.minimum(places, bins.partners - 1)
    neighbors = jnp.where(places < bins.partners, partners[home[:, None], taken], own)
    direction = taken // bins.occupancy
    # seen from the neighbour, this atom is in the opposite direction, at its own place in its bin
    wanted = (offsets - 1 - direction) * bins.occupancy + place[:, None]
    back, found = _find_in_row(places, neighbors, wanted)
    mask = (places < bins.partners) & found
    away = away.astype(jnp.int32)
    shifts = jnp.asarray(wraps)[home[:, None], direction] + away[:, None, :] - away[neighbors]
    return Pairs(
        neighbors=jnp.where(mask, neighbors, own),
        shifts=jnp.where(mask[..., None], shifts, 0),
        edge_mask=mask,
        reverse=jnp.where(mask, neighbors * width + back, own * width + jnp.arange(width, dtype=jnp.int32)[None, :]),
        overflow=(fullest > bins.occupancy) | jnp.any(counts > width) | _too_thin(bins, reach, pbc, lattice),
    )


def _with_room(occupancy: int) -> int:
    return int(np.ceil(_FULLER * occupancy)) + 2


def _placed(positions: Any, cell: Any, pbc: tuple[bool, bool, bool], xp: Any) -> tuple[Any, Any, Any]:
    """Cells by which each atom is away, its fractional coordinates within the cell, and the lattice; Å where open."""
    lattice = completed(cell, pbc, xp)
    fractional = positions @ inverse(lattice, xp)
    away = xp.where(np.array(pbc)[None, :], xp.floor(fractional), 0.0)
    return away, fractional - away, lattice


def _bin_of(
    fractional: Any, number: Sequence[int], images: Sequence[int], reach: float, pbc: Sequence[bool], xp: Any
) -> Any:
    """(n, 3) bins that atoms are in; along open directions bins reach from the first atom to the last."""
    low = xp.where(np.array(pbc), 0.0, fractional.min(axis=0))
    length = xp.where(np.array(pbc), 1.0, fractional.max(axis=0) - low)
    thinnest = np.where(pbc, 0.0, reach / np.maximum(images, 1))
    thickness = xp.maximum(length / np.array(number), thinnest.astype(fractional.dtype))
    bins = xp.floor((fractional - low[None, :]) / thickness[None, :])
    return xp.clip(bins, 0, np.array(number)[None, :] - 1).astype(np.int32)


def _flat(bins: Any, number: Sequence[int]) -> Any:
    return (bins[..., 0] * number[1] + bins[..., 1]) * number[2] + bins[..., 2]


def _sorted_into(
    bins: Bins, home: Int[Array, " n"]
) -> tuple[Int[Array, "b occupancy"], Int[Array, " n"], Int[Array, ""]]:
    """Atoms of each bin (n where there is none), each atom's place in its bin, and the fullest bin's number."""
    n_atoms, n_bins = len(home), int(np.prod(bins.number))
    order = jnp.argsort(home, stable=True).astype(jnp.int32)
    counts = jnp.zeros(n_bins, jnp.int32).at[home].add(1)
    starts = jnp.cumsum(counts, dtype=jnp.int32) - counts
    rank = jnp.arange(n_atoms, dtype=jnp.int32) - starts[home[order]]
    place = jnp.zeros(n_atoms, jnp.int32).at[order].set(rank, unique_indices=True)
    seat = jnp.arange(bins.occupancy, dtype=jnp.int32)[None, :]
    members = order[jnp.minimum(starts[:, None] + seat, n_atoms - 1)]
    return jnp.where(seat < counts[:, None], members, n_atoms), place, jnp.max(counts)


def _surroundings(bins: Bins, pbc: Sequence[bool]) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Number of directions d; of each bin the ones around it (b, d), in which image of the cell, and whether there."""
    offsets = np.array(list(itertools.product(*(range(-m, m + 1) for m in bins.images))), np.int32)
    number = np.array(bins.number, np.int32)
    every = np.stack(np.unravel_index(np.arange(number.prod()), bins.number), axis=-1).astype(np.int32)
    wraps, around = np.divmod(every[:, None] + offsets, number)
    inside = (np.array(pbc) | (wraps == 0)).all(axis=-1)
    return len(offsets), _flat(around, bins.number), wraps, inside


def _find_in_row(
    rows: Int[Array, "n width"], chosen: Int[Array, "n width"], wanted: Int[Array, "n width"]
) -> tuple[Int[Array, "n width"], Bool[Array, "n width"]]:
    """Place of ``wanted`` in the ascending row that is ``chosen``, and whether it is there; a binary search."""
    width = rows.shape[1]
    before = jnp.zeros_like(wanted)
    for step in (2**power for power in reversed(range(width.bit_length()))):
        further = before + step
        smaller = rows[chosen, jnp.minimum(further, width) - 1] < wanted
        before = jnp.where((further <= width) & smaller, further, before)
    at = jnp.minimum(before, width - 1)
    return at, rows[chosen, at] == wanted


def _too_thin(bins: Bins, reach: float, pbc: Sequence[bool], lattice: Cell) -> Bool[Array, ""]:
    """Return whether a pair within reach may be further apart than so many bins along a periodic direction."""
    height = 1.0 / jnp.linalg.norm(inverse(lattice, jnp), axis=0)
    reached = np.array(bins.images) * height / np.array(bins.number)
    return jnp.any(np.array(pbc) & (reached < (1.0 + _ROUNDING) * reach))
