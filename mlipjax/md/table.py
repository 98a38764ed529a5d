"""Neighbours during MD: candidates within cutoff plus skin, found between chunks; edges within the cutoff, every step.

A model's cost grows with the slots of the dense table, and a skin adds ``(1 + skin / cutoff)^3 - 1`` of them (28 %
for 0.5 Å on 6 Å). So the table of candidates is never handed to the model: each step packs the candidates that are
within the cutoff into a table without skin, which costs about a percent of a step and allows a generous skin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph import DeviceTableSpec, GraphBatch, edge_vectors, neighbor_table
from mlipjax.system import System
from mlipjax.typing import Array, Int

SKIN = 1.0
"""Default skin in Å: an atom may move half of it within a chunk."""

FLUCTUATION = 0.15
"""Slots are sized for the neighbours within cutoff + 0.15 Å: as many as thermal motion brings in, in most systems."""

_MULTIPLE = 4


@dataclasses.dataclass(frozen=True)
class TableSpec:
    """Static sizes of the tables of a simulation; hashable.

    Attributes:
        candidates: sizes of the table of pairs within cutoff + skin.
        n_neighbors: slots per atom in the table of edges that the potential sees.
        periodic: whether the cell has a volume, so that there is a stress.
    """

    candidates: DeviceTableSpec
    n_neighbors: int
    periodic: bool

    @classmethod
    def for_systems(
        cls, systems: Sequence[System], cutoff: float, skin: float = SKIN, n_neighbors: int = 0
    ) -> TableSpec:
        """Sizes for structures that differ in positions and cell only (replicas of one system).

        Args:
            systems: the states to hold, at least one.
            cutoff: Å, of the potential.
            skin: Å.
            n_neighbors: smallest number of slots, where more are known to be needed.
        """
        volume = abs(float(np.linalg.det(np.asarray(systems[0].cell, np.float64))))
        specs = []
        for system in systems:
            count = max(neighbor_table(system, cutoff + FLUCTUATION).max_count, n_neighbors, 1)
            slots = -(-count // _MULTIPLE) * _MULTIPLE
            specs.append(cls(DeviceTableSpec.for_system(system, cutoff, skin), slots, volume > 0.0))
        return reduce(lambda first, second: first.at_least(second), specs)

    def at_least(self, other: TableSpec) -> TableSpec:
        """Sizes that hold whatever fits either; cutoff, skin and periodicity are those of ``self``."""
        mine, others = self.candidates, other.candidates
        first, second, third = np.maximum(mine.images, others.images).tolist()
        candidates = dataclasses.replace(
            mine,
            n_edges=max(mine.n_edges, others.n_edges),
            n_neighbors=max(mine.n_neighbors, others.n_neighbors),
            images=(first, second, third),
        )
        return dataclasses.replace(self, candidates=candidates, n_neighbors=max(self.n_neighbors, other.n_neighbors))


def pack_edges(candidates: GraphBatch, cutoff: float, n_neighbors: int) -> tuple[GraphBatch, Int[Array, ""]]:
    """Keep the edges of one structure that are shorter than the cutoff now, in a table of ``n_neighbors`` slots.

    Edges keep their order. No gradient passes through the choice: an edge has no effect at the cutoff.

    Args:
        candidates: one structure whose table holds every pair that may be an edge, both directions of each.
        cutoff: Å.
        n_neighbors: slots per atom in the packed table.

    Returns:
        The graph with the packed table, and the largest number of neighbours of an atom: above ``n_neighbors``
        edges are missing.
    """
    positions, cells = jax.lax.stop_gradient((candidates.positions, candidates.cells))
    vectors = edge_vectors(candidates, positions, cells)
    within = candidates.edge_mask & (jnp.sum(vectors**2, axis=-1) < cutoff**2)
    # rank: how many edges an atom has up to and including this slot
    rank = jnp.cumsum(within, axis=1, dtype=jnp.int32)
    count = rank[:, -1]
    slot = _first_slot_with_rank(rank, n_neighbors)
    mask = jnp.arange(n_neighbors)[None, :] < count[:, None]
    own = jnp.arange(within.shape[0], dtype=jnp.int32)[:, None]
    neighbors = jnp.where(mask, jnp.take_along_axis(candidates.neighbors, slot, axis=1), own)
    shifts = jnp.where(mask[..., None], jnp.take_along_axis(candidates.shifts, slot[..., None], axis=1), 0)
    # the edge back sits in the neighbour's row, at its rank there
    back = rank.reshape(-1)[jnp.take_along_axis(candidates.reverse, slot, axis=1)] - 1
    unused = own * n_neighbors + jnp.arange(n_neighbors, dtype=jnp.int32)[None, :]
    reverse = jnp.where(mask, neighbors * n_neighbors + back, unused)
    graph = dataclasses.replace(candidates, neighbors=neighbors, shifts=shifts, edge_mask=mask, reverse=reverse)
    return graph, jnp.max(count)


def _first_slot_with_rank(rank: Int[Array, "N K"], n_neighbors: int) -> Int[Array, "N k"]:
    """Slot at which each row's running count reaches 1, 2, ..., ``n_neighbors``; the last slot if it never does.

    A binary search per output: no scatter, which is slow on CPUs and not deterministic on GPUs.
    """
    wanted = jnp.arange(1, n_neighbors + 1, dtype=rank.dtype)
    slot = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(rank)
    return jnp.minimum(slot, rank.shape[1] - 1)
