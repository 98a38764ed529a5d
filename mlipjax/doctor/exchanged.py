"""Labels that structures have from each other: of which structure each of them has its label.

Every label is tried for every structure that was compared, and the assignment that leaves the smallest residuals is
taken. Where numbers lie close together, some other label fits anything; how many do by chance is counted. Only if many
more of those whose own label does not fit find one that does is it believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.doctor.compared import Compared, Row
from mlipjax.doctor.findings import Finding

# A label fits within so many robust standard deviations of the assigned ones, and is out beyond so many.
_FITS, _OUT = 3.0, 6.0
# Probability that as many fit by chance; part of the structures that are out for which one has to fit.
_CHANCE, _SHARE = 1e-4, 0.6
_FEWEST, _NAMED = 6, 6


class Measure(NamedTuple):
    """Comparison of the labels of different structures.

    Attributes:
        per: number by which label and prediction of a structure are divided (atoms, or 1).
        floor: smallest standard deviation that is believed, in units of the label over ``per``.
    """

    per: Callable[[Row], float]
    floor: float


PER_ATOM = Measure(lambda row: float(row.system.n_atoms), 3e-4)
AS_IS = Measure(lambda row: 1.0, 3e-5)


def find_exchanged(part: Compared, what: str, rows: Sequence[Row], measure: Measure) -> list[Finding]:
    """Return a finding that names structures and the ones whose labels they have, or none.

    Args:
        part: data set.
        what: "energies" or "stress".
        rows: labels and predictions.
        measure: how they are compared.
    """
    if len(rows) < _FEWEST:
        return []
    tried = min((_assigned(rows, measure, offset) for offset in _offsets(rows, measure)), key=lambda one: one.scale)
    found = np.flatnonzero(_explained(tried))
    if not len(found):
        return []
    exchanged = [rows[place] for place in found.tolist()]
    owner = np.argsort(tried.column)  # of a label: the structure that it was given to
    whose = [f"{rows[place].index} that of {rows[int(owner[place])].index}" for place in found[:_NAMED].tolist()]
    more = ", ..." if len(found) > _NAMED else ""
    message = (
        f"{what} of {part.name} belong to other structures of the set in {len(found)} of {len(rows)} structures: "
        f"{', '.join(whose)}{more}"
    )
    return [part.finding("fatal", "order", message, "Write structures and labels together.", exchanged)]


class _Tried(NamedTuple):
    """An assignment of labels to structures.

    Attributes:
        distance: (n, n) of each label (column) from each prediction.
        column: (n,) label that each structure is given.
        scale: robust standard deviation of what is left.
    """

    distance: np.ndarray
    column: np.ndarray
    scale: float


def _offsets(rows: Sequence[Row], measure: Measure) -> list[np.ndarray]:
    """Common part of labels minus predictions: the middle of all, or the mean, which an exchange leaves alone."""
    sizes = np.array([measure.per(row) for row in rows])
    errors = np.array([row.label - row.model for row in rows]) / sizes[:, None]
    return [np.median(errors, axis=0), np.average(errors, axis=0, weights=sizes)]


def _assigned(rows: Sequence[Row], measure: Measure, offset: np.ndarray) -> _Tried:
    from scipy.optimize import linear_sum_assignment

    sizes = np.array([measure.per(row) for row in rows])[:, None]
    right, labels = np.array([row.model for row in rows]) + sizes * offset, np.array([row.label for row in rows])
    distance = np.sqrt(np.mean((labels[None] - right[:, None]) ** 2, axis=-1)) / sizes
    # a bounded loss: what fits nowhere does not push others from their places
    bound = _OUT * max(1.4826 * float(np.median(np.diag(distance))), measure.floor)
    _, column = linear_sum_assignment(np.minimum(distance, bound) + 1e-9 * distance)
    left = distance[np.arange(len(rows)), column]
    return _Tried(distance, column, max(1.4826 * float(np.median(left)), measure.floor))


def _explained(tried: _Tried) -> np.ndarray:
    """(n,) whether a structure has the label of another one, beyond what chance does."""
    from scipy import stats

    distance, column, scale = tried
    places = np.arange(len(distance))
    own, left = np.diag(distance), distance[places, column]
    out = own > _OUT * scale
    found = out & out[column] & (left < _FITS * scale)
    # how often a label fits another structure than its own and the one it is given
    rest = distance < _FITS * scale
    rest[places, places] = rest[places, column] = False
    expected = out.sum() * (rest[out].sum() + 1.0) / len(places)
    enough = found.sum() >= max(2, _SHARE * out.sum()) and stats.poisson.sf(found.sum() - 1, expected) < _CHANCE
    return found & enough
