"""Labelled structures of any size, in host memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from mlipjax.system import Labels, System


class Example(NamedTuple):
    """One structure, its labels (total energies, float64) and whatever else was known about it."""

    system: System
    labels: Labels
    info: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Structures with labels and information, in a fixed order.

    Attributes:
        systems: one structure each.
        labels: energy eV (the total of the reference code), forces eV/Å, stress eV/Å^3; weight 0 if missing.
        infos: per-structure information such as ``run`` or ``mp_id``; splits group by it.
    """

    systems: tuple[System, ...]
    labels: tuple[Labels, ...]
    infos: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        sizes = (len(self.systems), len(self.labels), len(self.infos))
        if len(set(sizes)) != 1:
            raise ValueError(f"a data set needs one label and one info per structure; got {sizes}.")

    @classmethod
    def from_examples(cls, examples: Iterable[Example]) -> Dataset:
        """Collect examples in the order given."""
        examples = list(examples)
        return cls(
            systems=tuple(example.system for example in examples),
            labels=tuple(example.labels for example in examples),
            infos=tuple(example.info for example in examples),
        )

    def __len__(self) -> int:
        return len(self.systems)

    def __getitem__(self, index: int) -> Example:
        return Example(self.systems[index], self.labels[index], self.infos[index])

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: Dataset) -> Dataset:
        return Dataset(self.systems + other.systems, self.labels + other.labels, self.infos + other.infos)

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Return the structures at ``indices``, in that order."""
        return Dataset.from_examples(self[int(index)] for index in indices)

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers present, ascending."""
        numbers = [np.asarray(system.atomic_numbers) for system in self.systems]
        return tuple(int(z) for z in np.unique(np.concatenate(numbers))) if numbers else ()

    def count_labels(self) -> dict[str, int]:
        """Return how many structures carry an energy, forces and a stress."""
        return {
            "energy": sum(float(label.energy_weight) > 0 for label in self.labels),
            "forces": sum(float(label.forces_weight) > 0 for label in self.labels),
            "stress": sum(float(label.stress_weight) > 0 for label in self.labels),
        }
