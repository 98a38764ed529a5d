"""Labels beside what a model says of the same structures before training, and the measures by which they are judged.

Labels are compared as vectors about zero. Where a model is far off, its error does not depend on the label: the
regression of the prediction on the label then still has a slope near one, however small the correlation is. Labels of
other atoms or frames have no such slope.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from mlipjax.data import Dataset, Example
from mlipjax.doctor.findings import Finding, Severity
from mlipjax.system import System, full_to_voigt
from mlipjax.train import StructurePrediction

NEAR, PLAUSIBLE = 1.5, 3.0
"""A slope belongs to a unit if it is within ``NEAR`` of it; others up to ``PLAUSIBLE`` are the model's error."""
CORRELATED = 0.6
"""Labels below this correlation with the model do not follow it."""
CLOSELY = 0.9
"""From this correlation on labels follow the model closely."""
# What explains labels has to fit so well and leave at most this part.
_FITS, _LEFT = 0.85, 0.5
# Labels follow the model no more if a slope of this size is out by so many standard deviations.
_SLOPE, DEVIATIONS = 0.7, 2.5

Role = Literal["train", "other", "own"]
"""A training set, another set of its level of theory, or one of the level that the model was trained with."""


class Row(NamedTuple):
    """One label and its prediction, as vectors.

    Attributes:
        index: of the structure in its data set.
        label, model: (k,) numbers of one unit.
        system: the structure.
    """

    index: int
    label: np.ndarray
    model: np.ndarray
    system: System

    @property
    def fit(self) -> float:
        """Correlation of label and prediction about zero; 0 where one of them is zero."""
        return cosine(self.label, self.model)

    @property
    def ratio(self) -> float:
        """Geometric-mean slope of the label against the prediction, with the sign of ``fit``; 0 where one is zero."""
        scale = float(np.linalg.norm(self.model))
        size = float(np.linalg.norm(self.label))
        return math.copysign(size / scale, float(self.label @ self.model)) if scale > 0.0 else 0.0

    @property
    def sizes(self) -> tuple[float, float]:
        """Root-mean-square label and prediction."""
        return rms(self.label), rms(self.model)

    def apply(self, function: Callable[[np.ndarray], np.ndarray]) -> Row:
        """Return the row with both vectors changed in one way."""
        return self._replace(label=function(self.label), model=function(self.model))

    def disagrees(self, n_independent: float, deviations: float = DEVIATIONS) -> bool:
        """Return whether the prediction does not follow the label at all, beyond what the model's own error can do.

        Args:
            n_independent: how many of the numbers are independent of each other.
            deviations: standard deviations by which the slope has to be too small.
        """
        size = float(self.label @ self.label)
        if size == 0.0 or self.fit >= CORRELATED:
            return False
        slope = float(self.label @ self.model) / size
        error = float(np.linalg.norm(self.model - slope * self.label)) / math.sqrt(size * max(n_independent - 1.0, 1.0))
        return slope + deviations * error < _SLOPE

    def explains(self, before: float) -> bool:
        """Return whether label and prediction fit well, and much better than the correlation ``before``."""
        fit = self.fit
        left, left_before = (math.sqrt(max(1.0 - max(one, 0.0) ** 2, 0.0)) for one in (fit, before))
        return fit > _FITS and left < _LEFT * left_before


@dataclasses.dataclass(frozen=True)
class Compared:
    """Structures of one data set, their labels, and what the model says of them before training.

    Attributes:
        name: of the data set.
        indices: of the structures in it.
        dataset: these structures.
        predictions: total energies with the isolated-atom energies that training will use.
        whole: the data set from which they are, if they are not all of it.
        role: of the data set.
    """

    name: str
    indices: tuple[int, ...]
    dataset: Dataset
    predictions: Sequence[StructurePrediction]
    whole: Dataset | None = None
    role: Role = "train"

    def option(self, text: str) -> str:
        """An option that reads these labels rightly, if it is theirs: names and units are those of all files."""
        return text if self.role == "train" else ""

    @property
    def full(self) -> Dataset:
        """The data set that ``indices`` count in."""
        return self.dataset if self.whole is None else self.whole

    def __iter__(self) -> Iterator[tuple[int, Example, StructurePrediction]]:
        return zip(self.indices, self.dataset, self.predictions, strict=True)

    def rows(self, kind: str) -> list[Row]:
        """Return labels and predictions of one kind: "energy", "forces", or "stress" in Voigt order."""
        return [
            Row(index, _vector(label, kind), _vector(found, kind), system)
            for index, (system, label, _), found in self
            if getattr(label, f"{kind}_weight") > 0.0
        ]

    def labels(self, kind: str) -> dict[int, np.ndarray]:
        """Return the labels of one kind of the whole data set by structure: they need no prediction."""
        known = ((i, label) for i, label in enumerate(self.full.labels) if getattr(label, f"{kind}_weight") > 0.0)
        return {index: _vector(label, kind) for index, label in known}

    def finding(self, severity: Severity, check: str, message: str, remedy: str, rows: Iterable[Row]) -> Finding:
        """Return a finding about some of the structures; arguments as those of ``Finding``."""
        return Finding(severity, check, message, remedy, tuple((self.name, row.index) for row in rows))


def _vector(values: Any, kind: str) -> np.ndarray:
    """Energy (1,), forces (3 n,) or stress (6,) of labels or of a prediction."""
    value = np.asarray(getattr(values, kind), np.float64)
    return full_to_voigt(0.5 * (value + value.T)) if kind == "stress" else value.ravel()


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation about zero; 0 where one of them is zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norm if norm > 0.0 else 0.0


def rms(values: np.ndarray) -> float:
    """Root of the mean square; 0 of nothing."""
    return float(np.sqrt(np.mean(np.square(values)))) if np.size(values) else 0.0


def is_near(value: float, target: float, factor: float = NEAR) -> bool:
    """Return whether two numbers of one sign differ by less than a factor."""
    return value * target > 0.0 and abs(math.log(value / target)) < math.log(factor)


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows of one key together."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def by_composition(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of structures of the same atoms together."""
    return list(grouped(rows, lambda row: np.sort(np.asarray(row.system.atomic_numbers)).tobytes()).values())


def centered(groups: Iterable[Sequence[Row]], least: int = 3) -> list[Row]:
    """Rows less the mean of their group, of groups of so many or more."""
    found = []
    for group in groups:
        if len(group) >= least:
            label, model = (np.mean([getattr(row, name) for row in group], axis=0) for name in ("label", "model"))
            found += [row._replace(label=row.label - label, model=row.model - model) for row in group]
    return found


def without(rows: Iterable[Row], others: Iterable[Row]) -> list[Row]:
    """Rows of other structures than those of ``others``."""
    gone = {row.index for row in others}
    return [row for row in rows if row.index not in gone]


def pooled(rows: Sequence[Row]) -> Row:
    """All labels and predictions, one after the other, as one row (of no structure)."""
    label, model = (np.concatenate([getattr(row, name) for row in rows] or [[]]) for name in ("label", "model"))
    return Row(-1, label, model, rows[0].system if rows else System(np.zeros((0, 3)), np.zeros(0, int), np.eye(3)))


def knows_most(rows: Sequence[Row]) -> bool:
    """Return whether the model follows most labels closely, so that a few that it does not follow are suspect."""
    return 2 * sum(abs(row.fit) >= CLOSELY for row in rows) >= len(rows)
