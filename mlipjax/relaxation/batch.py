"""M structures of the same atoms, evaluated as one batch at positions that move inside a compiled loop.

Candidates within cutoff + skin are found on the host, for every structure at its own positions. Each evaluation packs
those within the cutoff, as molecular dynamics does, and says whether a pair may have been missed (an atom moved more
than half the skin) or did not fit; the caller then rebuilds on the host and evaluates the same positions again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.graph import (
    DenseTable,
    DeviceTableSpec,
    bucket_size,
    fold_graphs,
    graph_from_table,
    needs_rebuild,
)
from mlipjax.graph import neighbor_table as host_table
from mlipjax.graph.verlet import pack_edges
from mlipjax.potential import Potential
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Float, Int, Params

SKIN = 1.0
"""Default skin in Å: an atom may move half of it before candidates are searched again."""

_MARGIN = 0.2  # Å; slots are sized for the neighbours within cutoff + margin
_HEADROOM = 1.1


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """Static sizes of a batch; hashable.

    Attributes:
        table: cutoff, skin, candidate slots and periodicity (its search sizes are not used).
        n_neighbors: slots per atom that the potential sees.
    """

    table: DeviceTableSpec
    n_neighbors: int

    @classmethod
    def for_systems(
        cls, systems: Sequence[System], cutoff: float, skin: float = SKIN, n_neighbors: int = 0
    ) -> BatchSpec:
        """Sizes that hold the structures with some room.

        Args:
            systems: structures that differ in positions and cell only.
            cutoff: Å, of the potential.
            skin: Å.
            n_neighbors: smallest number of slots, where more are known to be needed.

        Raises:
            ValueError: if the structures are refused by ``mlipjax.graph.neighbor_table``.
        """
        candidates = max(host_table(system, cutoff + skin).max_count for system in systems)
        edges = max(host_table(system, cutoff + _MARGIN).max_count for system in systems)
        wide = bucket_size(max(int(np.ceil(_HEADROOM * candidates)), 1), 4)
        table = DeviceTableSpec(float(cutoff), float(skin), 0, wide, (0, 0, 0), systems[0].pbc)
        return cls(table, -(-max(edges, n_neighbors, 1) // 4) * 4)

    def holding(self, other: BatchSpec) -> BatchSpec:
        """Sizes that hold whatever this or the other spec holds; cutoff, skin and periodicity are those of ``self``."""
        slots = max(self.table.n_neighbors, other.table.n_neighbors)
        table = dataclasses.replace(self.table, n_neighbors=slots)
        return BatchSpec(table, max(self.n_neighbors, other.n_neighbors))


@struct.dataclass
class Batch:
    """What M structures share, and where their candidates were found.

    Attributes:
        atomic_numbers: (N,).
        head: () index of the energy head.
        tables: candidates, with a leading axis (M, ...).
    """

    atomic_numbers: Int[Array, " N"]
    head: Int[Array, ""]
    tables: DenseTable


class Evaluation(NamedTuple):
    """Energies and forces of M structures, and whether they can be trusted.

    Attributes:
        node_energy: (M, N) interaction energy per atom, eV.
        forces: (M, N, 3) eV/Å.
        virial: (M, 3, 3) eV, derivative of the energy with respect to strain; zero if stress was not asked for.
        moved_too_far: () a pair that is no candidate may have come within the cutoff.
        n_neighbors: () most neighbours of an atom; more than the slots means edges are missing.
    """

    node_energy: Float[Array, "M N"]
    forces: Float[Array, "M N 3"]
    virial: Float[Array, "M 3 3"]
    moved_too_far: Bool[Array, ""]
    n_neighbors: Int[Array, ""]


def build_batch(spec: BatchSpec, systems: Sequence[System], head: int, dtype: Any) -> Batch:
    """Find the candidates of all structures on the host.

    Raises:
        ValueError: if the candidates do not fit the slots of ``spec``.
    """
    tables = [host_table(system, spec.table.reach, spec.table.n_neighbors) for system in systems]
    columns: Any = {
        "neighbors": np.stack([table.neighbors for table in tables]),
        "shifts": np.stack([table.shifts for table in tables]),
        "edge_mask": np.stack([table.mask for table in tables]),
        "reverse": np.stack([table.reverse for table in tables]),
        "reference_positions": np.stack([np.asarray(system.positions, dtype) for system in systems]),
        "reference_cell": np.stack([np.asarray(system.cell, dtype) for system in systems]),
        "overflow": np.zeros(len(systems), bool),
    }
    numbers: Any = np.asarray(systems[0].atomic_numbers, np.int32)
    return Batch(numbers, jnp.asarray(head, jnp.int32), DenseTable(**columns))


def evaluate(
    potential: Potential,
    spec: BatchSpec,
    params: Params,
    batch: Batch,
    positions: Float[Array, "M N 3"],
    cells: Float[Array, "M 3 3"],
    stress: bool = False,
) -> Evaluation:
    """Energies and forces of all structures in one call of the potential; pure, to be traced."""

    def pack(table: DenseTable, position: Array, cell: Array) -> tuple[Any, Array, Array]:
        candidates = graph_from_table(batch.atomic_numbers, batch.head, table, position, cell)
        graph, count = pack_edges(candidates, spec.table.cutoff, spec.n_neighbors)
        return graph, count, needs_rebuild(spec.table, table, position, cell)

    graphs, counts, too_far = jax.vmap(pack)(batch.tables, positions, cells)
    prediction = potential.apply(params, fold_graphs(graphs), stress=stress)
    volume = jnp.abs(jnp.linalg.det(cells))
    return Evaluation(
        node_energy=prediction.node_energy.reshape(positions.shape[:2]),
        forces=prediction.forces.reshape(positions.shape),
        virial=prediction.stress * volume[:, None, None],
        moved_too_far=jnp.any(too_far),
        n_neighbors=jnp.max(counts),
    )
