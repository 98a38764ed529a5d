"""Batches of structures with one number each, read from disk when needed, in shapes that are fixed before training.

As with labelled structures (``batches``), neighbours are counted in one pass and all batches planned from the counts;
a batch above the limit is refused.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from flax import struct

from mlipjax.data.properties import PropertyData
from mlipjax.defaults import MAX_SLOTS
from mlipjax.graph import BatchPlan, GraphBatch, NeighborTable, batch_graphs, shuffle_plan
from mlipjax.potential import Potential
from mlipjax.system import System
from mlipjax.train.batches import KEEP_BYTES, SLOTS_PER_SHAPE, Tables, cheapest_plan
from mlipjax.typing import Key

# The gradient of a property takes a fifth of that of forces and half as long to compile.
_SLOTS_PER_SHAPE = 5 * SLOTS_PER_SHAPE // 2


@struct.dataclass
class PropertyBatch:
    """Structures and one number for each.

    Attributes:
        graph: the structures.
        targets: (G,) in the property's unit, 0 for padding.
    """

    graph: GraphBatch
    targets: Any


@struct.dataclass
class NoisyBatch:
    """Structures whose positions were displaced, and the displacements.

    Attributes:
        graph: the displaced structures.
        noise: (N, 3) displacement over its standard deviation.
    """

    graph: GraphBatch
    noise: Any


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyStream:
    """A property data set with the plan of its batches.

    Attributes:
        potential: cutoff and elements.
        data: structures and values.
        plans: batches; together every structure once.
        dtype: floating-point type of the batches.
        tables: neighbours of each structure; none is kept for displaced ones.
        noise: Å, standard deviation of displacements that batches will get, for which slots are reserved.
    """

    potential: Potential
    data: PropertyData
    plans: tuple[BatchPlan, ...]
    dtype: Any
    tables: Tables
    noise: float = 0.0

    @classmethod
    def create(
        cls,
        potential: Potential,
        data: PropertyData,
        batch_size: int,
        *,
        passes: float = 1.0,
        dtype: Any = np.float32,
        max_slots: int = MAX_SLOTS,
        noise: float = 0.0,
    ) -> PropertyStream:
        """Count neighbours and plan batches.

        Args:
            potential: what will be trained or evaluated.
            data: at least one structure.
            batch_size: structures per step.
            passes: how often the data set will be gone through: for many, more shapes are worth compiling.
            dtype: floating-point type of the batches.
            max_slots: limit of atoms times neighbour slots in a batch, for memory.
            noise: Å, standard deviation of the displacements of ``noisy_batch``.

        Raises:
            ValueError: for an empty data set, an element the potential does not know, or batches above ``max_slots``.
        """
        if len(data) == 0 or batch_size < 1:
            raise ValueError(f"found {len(data)} structures and a batch size of {batch_size}; both must be positive.")
        potential.check_elements(data.elements)
        systems = (data.system(index) for index in range(len(data)))
        # two neighbours may move towards each other, each by the largest displacement
        reach = potential.cutoff + 2.0 * _largest(noise)
        tables = Tables.find(systems, reach, KEEP_BYTES if noise == 0.0 else 0)
        size = min(batch_size, len(data))
        plans = cheapest_plan(tables.n_atoms, tables.max_counts, size, passes, _SLOTS_PER_SHAPE)
        plans = tuple(map(_coarse, plans)) if passes <= 1.0 else plans
        largest = max(plans, key=lambda plan: plan.n_atoms * plan.n_neighbors)
        if (slots := largest.n_atoms * largest.n_neighbors) > max_slots and largest.n_graphs > 1:
            raise ValueError(
                f"a batch of {largest.n_graphs} structures needs {largest.n_atoms} atoms x {largest.n_neighbors} "
                f"neighbours = {slots} slots, more than max_slots={max_slots}: choose a batch size of "
                f"{max(1, largest.n_graphs * max_slots // slots)}, or a larger max_slots if memory allows."
            )
        return cls(potential, data, plans, dtype, tables, noise)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every structure is seen once."""
        return len(self.plans)

    def batch(self, plan: BatchPlan) -> PropertyBatch:
        """Read the structures of a plan and put them together."""
        systems = [self.data.system(index) for index in plan.indices]
        targets = np.zeros(plan.n_graphs)
        targets[: len(systems)] = self.data.targets[list(plan.indices)]
        tables = [self.tables.kept[index] for index in plan.indices]
        return PropertyBatch(self._graph(plan, systems, tables), targets.astype(self.dtype))

    def noisy_batch(self, plan: BatchPlan, key: Key) -> NoisyBatch:
        """The same with displaced atoms; normal displacements, cut off at 2.5 standard deviations per component.

        A network is told nothing of where an atom was: the table is that of the displaced positions.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        systems = [self.data.system(index) for index in plan.indices]
        drawn = [np.clip(rng.normal(size=s.positions.shape), -_CUT, _CUT) for s in systems]
        moved = [
            dataclasses.replace(system, positions=system.positions + self.noise * step)
            for system, step in zip(systems, drawn, strict=True)
        ]
        noise = np.zeros((plan.n_atoms, 3))
        noise[: sum(map(len, drawn))] = np.concatenate(drawn)
        return NoisyBatch(self._graph(plan, moved), noise.astype(self.dtype))

    def _graph(
        self, plan: BatchPlan, systems: list[System], tables: list[NeighborTable | None] | None = None
    ) -> GraphBatch:
        return batch_graphs(
            systems,
            self.potential.cutoff,
            n_atoms=plan.n_atoms,
            n_neighbors=plan.n_neighbors,
            n_graphs=plan.n_graphs,
            tables=tables,
            dtype=self.dtype,
        )


class Epochs:
    """The order of a stream's batches: a function of key and number, with the current epoch kept.

    Example:
        epochs = Epochs(stream, key)
        plan = epochs.plan(1234)
    """

    def __init__(self, stream: PropertyStream, key: Key) -> None:
        self.stream, self.key = stream, key
        self._sizes = stream.data.n_atoms.tolist()
        self._epoch, self._plans = -1, []

    def plan(self, number: int) -> BatchPlan:
        """Plan of batch ``number``, counted from 0 over all epochs."""
        epoch, within = divmod(number, self.stream.steps_per_epoch)
        if epoch != self._epoch:
            seed = np.asarray(jax.random.key_data(jax.random.fold_in(self.key, epoch)))
            self._plans = shuffle_plan(self.stream.plans, self._sizes, np.random.default_rng(seed))
            self._epoch = epoch
        return self._plans[within]


_CUT = 2.5
_COARSE_ATOMS, _COARSE_NEIGHBORS = 64, 8


def _coarse(plan: BatchPlan) -> BatchPlan:
    """Round sizes up, so that data sets that are only evaluated share compiled programs."""
    n_atoms = -(-plan.n_atoms // _COARSE_ATOMS) * _COARSE_ATOMS
    n_neighbors = -(-plan.n_neighbors // _COARSE_NEIGHBORS) * _COARSE_NEIGHBORS
    return dataclasses.replace(plan, n_atoms=n_atoms, n_neighbors=n_neighbors)


def _largest(noise: float) -> float:
    """Longest displacement, Å."""
    return _CUT * 3.0**0.5 * noise
