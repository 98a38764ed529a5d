"""Verlet lists: candidates within cutoff plus skin, found now and then; edges within the cutoff, at every step.

A model's cost grows with the slots of the dense table, and a skin adds ``(1 + skin / cutoff)^3 - 1`` of them (28 %
for 0.5 Å on 6 Å). So the table of candidates is never handed to the model: each step packs the candidates that are
within the cutoff into a table without skin, which costs about a percent of a step and allows a generous skin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph.batch import GraphBatch, edge_vectors
from mlipjax.graph.bins import AT_ONCE, Bins, choose_bins
from mlipjax.graph.host import neighbor_table
from mlipjax.graph.pad import neighbor_bucket
from mlipjax.lattice import completed, inverse
from mlipjax.precision import exact
from mlipjax.reading import shown
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Cell, Int, Positions

SKIN = 1.0
"""Default skin in Å: an atom may move half of it before candidates are searched again."""

_FLUCTUATION = 0.15  # Å; slots are for neighbours within cutoff + this: as many as thermal motion mostly brings in
_HEADROOM = 1.1  # on the numbers of candidates
_MULTIPLE = 4  # of slots
_COUNTED = 1.05  # times a number of neighbours that was too large: a slow densification asks for several at once
_MOST, _LONGEST = 10**9, 1e3  # slots, and Å, in a file that is no nonsense


@dataclasses.dataclass(frozen=True)
class VerletSpec:
    """Static sizes of Verlet lists; hashable, so it can be a static argument of ``jax.jit``.

    Attributes:
        cutoff: Å, of the potential.
        skin: Å, added to the cutoff when candidates are searched; not negative.
        pbc: periodicity along the three lattice vectors.
        has_volume: whether the cell has one, so that there is a stress.
        bins: sizes of the search.
        n_candidates: slots per atom for pairs within cutoff + skin.
        n_neighbors: slots per atom for pairs within the cutoff: those that the potential sees.
    """

    cutoff: float
    skin: float
    pbc: tuple[bool, bool, bool]
    has_volume: bool
    bins: Bins
    n_candidates: int
    n_neighbors: int

    @property
    def reach(self) -> float:
        """Largest distance of candidates: cutoff + skin, in Å."""
        return self.cutoff + self.skin

    def searched_at_once(self, n_atoms: int) -> int:
        """Number of structures of so many atoms that are searched at the same time in bounded memory."""
        return max(1, AT_ONCE // (self.bins.partners * n_atoms))

    @classmethod
    def for_systems(
        cls, systems: Sequence[System], cutoff: float, skin: float = SKIN, n_neighbors: int = 0
    ) -> VerletSpec:
        """Sizes with some room for structures that differ in positions and cell only.

        Args:
            systems: the states to hold, at least one.
            cutoff: Å, of the potential.
            skin: Å; wider means fewer searches and more candidates.
            n_neighbors: smallest number of slots, where more are known to be needed.

        Raises:
            ValueError: for a negative skin or a system that ``neighbor_table`` refuses.
        """
        if not skin >= 0.0:
            raise ValueError(f"found a skin of {skin} Å; it must be 0 or more.")
        found = [neighbor_table(system, cutoff + skin).max_count for system in systems]
        within = [neighbor_table(system, cutoff + _FLUCTUATION).max_count for system in systems]
        return cls(
            cutoff=float(cutoff),
            skin=float(skin),
            pbc=systems[0].pbc,
            has_volume=bool(abs(np.linalg.det(np.asarray(systems[0].cell, np.float64))) > 0.0),
            bins=choose_bins(systems, cutoff + skin),
            n_candidates=_roomy(max(found)),
            n_neighbors=-(-max(*within, n_neighbors, 1) // _MULTIPLE) * _MULTIPLE,
        )

    def grown(self, systems: Sequence[System], n_neighbors: int = 0) -> VerletSpec:
        """Larger sizes after an overflow, none of them smaller than before unless there are fewer, larger bins.

        Args:
            systems: states that are to fit.
            n_neighbors: largest number of neighbours that was counted.
        """
        found = VerletSpec.for_systems(systems, self.cutoff, self.skin, int(np.ceil(_COUNTED * n_neighbors)))
        larger = dataclasses.replace(
            self,
            bins=self.bins.joined(choose_bins(systems, self.reach, at_most=self.bins.number)),
            n_candidates=max(self.n_candidates, found.n_candidates),
            n_neighbors=max(self.n_neighbors, found.n_neighbors),
        )
        if larger != self:
            return larger
        # these states fit: what did not was one between them
        return dataclasses.replace(
            self,
            bins=self.bins.grown(self.pbc),
            n_candidates=_roomy(self.n_candidates),
            n_neighbors=self.n_neighbors + _MULTIPLE,
        )

    def to_json(self) -> dict[str, Any]:
        """Fields in JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> VerletSpec:
        """The inverse of ``to_json``; reads the nested fields that were written before, too.

        Raises:
            ValueError: for numbers that are no sizes.
            KeyError, TypeError: if fields are missing or of other types.
        """
        if "candidates" in fields:
            nested = fields["candidates"]
            counts = {"n_candidates": nested["n_neighbors"], "n_neighbors": fields["n_neighbors"]}
            fields = {**nested, **counts, "has_volume": fields["periodic"]}
        if "images" in fields:
            fields = {**fields, "bins": ((1, 1, 1), fields["images"], _MOST)}
            fields = {name: value for name, value in fields.items() if name not in ("images", "n_edges")}
        number, images, occupancy = fields["bins"]
        bins = Bins(tuple(number), tuple(images), occupancy)
        spec = cls(**{**fields, "bins": bins, "pbc": tuple(fields["pbc"])})
        counts = (spec.n_candidates, spec.n_neighbors, occupancy, *bins.number, *bins.images)
        lengths = (spec.cutoff, spec.skin)
        if (
            not all(type(count) is int and 0 <= count <= _MOST for count in counts)
            or not all(type(length) in (int, float) and 0.0 <= length <= _LONGEST for length in lengths)
            or [type(flag) for flag in (*spec.pbc, spec.has_volume)] != [bool] * 4
            or (len(bins.number), len(bins.images), min(bins.number)) < (3, 3, 1)
        ):
            raise ValueError(f"found {shown(dict(fields))}; expected sizes of neighbour tables.")
        return spec


