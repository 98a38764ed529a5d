"""Neighbour tables inside compiled programs, for molecular dynamics.

All sizes are static, so a table is rebuilt without compiling again, under ``vmap`` over replicas and with a changing
cell; ``overflow`` says when a size did not suffice.

A table holds all pairs within cutoff + skin. It stays valid until a pair may have crossed the skin, which
``needs_rebuild`` decides; edges between cutoff and cutoff + skin stay in the rows, as the potential's cutoff
function is zero there.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.graph.batch import GraphBatch
from mlipjax.graph.bins import find_pairs
from mlipjax.graph.verlet import VerletSpec, left_skin
from mlipjax.precision import exact
from mlipjax.typing import Array, Bool, Cell, EdgeMask, Neighbors, Positions, Shifts


@struct.dataclass
class DenseTable:
    """Neighbours in dense rows, as in ``GraphBatch``, and the state they were built at.

    Attributes:
        neighbors, shifts, edge_mask, reverse: as in ``GraphBatch``.
        reference_positions: (n, 3) Å.
        reference_cell: (3, 3) Å.
        overflow: true if the static sizes did not hold all edges or a position was not finite; the table must
            then not be used.
    """

    neighbors: Neighbors
    shifts: Shifts
    edge_mask: EdgeMask
    reverse: Neighbors
    reference_positions: Positions
    reference_cell: Cell
    overflow: Bool[Array, ""]


@exact
def build_table(spec: VerletSpec, positions: Positions, cell: Cell) -> DenseTable:
    """Find all pairs within cutoff + skin; jit-able and vmap-able, not differentiable (tables are integers).

    Args:
        spec: static sizes.
        positions: (n, 3) Å; atoms may be anywhere, inside the cell or not.
        cell: (3, 3) Å, rows are lattice vectors; those of directions without periodicity are not used.
    """
    positions, cell = jax.lax.stop_gradient((positions, cell))
    pairs = find_pairs(spec.bins, spec.reach, spec.pbc, spec.n_candidates, positions, cell)
    return DenseTable(
        neighbors=pairs.neighbors,
        shifts=pairs.shifts,
        edge_mask=pairs.edge_mask,
        reverse=pairs.reverse,
        reference_positions=positions,
        reference_cell=cell,
        overflow=pairs.overflow | ~jnp.all(jnp.isfinite(positions)),
    )


def needs_rebuild(spec: VerletSpec, table: DenseTable, positions: Positions, cell: Cell) -> Bool[Array, ""]:
    """Return whether a pair missing from the table may have come within the cutoff (``left_skin``).

    Args:
        spec: sizes the table was built with.
        table: as built.
        positions: (n, 3) Å, now.
        cell: (3, 3) Å, now.
    """
    then = table.reference_positions, table.reference_cell
    return left_skin(spec.cutoff, spec.skin, spec.pbc, then, (positions, cell))


def graph_from_table(
    atomic_numbers: Array, head: Array, table: DenseTable, positions: Positions, cell: Cell
) -> GraphBatch:
    """One unpadded structure on the device, from its table: (n,) elements, () head, (n, 3) Å, (3, 3) Å.

    Args:
        atomic_numbers: (n,).
        head: () index of the energy head.
        table: of this structure.
        positions: (n, 3) Å.
        cell: (3, 3) Å, rows.
    """
    n_atoms = atomic_numbers.shape[0]
    return GraphBatch(
        positions=positions,
        atomic_numbers=atomic_numbers,
        cells=cell[None],
        neighbors=table.neighbors,
        shifts=table.shifts,
        edge_mask=table.edge_mask,
        reverse=table.reverse,
        graph_index=jnp.zeros((n_atoms,), jnp.int32),
        atom_mask=jnp.ones((n_atoms,), bool),
        graph_mask=jnp.ones((1,), bool),
        n_atoms=jnp.full((1,), n_atoms, jnp.int32),
        head=jnp.asarray(head, jnp.int32)[None],
    )
