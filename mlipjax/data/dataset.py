"""Labelled structures of any size, in host memory or made from what is on disk when they are asked for."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, overload

import numpy as np

from mlipjax.system import Labels, System

T = TypeVar("T")


class View(Sequence[T], Generic[T]):
    """Items that are made when they are asked for: item ``i`` is ``make(rows[i])``; a slice is a view too."""

    def __init__(self, make: Callable[[int], T], rows: int | np.ndarray) -> None:
        """Keep what makes the items, and of which rows: (n,) integers, or the number of rows."""
        self.make = make
        self.rows = np.arange(rows) if isinstance(rows, int) else rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> View[T]: ...

    def __getitem__(self, index: int | slice) -> T | View[T]:
        if isinstance(index, slice):
            return View(self.make, self.rows[index])
        return self.make(int(self.rows[index]))


def take(items: Sequence[T], indices: Iterable[int]) -> Sequence[T]:
    """Return the items at ``indices``: of a view a view, else a tuple."""
    chosen = np.fromiter(indices, int)
    if isinstance(items, View):
        return View(items.make, items.rows[chosen])
    return tuple(items[index] for index in chosen.tolist())


def _join(first: Sequence[T], second: Sequence[T]) -> Sequence[T]:
    if isinstance(first, tuple) and isinstance(second, tuple):
        return first + second
    n = len(first)
    return View(lambda row: first[row] if row < n else second[row - n], n + len(second))


class Placed(dict[str, Any]):
    """Information of a structure that knows where the structure stands.

    Attributes:
        file: name of its file.
        index: its number among all structures of the file.
    """

    def __init__(self, info: Mapping[str, Any], file: str, index: int) -> None:
        """Copy information, and keep the place."""
        super().__init__(info)
        self.file, self.index = file, index

    def __reduce__(self) -> tuple[Any, ...]:
        return Placed, (dict(self), self.file, self.index)


class Example(NamedTuple):
    """One structure, its labels (total energies, float64) and whatever else was known about it."""

    system: System
    labels: Labels
    info: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Structures with labels and information, in a fixed order.

    The three sequences are tuples, or ``View``s of what is on disk: then choosing structures reads none.

    Attributes:
        systems: one structure each.
        labels: energy eV (the total of the reference code), forces eV/Å, stress eV/Å^3; weight 0 if missing.
        infos: per-structure information such as ``run`` or ``mp_id``; splits group by it.
    """

    systems: Sequence[System]
    labels: Sequence[Labels]
    infos: Sequence[Mapping[str, Any]]

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

    def where(self, index: int) -> str:
        """Return file and number there of a structure, or its number here if no file is known."""
        info = self.infos[index]
        return f"{info.file}, structure {info.index}" if isinstance(info, Placed) else f"structure {index}"

    def check_elements(self, check: Callable[[Sequence[int]], None]) -> None:
        """Refuse elements that ``check`` (of a potential) refuses, naming the first structure that has one."""
        try:
            check(self.elements)
        except ValueError:
            for index, system in enumerate(self.systems):
                try:
                    check(np.unique(system.atomic_numbers).tolist())
                except ValueError as error:
                    raise ValueError(f"{self.where(index)}: {error}") from None

    def __getitem__(self, index: int) -> Example:
        return Example(self.systems[index], self.labels[index], self.infos[index])

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: Dataset) -> Dataset:
        return Dataset(
            _join(self.systems, other.systems), _join(self.labels, other.labels), _join(self.infos, other.infos)
        )

    def subset(self, indices: Iterable[int]) -> Dataset:
        """Return the structures at ``indices``, in that order."""
        chosen = np.fromiter(indices, int)
        return Dataset(take(self.systems, chosen), take(self.labels, chosen), take(self.infos, chosen))

    @functools.cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers present, ascending."""
        present = np.zeros(256, bool)
        for system in self.systems:
            present[np.asarray(system.atomic_numbers)] = True
        return tuple(int(z) for z in np.flatnonzero(present))

    def count_labels(self) -> dict[str, int]:
        """Return how many structures carry an energy, forces and a stress."""
        counts = {"energy": 0, "forces": 0, "stress": 0}
        for label in self.labels:
            for name in counts:
                counts[name] += float(getattr(label, f"{name}_weight")) > 0
        return counts
