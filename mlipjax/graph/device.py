"""Neighbour tables inside compiled programs, for molecular dynamics.

``jax_md.custom_partition.neighbor_list_multi_image`` finds the edges (it is right for any cell, while
``jax_md.partition.neighbor_list`` misses images once the cutoff exceeds half the cell); this module repacks
them into the dense rows of a ``GraphBatch``. All sizes are static, so a table is rebuilt without compiling
again, under ``vmap`` over replicas and with a changing cell; ``overflow`` says when a size did not suffice.

A table holds all pairs within cutoff + skin. It stays valid until a pair may have crossed the skin, which
``needs_rebuild`` decides; edges between cutoff and cutoff + skin stay in the rows, as the potential's cutoff
function is zero there.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.graph.batch import GraphBatch
from mlipjax.graph.verlet import VerletSpec
from mlipjax.lattice import completed
from mlipjax.precision import exact
from mlipjax.typing import Array, Bool, Cell, EdgeMask, Int, Neighbors, Positions, Shifts


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
    lattice = completed(cell, spec.pbc, jnp)
    periodic = np.array(spec.pbc)
    image = jnp.where(periodic, jnp.floor(positions @ jnp.linalg.inv(lattice)), 0)
    first, second, shifts, search_overflow = _search(spec, positions - image @ lattice, lattice)
    rows = _dense_rows(spec, len(positions), first, second, shifts)
    neighbors, shifts, edge_mask, reverse, row_overflow = rows
    # back from atoms wrapped into the cell to atoms where they are
    image = image.astype(jnp.int32)
    shifts = jnp.where(edge_mask[..., None], shifts + image[:, None, :] - image[neighbors], 0)
    return DenseTable(
        neighbors=neighbors,
        shifts=shifts,
        edge_mask=edge_mask,
        reverse=reverse,
        reference_positions=positions,
        reference_cell=cell,
        overflow=search_overflow | row_overflow | ~jnp.all(jnp.isfinite(positions)),
    )


@exact
def needs_rebuild(spec: VerletSpec, table: DenseTable, positions: Positions, cell: Cell) -> Bool[Array, ""]:
    """Return whether a pair missing from the table may have come within the cutoff.

    With the deformation ``F = h_ref^-1 h`` of the lattice and the displacements ``u = r - r_ref F`` beyond
    it, a pair at least cutoff + skin apart then is still ``(1 - |F - 1|) (cutoff + skin) - 2 max|u|`` apart
    now. A position wrapped into the cell since the build is a displacement and asks for a rebuild, as does
    one that is not finite.

    Args:
        spec: sizes the table was built with.
        table: as built.
        positions: (n, 3) Å, now.
        cell: (3, 3) Å, now.
    """
    lattice, reference = (completed(c, spec.pbc, jnp) for c in (cell, table.reference_cell))
    deformation = jnp.linalg.inv(reference) @ lattice
    strain = jnp.linalg.norm(deformation - np.eye(3, dtype=positions.dtype))
    displacement = positions - table.reference_positions @ deformation
    furthest = jnp.sqrt(jnp.max(jnp.sum(displacement**2, axis=-1)))
    return ~((1.0 - strain) * spec.reach - 2.0 * furthest >= spec.cutoff)


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


def _search(
    spec: VerletSpec, wrapped: Positions, lattice: Cell
) -> tuple[Int[Array, " E"], Int[Array, " E"], Int[Array, "E 3"], Bool[Array, ""]]:
    """jax-md's edge list of atoms within the cell, with one of each two opposite translations.

    jax-md would search all translations; half of them take half the time, and the other half of the edges
    follows by reversal.
    """
    box = lattice.T  # jax-md wants lattice vectors as columns
    with jax.ensure_compile_time_eval():
        # imported here, as jax-md takes seconds to import and only molecular dynamics searches on the device;
        # outside the trace, as it computes constants while it is imported
        from jax_md.custom_partition import NeighborListMultiImage, neighbor_list_multi_image
        from jax_md.partition import NeighborListFormat

        # the box given here sets only a default stencil, which ours replaces
        search: Any = neighbor_list_multi_image(
            None,
            jnp.eye(3) * spec.reach,
            spec.reach,
            pbc=jnp.array(spec.pbc),
            fractional_coordinates=False,
            format=NeighborListFormat.Sparse,
        )
    stencil = np.array(list(itertools.product(*(range(-m, m + 1) for m in spec.images))), np.int32)
    neighbor_list: Any = NeighborListMultiImage
    empty = neighbor_list(
        idx=(jnp.zeros(spec.n_edges, jnp.int32), jnp.zeros(spec.n_edges, jnp.int32)),
        shifts=jnp.zeros((spec.n_edges, 3), jnp.int32),
        reference_position=wrapped,
        reference_box=box,
        box=box,
        search_shifts=jnp.asarray(stencil[len(stencil) // 2 :]),
        format=NeighborListFormat.Sparse,
        max_occupancy=spec.n_edges,
        update_fn=search.update,
    )
    # jax-md broadcasts between ranks
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        # with x64 enabled jax-md scatters 64-bit indices into 32-bit arrays; they are small numbers
        warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
        # raises its flag when the list is too short or the cell has become too thin for the stencil
        found = search.update(wrapped, empty, box=box)
    return *found.idx, found.shifts, found.did_buffer_overflow


def _dense_rows(
    spec: VerletSpec,
    n_atoms: int,
    first: Int[Array, " E"],
    second: Int[Array, " E"],
    shifts: Int[Array, "E 3"],
) -> tuple[Neighbors, Shifts, EdgeMask, Neighbors, Bool[Array, ""]]:
    """Mirror the edges of the half stencil and sort both directions into rows."""
    n_edges, width = spec.n_edges, spec.n_candidates
    if (n_atoms + 1) * 2 * n_edges >= 2**32:
        raise ValueError(f"{n_atoms} atoms with {n_edges} edges are too many for a device table.")
    # translation zero comes in both directions already; unused entries have first == n_atoms
    once = (first < n_atoms) & (jnp.any(shifts != 0, axis=1) | (first < second))
    rows = jnp.where(once, jnp.stack([first, second]), n_atoms).reshape(-1)
    columns = jnp.concatenate([second, first])
    shifts = jnp.concatenate([shifts, -shifts])

    # sorting one integer that holds row and edge is several times faster than an argsort on CPU
    keys = jnp.sort(rows.astype(jnp.uint32) * (2 * n_edges) + jnp.arange(2 * n_edges, dtype=jnp.uint32))
    edge, row = (keys % (2 * n_edges)).astype(jnp.int32), (keys // (2 * n_edges)).astype(jnp.int32)
    ends = jnp.searchsorted(row, jnp.arange(n_atoms + 1, dtype=jnp.int32), side="right").astype(jnp.int32)
    starts = jnp.concatenate([jnp.zeros(1, jnp.int32), ends[:-1]])
    counts = (ends - starts)[:n_atoms, None]
    slot = row * width + jnp.arange(2 * n_edges, dtype=jnp.int32) - starts[row]
    slot_of_edge = jnp.zeros(2 * n_edges, jnp.int32).at[edge].set(slot, unique_indices=True)

    k = jnp.arange(width, dtype=jnp.int32)[None, :]
    edge_mask = k < counts
    own = jnp.arange(n_atoms, dtype=jnp.int32)[:, None]
    source = edge[jnp.minimum(starts[:n_atoms, None] + k, 2 * n_edges - 1)]
    opposite = (source + n_edges) % (2 * n_edges)
    neighbors = jnp.where(edge_mask, columns[source], own)
    reverse = jnp.where(edge_mask, slot_of_edge[opposite], own * width + k)
    return neighbors, shifts[source], edge_mask, reverse, jnp.any(counts > width)
