"""Replicas at given positions: their edges, their distances, and the one call of the potential."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.elements import covalent_radii
from mlipjax.graph import DenseTable, GraphBatch, VerletSpec, fold_graphs, graph_from_table, needs_rebuild, pack_edges
from mlipjax.md.dynamics import Dynamics
from mlipjax.md.observables import closest_contact
from mlipjax.potential import Potential
from mlipjax.typing import Array, AtomicNumbers, Bool, Float, Int, Params


@struct.dataclass
class Geometry:
    """Distances in one replica, and whether its tables hold every edge.

    Attributes:
        min_distance: () Å, shortest distance between two atoms; infinite without neighbours.
        contact_ratio: () smallest distance relative to the sum of the atoms' covalent radii.
        displacement: () Å, furthest an atom is from where it was when the candidates were found.
        n_neighbors: () largest number of neighbours of an atom.
        overflow: () true if the candidates or the edges did not fit their tables.
        moved_too_far: () true if a pair that is no candidate may have come within the cutoff.
    """

    min_distance: Float[Array, ""]
    contact_ratio: Float[Array, ""]
    displacement: Float[Array, ""]
    n_neighbors: Int[Array, ""]
    overflow: Bool[Array, ""]
    moved_too_far: Bool[Array, ""]


def observe(
    spec: VerletSpec, atomic_numbers: AtomicNumbers, head: Int[Array, ""], table: DenseTable, dynamics: Dynamics
) -> tuple[GraphBatch, Geometry]:
    """Pack the edges of one replica and measure its distances; no gradient passes through either.

    Args:
        spec: static sizes.
        atomic_numbers: (N,).
        head: () index of the energy head.
        table: candidates, found earlier.
        dynamics: where the atoms are now.
    """
    candidates = graph_from_table(atomic_numbers, head, table, dynamics.position, dynamics.cell)
    graph, n_neighbors = pack_edges(candidates, spec.cutoff, spec.n_neighbors)
    still = jax.lax.stop_gradient(graph)
    position, cell = still.positions, still.cells[0]
    radii = jnp.asarray(covalent_radii(), position.dtype)[atomic_numbers]
    min_distance, contact_ratio = closest_contact(still, radii)
    moved = position - jax.lax.stop_gradient(table.reference_positions)
    geometry = Geometry(
        min_distance=min_distance,
        contact_ratio=contact_ratio,
        displacement=jnp.sqrt(jnp.max(jnp.sum(moved**2, axis=-1))),
        n_neighbors=n_neighbors,
        overflow=table.overflow | (n_neighbors > spec.n_neighbors),
        moved_too_far=needs_rebuild(spec, table, position, cell),
    )
    return graph, geometry


def evaluate(potential: Potential, params: Params, graphs: GraphBatch, dynamics: Dynamics, stress: bool) -> Dynamics:
    """Put energy, forces and stress of the potential into R replicas.

    All replicas go through the potential as one batch of structures: its blocks of atoms then stay as small as for one
    replica, where ``vmap`` would make every block R times larger.

    Args:
        potential: what to evaluate.
        params: its parameters, shared by the replicas.
        graphs: the replicas' edges, with a leading axis (R, ...).
        dynamics: where to put the results, with a leading axis (R, ...).
        stress: whether stress is wanted.
    """
    prediction = potential.apply(params, fold_graphs(graphs), stress=stress)
    return dynamics.set(
        force=prediction.forces.reshape(dynamics.force.shape), energy=prediction.energy, stress=prediction.stress
    )
