"""Padded batches of labelled structures, on the host, read and put together when needed; predictions of them all.

One pass over the structures counts neighbours; from the counts alone all batches are planned, so the largest batch of
the whole run is known before the first step. Tables are kept while they fit ``KEEP_BYTES``, otherwise they are found
again for every batch. Which structures a step of training sees is a function of a key and the step's number.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from mlipjax.data import Dataset, View
from mlipjax.devices import WHOLE, default_slots, get, mesh_for, put
from mlipjax.files import scratch
from mlipjax.graph import BatchPlan, NeighborTable, batch_graphs, neighbor_table, plan_batches, shuffle_plan
from mlipjax.hosts import json_of_first
from mlipjax.potential import Potential, Prediction, property_values
from mlipjax.system import Labels, System
from mlipjax.train.several import apply_each
from mlipjax.train.state import Batch
from mlipjax.typing import Key, Params

KEEP_BYTES = 2**28
_SLOT_BYTES = 21  # neighbour, shift, reverse, mask

# Compiling the training gradient of one more shape takes as long as computing it on about this many slots.
SLOTS_PER_SHAPE = 500_000
# That of a property takes a fifth of the time, and half as long to compile: as if there were fewer passes so.
_PROPERTY_PASS = 0.4
_SHAPE_LIMITS = ((1, 1), (1, 2), (2, 1), (2, 2), (3, 2), (4, 2))
_COARSE_ATOMS, _COARSE_NEIGHBORS = 64, 8

ATOMS_PER_STEP = 200
_MOST_PER_STEP, _SAMPLE = 4, 100


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Numbers of neighbours of structures, and those of their tables that are kept.

    Attributes:
        n_atoms: (n,) of each structure.
        max_counts: (n,) largest number of neighbours of an atom.
        kept: neighbour table of each structure, ``None`` where it is found anew.
    """

    n_atoms: np.ndarray
    max_counts: np.ndarray
    kept: tuple[NeighborTable | None, ...]

    @classmethod
    def find(cls, dataset: Dataset, cutoff: float, keep_bytes: int = KEEP_BYTES) -> Tables:
        """Find the neighbours of structures within ``cutoff`` (Å), one structure at a time."""
        n_atoms, max_counts, kept, used = [], [], [], 0
        for index, system in enumerate(dataset.systems):
            try:
                table = neighbor_table(system, cutoff)
            except ValueError as error:
                raise type(error)(f"{dataset.where(index)}: {error}") from error
            n_atoms.append(system.n_atoms)
            max_counts.append(table.max_count)
            used += table.mask.size * _SLOT_BYTES
            kept.append(table if used <= keep_bytes else None)
        return cls(np.array(n_atoms, int), np.array(max_counts, int), tuple(kept))

    def subset(self, indices: Sequence[int]) -> Tables:
        """Those of the structures at ``indices``."""
        chosen = np.asarray(indices, int)
        return Tables(self.n_atoms[chosen], self.max_counts[chosen], tuple(self.kept[i] for i in chosen))


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledBatches:
    """A data set with its neighbour tables, and the plan by which it is put into batches.

    Attributes:
        potential: cutoff, elements and isolated-atom energies.
        dataset: structures and labels.
        tables: neighbours of each structure.
        plans: micro-batches; together every structure once.
        accumulate: micro-batches per optimiser step.
        dtype: floating-point type of the batches.
        head: index of the energy head that predicts these structures.
        mesh: devices that compute micro-batches side by side.
    """

    potential: Potential
    dataset: Dataset
    tables: Tables
    plans: tuple[BatchPlan, ...]
    accumulate: int
    dtype: Any
    head: int = 0
    mesh: Mesh | None = None

    @classmethod
    def create(
        cls,
        potential: Potential,
        dataset: Dataset,
        batch_size: int,
        *,
        passes: float = 1,
        dtype: Any = np.float32,
        max_slots: int | None = None,
        reach: float = 0.0,
    ) -> LabelledBatches:
        """Count neighbours and plan batches, for the first energy head and as many devices as are of use.

        Args:
            potential: what will be trained or evaluated.
            dataset: at least one structure.
            batch_size: structures per optimiser step. They are divided into the largest micro-batches, all of
                one size, that respect ``max_slots``; how they are divided does not change the gradient.
            passes: how often the data set will be gone through: for many passes, more shapes are worth compiling.
            dtype: floating-point type of the batches.
            max_slots: limit of atoms times neighbour slots in a micro-batch, for memory; by default
                ``devices.default_slots``. A single structure may exceed it. The devices divide it: what is computed
                together does not depend on their number.
            reach: Å beyond the cutoff for which slots are reserved: of structures whose atoms will be displaced, and
                whose tables are therefore not kept.

        Raises:
            ValueError: for an empty data set, an element the potential does not know, or a batch size below 1.
        """
        if len(dataset) == 0:
            raise ValueError("the data set is empty; it needs at least one structure.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {batch_size}.")
        dataset.check_elements(potential.check_elements)
        tables = Tables.find(dataset, potential.cutoff + reach, KEEP_BYTES if reach == 0.0 else 0)
        batch_size = min(batch_size, len(dataset))
        limit = json_of_first(default_slots(dtype)) if max_slots is None else max_slots
        for size in range(batch_size, 0, -1):
            if batch_size % size == 0:
                plans = cheapest_plan(tables.n_atoms, tables.max_counts, size, passes)
                if size == 1 or max(plan.n_atoms * plan.n_neighbors for plan in plans) <= limit:
                    mesh = _mesh_of_step(size, batch_size // size)
                    return cls(potential, dataset, tables, plans, batch_size // size, dtype, mesh=mesh)
        raise AssertionError("a batch size has the divisor 1")

    @property
    def batch_size(self) -> int:
        """Structures of an optimiser step."""
        return self.accumulate * max(len(plan.indices) for plan in self.plans)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in which every structure is seen once."""
        return -(-len(self.plans) // self.accumulate)

    def part(self, n_structures: int) -> LabelledBatches:
        """Some of the batches, about ``n_structures`` together; ``predict`` then returns theirs only."""
        count = max(1, len(self.plans) * n_structures // len(self.dataset))
        if count >= len(self.plans):
            return self
        chosen = np.linspace(0, len(self.plans) - 1, count).round().astype(int)
        return dataclasses.replace(self, plans=tuple(self.plans[index] for index in chosen))

    def rounded(self) -> LabelledBatches:
        """The same with sizes rounded up, so that data sets that are only evaluated share compiled programs."""

        def coarse(plan: BatchPlan) -> BatchPlan:
            n_atoms = -(-plan.n_atoms // _COARSE_ATOMS) * _COARSE_ATOMS
            n_neighbors = -(-plan.n_neighbors // _COARSE_NEIGHBORS) * _COARSE_NEIGHBORS
            return dataclasses.replace(plan, n_atoms=n_atoms, n_neighbors=n_neighbors)

        return dataclasses.replace(self, plans=tuple(map(coarse, self.plans)))

    @property
    def planned(self) -> tuple[int, ...]:
        """Structures in the batches, ascending: all of them, unless this is a ``part``."""
        return tuple(sorted(index for plan in self.plans for index in plan.indices))

    def with_potential(self, potential: Potential) -> LabelledBatches:
        """The same batches with other isolated-atom energies."""
        if potential.cutoff != self.potential.cutoff:
            raise ValueError(f"tables are for {self.potential.cutoff} Å, the potential needs {potential.cutoff} Å.")
        return dataclasses.replace(self, potential=potential)

    def epoch(self, key: Key, epoch: int) -> list[list[BatchPlan]]:
        """Micro-batches of every step of an epoch: a function of key and epoch number, and of nothing else."""
        seed = np.asarray(jax.random.key_data(jax.random.fold_in(key, epoch)))
        plans = shuffle_plan(self.plans, self.tables.n_atoms, np.random.default_rng(seed))
        steps = [plans[start : start + self.accumulate] for start in range(0, len(plans), self.accumulate)]
        return [[share for plan in step for share in self.shares(plan)] for step in steps]

    def shares(self, plan: BatchPlan) -> list[BatchPlan]:
        """Divide a micro-batch among the devices."""
        return [plan] if self.mesh is None else plan.split(self.mesh.size, self.tables.n_atoms)

    def steps(self, key: Key, first: int = 0) -> Iterator[list[BatchPlan]]:
        """Micro-batches of one optimiser step after the other, without end, from number ``first`` on."""
        epoch, within = divmod(first, self.steps_per_epoch)
        while True:
            yield from self.epoch(key, epoch)[within:]
            epoch, within = epoch + 1, 0

    def batch(self, plan: BatchPlan) -> Batch:
        """Put the structures of a plan together."""
        part = plan.indices
        return make_batch(
            self.potential,
            [self.dataset.systems[i] for i in part],
            [self.dataset.labels[i] for i in part],
            **plan.sizes,
            tables=[self.tables.kept[i] for i in part],
            dtype=self.dtype,
            head=self.head,
        )


def _mesh_of_step(size: int, accumulate: int) -> Mesh | None:
    """Devices for a step of so many micro-batches of ``size`` structures: more than it can use would compute blanks."""

    def structures_one_after_another(count: int) -> int:
        return -(-accumulate * min(count, size) // count) * -(-size // count)

    return mesh_for(structures_one_after_another)


def frames_per_step(dataset: Dataset) -> int:
    """Structures per optimiser step where nothing else is asked for: as many as make 200 atoms, from 1 to 4.

    Of two large frames in one step the second says little that the first does not: 591 forces of a liquid are a large
    sample already, and the same frames one by one are twice as many steps (``experiments.defaults``).
    """
    sample = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), _SAMPLE)).astype(int))
    typical = np.median([dataset.systems[index].n_atoms for index in sample]) if len(sample) else ATOMS_PER_STEP
    return int(np.clip(ATOMS_PER_STEP // typical, 1, _MOST_PER_STEP))


def property_batches(
    potential: Potential, dataset: Dataset, batch_size: int, *, passes: float = 1, **options: Any
) -> LabelledBatches:
    """Return ``LabelledBatches.create`` for what a property, and neither energies nor forces, is computed of.

    Data sets that are gone through once, to be evaluated, share their shapes with others.
    """
    cost = _PROPERTY_PASS * passes
    batches = LabelledBatches.create(potential, dataset, batch_size, passes=cost, **options)
    return batches if passes > 1 else batches.rounded()


def cheapest_plan(n_atoms: np.ndarray, max_counts: np.ndarray, batch_size: int, passes: float) -> tuple[BatchPlan, ...]:
    """The plan that takes the least time for compiling and computing together.

    Args:
        n_atoms: of each structure.
        max_counts: largest number of neighbours of an atom, of each structure.
        batch_size: structures per batch.
        passes: how often the data set will be gone through.
    """
    plans = (plan_batches(n_atoms, max_counts, batch_size, n_widths=k, n_lengths=n) for k, n in _SHAPE_LIMITS)

    def cost(candidate: list[BatchPlan]) -> float:
        slots = sum(plan.n_atoms * plan.n_neighbors for plan in candidate)
        shapes = {(plan.n_atoms, plan.n_neighbors) for plan in candidate}
        return passes * slots + SLOTS_PER_SHAPE * len(shapes)

    return tuple(min(plans, key=cost))


def make_batch(
    potential: Potential,
    systems: Sequence[System],
    labels: Sequence[Labels],
    *,
    tables: Sequence[NeighborTable | None] | None = None,
    dtype: Any = np.float32,
    head: int = 0,
    **sizes: int,
) -> Batch:
    """Put structures and labels together as one padded batch of numpy arrays.

    Isolated-atom energies are subtracted from the energies here, in float64, before anything is rounded to
    ``dtype``. A stress label of a structure without a volume means nothing and gets weight 0.

    Args:
        potential: cutoff, elements and isolated-atom energies.
        systems: structures.
        labels: theirs, with total energies in eV.
        tables: neighbour tables, if known.
        dtype: floating-point type of the batch.
        head: index of the energy head that predicts these structures.
        sizes: padded sizes ``n_atoms``, ``n_neighbors``, ``n_graphs``, see ``graph.batch_graphs``.

    Raises:
        ValueError: for an element the potential does not know, labels that do not fit, or sizes too small.
    """
    potential.check_elements(np.unique(np.concatenate([system.atomic_numbers for system in systems])))
    heads = [head] * len(systems)
    graph = batch_graphs(systems, potential.cutoff, heads=heads, tables=tables, dtype=dtype, **sizes)
    rows, _, count = graph.sizes
    energy, forces, stress = np.zeros(count), np.zeros((rows, 3)), np.zeros((count, 3, 3))
    weights = np.zeros((3, count))
    shared = set.intersection(*(set(label.properties) for label in labels))
    vectors = {name: np.ndim(value) == 2 for name, value in labels[0].properties.items() if name in shared}
    properties = {name: np.zeros((rows, 3)) if vector else np.zeros(count) for name, vector in vectors.items()}
    start = 0
    for index, (system, label) in enumerate(zip(systems, labels, strict=True)):
        stop = start + len(system.atomic_numbers)
        if np.shape(label.forces) != (stop - start, 3):
            raise ValueError(f"forces have shape {np.shape(label.forces)}, the structure {stop - start} atoms.")
        if label.energy_weight > 0:
            energy[index] = label.energy - potential.reference_energy(np.asarray(system.atomic_numbers), head)
        forces[start:stop] = label.forces
        stress[index] = label.stress
        has_volume = label.stress_weight > 0 and np.linalg.det(np.asarray(system.cell, np.float64)) != 0.0
        weights[:, index] = label.energy_weight, label.forces_weight, label.stress_weight * has_volume
        for name, vector in vectors.items():
            properties[name][slice(start, stop) if vector else index] = label.properties[name]
        start = stop
    arrays: list[Any] = [array.astype(dtype) for array in (energy, forces, stress, *weights)]
    return Batch(graph, Labels(*arrays, properties={name: array.astype(dtype) for name, array in properties.items()}))


class StructurePrediction(NamedTuple):
    """Prediction for one structure, float64.

    Attributes:
        energy: total energy in eV, isolated-atom energies included.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å^3.
    """

    energy: float
    forces: np.ndarray
    stress: np.ndarray


def predict(
    potential: Potential,
    params: Params,
    batches: LabelledBatches,
    on_batch: Callable[[Prediction, Batch], None] | None = None,
) -> Sequence[StructurePrediction]:
    """Predict every structure of a data set (or the planned ones of a part), in the data set's order.

    Many predictions are kept in a temporary file (``files.scratch``), not in memory.

    Args:
        potential: the network; isolated-atom energies are those of ``batches.potential``.
        params: parameters, in the dtype of ``batches``.
        batches: the data set.
        on_batch: called with the prediction and labels of every batch, still on the device and padded.
    """
    planned = np.array(batches.planned)
    starts = np.concatenate([[0], np.cumsum(batches.tables.n_atoms[planned])])
    energies, stresses, all_forces = scratch((len(planned),)), scratch((len(planned), 3, 3)), scratch((starts[-1], 3))
    for plan, batch, prediction in _predictions(potential, params, batches):
        if on_batch is not None:
            on_batch(prediction, batch)
        energy, forces, stress = get((prediction.energy, prediction.forces, prediction.stress))
        start = 0
        for row, (index, place) in enumerate(zip(plan.indices, np.searchsorted(planned, plan.indices), strict=True)):
            numbers = np.asarray(batches.dataset.systems[index].atomic_numbers)
            stop = start + len(numbers)
            energies[place] = float(energy[row]) + batches.potential.reference_energy(numbers, batches.head)
            all_forces[starts[place] : starts[place + 1]] = forces[start:stop]
            stresses[place] = stress[row]
            start = stop

    def result(place: int) -> StructurePrediction:
        part = slice(starts[place], starts[place + 1])
        return StructurePrediction(float(energies[place]), all_forces[part], stresses[place])

    return View(result, len(planned))


def _predictions(
    potential: Potential, params: Params, batches: LabelledBatches
) -> Iterator[tuple[BatchPlan, Batch, Prediction]]:
    params = put(params, batches.mesh, WHOLE)
    for plans in map(batches.shares, batches.plans):
        parts = [batches.batch(plan) for plan in plans]
        found = apply_each(potential, params, [part.graph for part in parts], batches.mesh)
        yield from zip(plans, parts, found, strict=True)


def predict_property(potential: Potential, params: Params, batches: LabelledBatches, name: str) -> np.ndarray:
    """Predict a scalar property of every structure of a data set, in its order: (n,) float64.

    Args:
        potential: with a head for the property.
        params: its parameters.
        batches: structures.
        name: of the head.
    """
    values = np.zeros(len(batches.dataset))
    for plan in batches.plans:
        found = property_values(potential, params, batches.batch(plan).graph)[name]
        values[list(plan.indices)] = np.asarray(found, np.float64)[: len(plan.indices)]
    return values
