"""Labelled frames that a periodic fine-tune is given: from before, or to be replayed; as stacks of few sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data import Dataset
from mlipjax.finetuning.frames import FrameStack
from mlipjax.graph import batch_graphs, neighbor_table
from mlipjax.potential import Potential
from mlipjax.system import Labels


def size_groups(n_atoms: Sequence[int]) -> list[np.ndarray]:
    """Rows of structures that are padded to one size: those between two powers of two, to lose less than half."""
    powers = np.ceil(np.log2(np.asarray(n_atoms))).astype(int)
    return [np.flatnonzero(powers == power) for power in np.unique(powers)]


def share_batch(batch_size: int, amounts: Sequence[int], most: Sequence[int]) -> list[int]:
    """Frames of each stack in an optimiser step: in proportion to their amounts, by largest remainders.

    Each stack has one at least, so that a batch may be larger than asked for.

    Args:
        batch_size: frames of a step.
        amounts: of frames in each stack by the end of a run.
        most: largest number of each.
    """
    quotas = batch_size * np.array(amounts, np.float64) / np.sum(amounts)
    sizes = np.maximum(quotas.astype(int), 1)
    for index in np.argsort(sizes - quotas, kind="stable")[: max(batch_size - int(sizes.sum()), 0)]:
        sizes[index] += 1
    return np.minimum(sizes, most).tolist()


def make_stack(potential: Potential, dataset: Dataset, batch_size: int, dtype: Any, head: int = 0) -> FrameStack:
    """Put labelled structures of similar sizes into one stack.

    Args:
        potential: with the isolated-atom energies that are taken off.
        dataset: structures with total energies.
        batch_size: of them in every optimiser step.
        dtype: of the run.
        head: of the model that predicts their energies.

    Raises:
        ValueError: for an element that the potential does not know.
    """
    tables = [neighbor_table(system, potential.cutoff) for system in dataset.systems]
    n_atoms = max(system.n_atoms for system in dataset.systems)
    n_neighbors = -(-max(1, *(table.max_count for table in tables)) // 4) * 4
    graphs, labels = [], []
    for (system, label, _), table in zip(dataset, tables, strict=True):
        sizes = {"n_atoms": n_atoms, "n_neighbors": n_neighbors, "n_graphs": 1}
        graphs.append(batch_graphs([system], potential.cutoff, **sizes, heads=[head], tables=[table], dtype=dtype))
        labels.append(_padded(label, potential.reference_energy(system.atomic_numbers, head), n_atoms))
    stacked, together = (
        jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *parts) for parts in (graphs, labels)
    )
    together = jax.tree.map(lambda leaf: leaf.astype(dtype), together)
    return FrameStack(stacked, together, jnp.ones((len(dataset),), bool), batch_size)


def make_stacks(potential: Potential, dataset: Dataset, batch_size: int, dtype: Any, head: int = 0) -> list[FrameStack]:
    """Put labelled structures of any sizes into stacks, each with its share of every batch; arguments as above."""
    groups = size_groups([system.n_atoms for system in dataset.systems])
    amounts = list(map(len, groups))
    return [
        make_stack(potential, dataset.subset(rows.tolist()), size, dtype, head)
        for rows, size in zip(groups, share_batch(batch_size, amounts, amounts), strict=True)
    ]


def _padded(label: Labels, reference: float, n_atoms: int) -> Labels:
    """Labels without isolated atoms, with room for more atoms; what is missing is 0 with a weight of 0."""
    forces = np.zeros((n_atoms, 3))
    forces[: len(label.forces)] = label.forces
    return jax.tree.map(
        lambda leaf: np.nan_to_num(np.asarray(leaf, np.float64)),
        dataclasses.replace(label, energy=label.energy - reference, forces=forces),
    )
