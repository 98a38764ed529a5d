"""Padded sizes, and batches put together from structures near the origin and their neighbour tables.

An atom a thousand ångström away is known to 0.1 mÅ in float32, one near the origin to 0.1 µÅ. Which image of an atom a
file happens to name, or how far a diffusing atom has walked, must not decide that: atoms are brought back along the
periodic directions by whole lattice vectors, and structures along the others by a shift of all atoms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from mlipjax.graph.batch import GraphBatch
from mlipjax.graph.host import NeighborTable, neighbor_table
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


def bucket_size(n: int, multiple: int = 1, per_doubling: int = 8) -> int:
    """Smallest padded size that holds ``n``.

    Sizes are spaced evenly between powers of two, ``per_doubling`` (a power of two) of them per doubling, and
    are multiples of ``multiple`` (a power of two as well). Padding adds at most ``1 / per_doubling``, or less
    than ``multiple`` where that is more.

    Args:
        n: what must fit.
        multiple: of this.
        per_doubling: sizes between ``m`` and ``2 m``.

    Examples:
        >>> [bucket_size(n) for n in (5, 17, 100, 197)]
        [5, 18, 104, 208]
    """
    needed = max(int(n), multiple)
    power_below = 1 << max((needed - 1).bit_length() - 1, 0)
    step = max(power_below // per_doubling, multiple)
    return -(-needed // step) * step


def neighbor_bucket(n: int) -> int:
    """Slots per atom ``K`` that hold ``n`` neighbours: buckets in multiples of four."""
    return bucket_size(n, 4)


def batch_graphs(
    systems: Sequence[System],
    cutoff: float,
    *,
    n_atoms: int | None = None,
    n_neighbors: int | None = None,
    n_graphs: int | None = None,
    heads: Sequence[int] | None = None,
    tables: Sequence[NeighborTable | None] | None = None,
    dtype: Any = np.float32,
) -> GraphBatch:
    """Concatenate structures into one padded batch of numpy arrays; one structure is a batch of one.

    Structures far from the origin are brought back before they are rounded to ``dtype`` (``near_origin``): energies,
    forces and stress do not depend on where they are.

    Args:
        systems: structures, at least one.
        cutoff: Å.
        n_atoms: padded number of atoms ``N``; ``None`` for the bucket of the sum.
        n_neighbors: slots per atom ``K``; ``None`` for the bucket of the largest count.
        n_graphs: padded number of structures ``G``; ``None`` for the bucket of their number.
        heads: head index of each structure; ``None`` for head 0.
        tables: neighbour tables of the structures at this cutoff, ``None`` where not yet known.
        dtype: of positions and cells.

    Raises:
        ValueError: if there is no structure, a size is too small (naming what it must hold), or ``tables`` or
            ``heads`` do not match ``systems``.
    """
    if len(systems) == 0:
        raise ValueError("a batch needs at least one structure, found none.")
    known = [None] * len(systems) if tables is None else tables
    tables = [table or neighbor_table(system, cutoff) for system, table in zip(systems, known, strict=False)]
    counts = [len(system.atomic_numbers) for system in systems]
    if [table.n_atoms for table in tables] != counts:
        raise ValueError(f"tables have {[t.n_atoms for t in tables]} rows, the structures {counts} atoms.")
    if heads is not None and len(heads) != len(systems):
        raise ValueError(f"found {len(heads)} head indices for {len(systems)} structures; give one each.")
    total, widest = sum(counts), max(table.max_count for table in tables)
    n_atoms = _size("n_atoms", n_atoms, total)
    n_neighbors = _size("n_neighbors", n_neighbors, widest, multiple=4)
    n_graphs = _size("n_graphs", n_graphs, len(systems))
    near = [near_origin(system) for system in systems]
    tables = [_between_images(table, placed.images) for table, placed in zip(tables, near, strict=True)]
    neighbors, shifts, edge_mask, reverse = stack_tables(tables, n_atoms, n_neighbors)
    graph_index = np.repeat(np.arange(len(systems)), counts)
    heads = [0] * len(systems) if heads is None else heads
    return GraphBatch(
        positions=_padded(np.concatenate([placed.system.positions for placed in near]), n_atoms, dtype),
        atomic_numbers=_padded(np.concatenate([s.atomic_numbers for s in systems]), n_atoms, np.int32),
        cells=_padded(np.stack([system.cell for system in systems]), n_graphs, dtype),
        neighbors=neighbors,
        shifts=shifts,
        edge_mask=edge_mask,
        reverse=reverse,
        graph_index=_padded(graph_index, n_atoms, np.int32, fill=n_graphs - 1),
        atom_mask=_padded(np.ones(total), n_atoms, bool),
        graph_mask=_padded(np.ones(len(systems)), n_graphs, bool),
        n_atoms=_padded(np.array(counts), n_graphs, np.int32),
        head=_padded(np.array(heads), n_graphs, np.int32),
    )


def _between_images(table: NeighborTable, images: np.ndarray) -> NeighborTable:
    """The same edges between atoms of which ``images`` (n, 3) lattice vectors were taken off."""
    if not images.any():
        return table
    moved = (images[table.neighbors] - images[:, None, :]) * table.mask[..., None]
    return dataclasses.replace(table, shifts=(table.shifts + moved).astype(table.shifts.dtype))


def stack_tables(tables: Sequence[NeighborTable], n_atoms: int, n_neighbors: int) -> tuple[Any, Any, Any, Any]:
    """Neighbours, shifts, mask and reverse of all tables in rows of one width."""
    neighbors = np.repeat(np.arange(n_atoms, dtype=np.int32)[:, None], n_neighbors, axis=1)
    shifts = np.zeros((n_atoms, n_neighbors, 3), np.int32)
    mask = np.zeros((n_atoms, n_neighbors), bool)
    reverse = np.arange(n_atoms * n_neighbors, dtype=np.int32).reshape(n_atoms, n_neighbors)
    start = 0
    for table in tables:
        # a table may have more slots than it uses; those in use come first
        rows, used = slice(start, start + table.n_atoms), slice(0, table.max_count)
        atom, slot = np.divmod(table.reverse[:, used], table.mask.shape[1])
        neighbors[rows, used] = table.neighbors[:, used] + start
        shifts[rows, used] = table.shifts[:, used]
        mask[rows, used] = table.mask[:, used]
        reverse[rows, used] = (atom + start) * n_neighbors + slot
        start += table.n_atoms
    return neighbors, shifts, mask, reverse


def _padded(values: np.ndarray, size: int, dtype: Any, fill: int = 0) -> Any:
    """``values`` followed by rows of ``fill`` up to ``size`` rows."""
    result = np.full((size, *values.shape[1:]), fill, dtype)
    result[: len(values)] = values
    return result


def _size(name: str, given: int | None, needed: int, multiple: int = 1) -> int:
    if given is None:
        return bucket_size(needed, multiple)
    if given < needed:
        raise ValueError(f"{name}={given} is too small: the structures of this batch need {needed}.")
    return given
