"""Structures, their labels and what a model says of them before training: what checks of labels look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from mlipjax.data import Dataset, Example
from mlipjax.train import StructurePrediction


@dataclasses.dataclass(frozen=True)
class Compared:
    """Structures of one data set, their labels, and what the model says of them before training.

    Attributes:
        name: of the data set.
        indices: of the structures in it.
        dataset: these structures.
        predictions: total energies with the isolated-atom energies that training will use.
        whole: the data set from which they are, if they are not all of it.
    """

    name: str
    indices: tuple[int, ...]
    dataset: Dataset
    predictions: Sequence[StructurePrediction]
    whole: Dataset | None = None

    @property
    def full(self) -> Dataset:
        """The data set that ``indices`` count in."""
        return self.dataset if self.whole is None else self.whole

    def __iter__(self) -> Iterator[tuple[int, Example, StructurePrediction]]:
        return zip(self.indices, self.dataset, self.predictions, strict=True)
