"""M structures of the same atoms, evaluated as one batch at positions that move.

Candidates within cutoff + skin are found on the host, for every structure at its own positions. Each evaluation packs
those within the cutoff, as molecular dynamics does, and says whether a pair may have been missed (an atom moved more
than half the skin) or did not fit; whoever asked then finds candidates anew and evaluates the same positions again.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.graph import (
    DenseTable,
    VerletSpec,
    fold_graphs,
    graph_from_table,
    needs_rebuild,
    neighbor_table,
    pack_edges,
)
from mlipjax.graph.pad import stack_tables
from mlipjax.potential import Potential
from mlipjax.relaxation.cell import Coordinates
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Float, Int, Params


@struct.dataclass
class Batch:
    """Shared data of M structures, and where their candidates were found.

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
        positions: (M, N, 3) Å.
        cells: (M, 3, 3) Å.
        node_energy: (M, N) interaction energy per atom, eV.
        forces: (M, N, 3) eV/Å.
        virial: (M, 3, 3) eV, stress times volume; zero for coordinates without strains.
        stale: () edges may be missing.
        n_neighbors: () most neighbours of an atom; with more than there are slots, edges are missing.
    """

    positions: Float[Array, "M N 3"]
    cells: Float[Array, "M 3 3"]
    node_energy: Float[Array, "M N"]
    forces: Float[Array, "M N 3"]
    virial: Float[Array, "M 3 3"]
    stale: Bool[Array, ""]
    n_neighbors: Int[Array, ""]


def build_batch(spec: VerletSpec, systems: Sequence[System], head: int, dtype: Any) -> tuple[Batch, VerletSpec]:
    """Find the candidates of all structures on the host; returns the sizes too, larger ones if they had to grow.

    Raises:
        ValueError: if the structures are refused by ``mlipjax.graph.neighbor_table``.
    """
    found = [neighbor_table(system, spec.reach) for system in systems]
    if max(table.max_count for table in found) > spec.n_candidates:
        spec = spec.grown(systems)
    rows = [stack_tables([table], table.n_atoms, spec.n_candidates) for table in found]
    positions, cells = (np.stack([getattr(s, name) for s in systems]).astype(dtype) for name in ("positions", "cell"))
    columns: list[Any] = [*map(np.stack, zip(*rows, strict=True)), positions, cells, np.zeros(len(systems), bool)]
    numbers: Any = np.asarray(systems[0].atomic_numbers, np.int32)
    return jax.tree.map(jnp.asarray, Batch(numbers, jnp.int32(head), DenseTable(*columns))), spec


@partial(jax.jit, static_argnames=("potential", "spec"))
def evaluate(
    potential: Potential,
    spec: VerletSpec,
    params: Params,
    batch: Batch,
    coordinates: Coordinates,
    x: Float[Array, "M D"],
) -> Evaluation:
    """Energies and forces of all structures in one call of the potential."""
    positions, cells, _ = coordinates.place(x)

    def pack(table: DenseTable, position: Array, cell: Array) -> tuple[Any, Array, Array]:
        candidates = graph_from_table(batch.atomic_numbers, batch.head, table, position, cell)
        return *pack_edges(candidates, spec.cutoff, spec.n_neighbors), needs_rebuild(spec, table, position, cell)

    graphs, counts, too_far = jax.vmap(pack)(batch.tables, positions, cells)
    prediction = potential.apply(params, fold_graphs(graphs), stress=coordinates.strains.shape[1] > 0)
    return Evaluation(
        positions=positions,
        cells=cells,
        node_energy=prediction.node_energy.reshape(positions.shape[:2]),
        forces=prediction.forces.reshape(positions.shape),
        virial=prediction.stress * jnp.abs(jnp.linalg.det(cells))[:, None, None],
        stale=jnp.any(too_far) | (jnp.max(counts) > spec.n_neighbors),
        n_neighbors=jnp.max(counts),
    )