def _roomy(needed: int) -> int:
    return neighbor_bucket(int(np.ceil(_HEADROOM * needed)))


def pack_edges(candidates: GraphBatch, cutoff: float, n_neighbors: int) -> tuple[GraphBatch, Int[Array, ""]]:
    """Keep the edges of one structure that are shorter than the cutoff now, in a table of ``n_neighbors`` slots.

    Edges keep their order. No gradient passes through the choice: an edge has no effect at the cutoff.

    Args:
        candidates: one structure whose table holds every pair that may be an edge, both directions of each.
        cutoff: Å.
        n_neighbors: slots per atom.

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


@exact
def left_skin(
    cutoff: float,
    skin: float,
    pbc: tuple[bool, bool, bool],
    then: tuple[Positions, Cell],
    now: tuple[Positions, Cell],
) -> Bool[Array, ""]:
    """Return whether a pair that was further apart than cutoff + skin may have come within the cutoff.

    With the deformation ``F = h_then^-1 h`` of the lattice and the displacements ``u = r - r_then F`` beyond it, such a
    pair is still ``(1 - |F - 1|) (cutoff + skin) - 2 max|u|`` apart now. A position wrapped into the cell since then is
    a displacement, and a position that is not finite may be anywhere.

    Args:
        cutoff: Å.
        skin: Å.
        pbc: periodicity along the three lattice vectors.
        then: positions (n, 3) and cell (3, 3) in Å at the search.
        now: the same, now.
    """
    (reference_positions, reference_cell), (positions, cell) = then, now
    lattice, reference = (completed(c, pbc, jnp) for c in (cell, reference_cell))
    deformation = inverse(reference, jnp) @ lattice
    strain = jnp.linalg.norm(deformation - np.eye(3, dtype=positions.dtype))
    displacement = positions - reference_positions @ deformation
    furthest = jnp.sqrt(jnp.max(jnp.sum(displacement**2, axis=-1)))
    return ~((1.0 - strain) * (cutoff + skin) - 2.0 * furthest >= cutoff)


def _first_slot_with_rank(rank: Int[Array, "N K"], n_neighbors: int) -> Int[Array, "N k"]:
    """Slot at which each row's running count reaches 1, 2, ..., ``n_neighbors``; the last slot if it never does.

    A binary search per output: no scatter, which is slow on CPUs and not deterministic on GPUs.
    """
    wanted = jnp.arange(1, n_neighbors + 1, dtype=rank.dtype)
    slot = jax.vmap(lambda row: jnp.searchsorted(row, wanted))(rank)
    return jnp.minimum(slot, rank.shape[1] - 1)
