"""Batches of a data set, chosen so that few shapes are compiled and little is padded.

A batch costs about ``N * K`` (padded atoms times neighbour slots). Structures are divided by their largest
neighbour count into a few classes, each with one ``K``; within a class, batches are filled so that all have
nearly the same number of atoms, each a cross-section from large to small structures.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

# Sizes of a plan are rounded up to a multiple of this: data of the same kind then fit the compiled programs.
_MULTIPLE = 4


@dataclasses.dataclass(frozen=True)
class BatchPlan:
    """Members and padded sizes of one batch, to be handed to ``batch_graphs``.

    Attributes:
        indices: structures of the data set.
        n_atoms, n_neighbors, n_graphs: padded sizes ``N``, ``K``, ``G``.
    """

    indices: tuple[int, ...]
    n_atoms: int
    n_neighbors: int
    n_graphs: int

    @property
    def sizes(self) -> dict[str, Any]:
        """The padded sizes as arguments of ``batch_graphs``."""
        return {"n_atoms": self.n_atoms, "n_neighbors": self.n_neighbors, "n_graphs": self.n_graphs}

    def split(self, count: int, n_atoms: Sequence[int] | np.ndarray) -> list[BatchPlan]:
        """Divide a batch into at most ``count`` of one shape; equals exchanged in it leave the shape as it is.

        Args:
            count: 1 or more.
            n_atoms: of every structure of the data set.
        """
        if count == 1:
            return [self]
        atoms, parts = np.asarray(n_atoms), [self.indices[i::count] for i in range(min(count, len(self.indices)))]
        largest = _round_up(np.max([atoms[list(part)].sum() for part in parts]))
        return [BatchPlan(part, int(largest), self.n_neighbors, -(-self.n_graphs // count)) for part in parts]


def plan_batches(
    n_atoms: Sequence[int] | np.ndarray,
    max_neighbors: Sequence[int] | np.ndarray,
    batch_size: int,
    *,
    n_widths: int = 4,
    n_lengths: int = 2,
) -> list[BatchPlan]:
    """Divide a data set into batches of at most ``n_widths * n_lengths`` different shapes.

    Every structure is in one batch. Batches are full, except those of the largest ``K``, among which the
    structures are divided evenly. The plan depends on the sizes alone; ``shuffle_plan`` draws an epoch.

    Args:
        n_atoms: number of atoms of each structure.
        max_neighbors: largest number of neighbours of an atom, by structure (``NeighborTable.max_count``).
        batch_size: structures per batch.
        n_widths: different ``K`` allowed.
        n_lengths: different ``N`` allowed for each ``K``.

    Raises:
        ValueError: if the lists differ in length or are empty, or one of the numbers is not positive.
    """
    atoms, needed = np.asarray(n_atoms), np.asarray(max_neighbors)
    if len(atoms) == 0 or atoms.shape != needed.shape:
        raise ValueError(f"found {len(atoms)} atom counts and {len(needed)} neighbour counts; give one each.")
    if min(batch_size, n_widths, n_lengths) < 1:
        raise ValueError(f"{batch_size=}, {n_widths=} and {n_lengths=} must be positive.")
    needed = _round_up(np.maximum(needed, 1))
    widths = _covering_sizes(needed, atoms, n_widths)
    n_graphs = min(batch_size, len(atoms))
    plans: list[BatchPlan] = []
    rest = np.zeros(0, int)
    for width in widths:
        members = np.concatenate([rest, np.flatnonzero(widths[np.searchsorted(widths, needed)] == width)])
        # the smallest ones that do not fill a batch fit into the wider rows of the next class too
        members = members[np.argsort(-atoms[members], kind="stable")]
        full = len(members) if width == widths[-1] else len(members) // n_graphs * n_graphs
        members, rest = members[:full], members[full:]
        batches = _balanced(members, atoms, n_graphs)
        totals = _round_up(np.array([atoms[batch].sum() for batch in batches], int))
        lengths = _covering_sizes(totals, np.ones_like(totals), n_lengths)
        plans += [
            BatchPlan(tuple(batch.tolist()), int(lengths[np.searchsorted(lengths, total)]), int(width), n_graphs)
            for batch, total in zip(batches, totals, strict=True)
        ]
    return plans


def shuffle_plan(
    plans: Sequence[BatchPlan], n_atoms: Sequence[int] | np.ndarray, rng: np.random.Generator
) -> list[BatchPlan]:
    """Draw an epoch: batches in random order, and structures of equal size and ``K`` exchanged at random.

    Exchanging equals leaves every batch's sizes as they are, so no epoch brings a new shape.

    Args:
        plans: of ``plan_batches``.
        n_atoms: of every structure of the data set.
        rng: decides the order.
    """
    atoms = np.asarray(n_atoms)
    members = np.concatenate([np.array(plan.indices) for plan in plans])
    widths = np.concatenate([np.full(len(plan.indices), plan.n_neighbors) for plan in plans])
    drawn = members.copy()
    for size, width in sorted(set(zip(atoms[members].tolist(), widths.tolist(), strict=True))):
        equal = np.flatnonzero((atoms[members] == size) & (widths == width))
        drawn[equal] = members[rng.permutation(equal)]
    parts = np.split(drawn, np.cumsum([len(plan.indices) for plan in plans])[:-1])
    shuffled = [
        dataclasses.replace(plan, indices=tuple(part.tolist())) for plan, part in zip(plans, parts, strict=True)
    ]
    return [shuffled[index] for index in rng.permutation(len(shuffled))]


def _balanced(members: np.ndarray, atoms: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split ``members`` (large to small) into batches with nearly equal sums of atoms.

    Takes as many structures as there are batches at a time, and gives the largest to the batch with the
    smallest sum so far: the rule "longest processing time first" of scheduling (Graham, SIAM J. Appl. Math.
    17, 416 (1969)).
    """
    n_batches = -(-len(members) // batch_size)
    batches: list[list[int]] = [[] for _ in range(n_batches)]
    sums = np.zeros(n_batches, int)
    for start in range(0, len(members), max(n_batches, 1)):
        layer = members[start : start + n_batches]
        receivers = np.argsort(sums, kind="stable")[: len(layer)]
        sums[receivers] += atoms[layer]
        for batch, member in zip(receivers, layer, strict=True):
            batches[batch].append(int(member))
    return [np.array(batch) for batch in batches]


def _covering_sizes(needed: np.ndarray, weights: np.ndarray, n_sizes: int) -> np.ndarray:
    """At most ``n_sizes`` sizes, ascending, so that giving each entry the next size above wastes least.

    Minimises the weighted sum of the sizes given, by dynamic programming over the distinct entries.
    """
    if len(needed) == 0:
        return np.zeros(0, int)
    sizes, inverse = np.unique(needed, return_inverse=True)
    below = np.concatenate([[0.0], np.cumsum(np.bincount(inverse, weights=weights))])
    # cost[j]: entries among the j smallest sizes covered; the last group, from i to j - 1, gets sizes[j - 1]
    cost, choices = np.where(np.arange(len(sizes) + 1) == 0, 0.0, np.inf), []
    for _ in range(min(n_sizes, len(sizes))):
        last_group = cost[:, None] + np.where(
            np.arange(len(sizes) + 1)[:, None] < np.arange(1, len(sizes) + 1),
            (below[1:] - below[:, None]) * sizes,
            np.inf,
        )
        choices.append(last_group.argmin(axis=0))
        cost = np.append(np.inf, last_group.min(axis=0))
    end, chosen = len(sizes), []
    for choice in reversed(choices):
        if end == 0:
            break
        chosen.append(sizes[end - 1])
        end = int(choice[end - 1])
    return np.array(chosen[::-1])


def _round_up(values: np.ndarray) -> np.ndarray:
    return -(-values // _MULTIPLE) * _MULTIPLE
