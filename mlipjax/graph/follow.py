"""Graphs of structures that come one after the other, as an ASE calculator is asked for them.

What comes mostly is one structure that moves a little from call to call. Its candidates, pairs within cutoff + skin,
are searched once in a while, and stay on the device; its edges at each call are taken from them there.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph.batch import GraphBatch, edge_vectors
from mlipjax.graph.host import COINCIDING, neighbor_table
from mlipjax.graph.pad import Near, batch_graphs, bucket_size, near_origin
from mlipjax.graph.verlet import SKIN, left_skin, pack_edges
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Float, Positions


class Follower:
    """Makes graphs of structures, and keeps what the next one may have in common with the last.

    Args:
        cutoff: Å.
        head: index of the energy head.
        dtype: of positions and cells.
    """

    def __init__(self, cutoff: float, head: int, dtype: Any) -> None:
        self.cutoff, self.head, self.dtype = cutoff, head, dtype
        self.sizes = Sizes()
        self.n_searches = 0
        self._last: System | None = None
        self._most = 0  # neighbours of an atom, when they were last counted
        self._followed: Followed | None = None

    def graph(self, system: System) -> GraphBatch:
        """Padded graph of one structure.

        Raises:
            ValueError: as ``neighbor_table``.
        """
        before, self._last = self._last, system
        if before is not None and _moved_little(before, system):
            n_atoms, n_neighbors = self.sizes.choose(system.n_atoms, self._most)
            kept = self._followed
            if kept is None or kept.n_atoms != n_atoms or (graph := kept.graph(system, n_neighbors)) is None:
                kept = self._followed = Followed.search(system, self.cutoff, n_atoms, self.head, self.dtype)
                self.n_searches += 1
                graph = kept.graph(system, n_neighbors)
            if graph is not None:
                return graph
        self._followed = None
        table = neighbor_table(system, self.cutoff)
        self.n_searches += 1
        self._most = table.max_count
        n_atoms, n_neighbors = self.sizes.choose(system.n_atoms, table.max_count)
        return batch_graphs(
            [system],
            self.cutoff,
            n_atoms=n_atoms,
            n_neighbors=n_neighbors,
            heads=[self.head],
            tables=[table],
            dtype=self.dtype,
        )


def _moved_little(before: System, now: System) -> bool:
    """Return whether two structures are one whose atoms moved so little that a skin is worth its search."""
    return (
        before.pbc == now.pbc
        and np.array_equal(before.atomic_numbers, now.atomic_numbers)
        and bool(np.max(np.abs(np.asarray(now.positions) - np.asarray(before.positions))) < 0.25 * SKIN)
    )


class Followed(NamedTuple):
    """A structure and the pairs within cutoff + skin when it was searched.

    Attributes:
        near: the structure then.
        cutoff: Å.
        candidates: padded graph on the device.
    """

    near: Near
    cutoff: float
    candidates: GraphBatch

    @property
    def n_atoms(self) -> int:
        """Padded number of atoms."""
        return self.candidates.positions.shape[0]

    @classmethod
    def search(cls, system: System, cutoff: float, n_atoms: int, head: int, dtype: Any) -> Followed:
        """Find the candidates of a structure.

        Args:
            system: structure.
            cutoff: Å.
            n_atoms: padded number of atoms.
            head: index of the energy head.
            dtype: of positions and cell.

        Raises:
            ValueError: as ``neighbor_table``.
        """
        table = neighbor_table(system, cutoff + SKIN)
        batch = batch_graphs([system], cutoff, n_atoms=n_atoms, n_graphs=1, heads=[head], tables=[table], dtype=dtype)
        return cls(near_origin(system), cutoff, jax.device_put(batch))

    def graph(self, system: System, n_neighbors: int) -> GraphBatch | None:
        """Graph of the structure as it is now, on the device; ``None`` where the candidates do not suffice for that.

        Args:
            system: the same atoms, somewhere else.
            n_neighbors: slots per atom.
        """
        then = self.candidates
        positions = np.zeros(then.positions.shape, then.positions.dtype)
        cell = np.asarray(system.cell, np.float64)
        moved = self.near.images @ cell + self.near.origin
        positions[: system.n_atoms] = np.asarray(system.positions, np.float64) - moved
        cells = cell[None].astype(then.cells.dtype)
        graph, good = _edges_now(self.cutoff, n_neighbors, system.pbc, then, positions, cells)
        return graph if good else None


@partial(jax.jit, static_argnums=(0, 1, 2))
def _edges_now(
    cutoff: float,
    n_neighbors: int,
    pbc: tuple[bool, bool, bool],
    candidates: GraphBatch,
    positions: Positions,
    cells: Float[Array, "1 3 3"],
) -> tuple[GraphBatch, Bool[Array, ""]]:
    """Edges at new positions, and whether they are all there and no atoms coincide."""
    moved = dataclasses.replace(candidates, positions=positions, cells=cells)
    graph, most = pack_edges(moved, cutoff, n_neighbors)
    then, now = ((at.positions, at.cells[0]) for at in (candidates, moved))
    vectors = edge_vectors(graph, graph.positions, graph.cells)
    apart = jnp.all(~graph.edge_mask | (jnp.sum(vectors**2, axis=-1) >= COINCIDING**2))
    return graph, (most <= n_neighbors) & ~left_skin(cutoff, SKIN, pbc, then, now) & apart


class Sizes:
    """Padded sizes (N, K) of the programs in use.

    Compiling costs as much as hundreds of evaluations. A structure therefore first takes the smallest program that
    holds it, unless that wastes far too much; a size that has come back often gets a program of its own.
    """

    PATIENCE = 20  # evaluations before a program of its own
    CLOSE = 1.25  # slots over needed slots that are fine for ever
    LOOSE = 8  # slots over needed slots that are fine for a while
    SMALL = 1024  # so few slots are fine for a while, whatever is needed

    def __init__(self) -> None:
        self.programs: list[tuple[int, int]] = []
        self.uses: Counter[tuple[int, int]] = Counter()

    def choose(self, n_atoms: int, n_neighbors: int) -> tuple[int, int]:
        """Return the padded sizes for a structure."""
        close = bucket_size(n_atoms), bucket_size(n_neighbors, multiple=4)
        self.uses[close] += 1
        often = self.uses[close] > self.PATIENCE
        needed = close[0] * close[1]
        limit = self.CLOSE * needed if often else max(self.LOOSE * needed, self.SMALL)
        fitting = [(n, k) for n, k in self.programs if n >= n_atoms and k >= n_neighbors and n * k <= limit]
        if fitting:
            return min(fitting, key=lambda size: size[0] * size[1])
        # atoms that moved have other neighbours, but are the same structure; others come in all sizes
        same_structure = any(n == close[0] for n, _ in self.programs)
        if not (often or same_structure or not self.programs):
            close = bucket_size(n_atoms, 8, per_doubling=1), bucket_size(n_neighbors, 16, per_doubling=1)
        self.programs.append(close)
        return close
