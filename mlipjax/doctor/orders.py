"""Labels that are right numbers in the wrong place: of other structures, atoms, axes or components.

Each way to put them wrong is tried. One is believed if it makes most of the structures at fault follow the model well,
and much better than they do as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.doctor.agreement import Row, cosine, explains
from mlipjax.doctor.findings import Finding

# Part of the structures at fault that an explanation has to hold for, and values it has to be seen in.
_SHARE, _LEAST_VALUES = 0.6, 24
_MORE = 1.15
_SHIFTS = (-1, 1, -2, 2, -3, 3)
# Structures of a set whose labels are tried for another one, and atoms for which an assignment is sought.
_CANDIDATES, _ATOMS = 400, 600
_ASSIGNED = 0.95

Others = Mapping[int, np.ndarray]
"""Label vectors of a data set by structure."""


class Explanation(NamedTuple):
    """One way in which labels may be in the wrong place.

    Attributes:
        text: what the labels are, if it holds.
        remedy: what to do.
        pairs: for each row label and prediction under this explanation, ``None`` where it says nothing.
    """

    text: str
    remedy: str
    pairs: Sequence[tuple[np.ndarray, np.ndarray] | None]


def find_order(what: str, name: str, rows: Sequence[Row], explanations: Iterator[Explanation]) -> list[Finding]:
    """Return a finding about the explanation that most of the rows support, or none.

    Args:
        what: "forces", "stress" or "energies".
        name: of the data set.
        rows: those whose labels are doubted.
        explanations: of these rows.
    """
    best: tuple[int, float] = (0, 0.0)
    chosen: tuple[Explanation, list[Row]] | None = None
    for explanation in explanations:
        supporters, fit = [], 0.0
        for row, pair in zip(rows, explanation.pairs, strict=True):
            if pair is not None and _supports(row, pair):
                supporters.append(row)
                fit += cosine(*pair)
        enough = len(supporters) >= max(1.0, _SHARE * len(rows))
        seen = sum(len(row.label) for row in supporters) >= _LEAST_VALUES
        # simple explanations come first: a later one has to explain clearly more
        if enough and seen and len(supporters) > _MORE * best[0]:
            best, chosen = (len(supporters), fit), (explanation, supporters)
    if chosen is None:
        return []
    explanation, supporters = chosen
    before, after = np.mean([cosine(row.label, row.model) for row in supporters]), best[1] / len(supporters)
    message = (
        f"{what} of {name} {explanation.text} in {len(supporters)} structures: so they follow the model (correlation "
        f"{after:.2f}), as they are they do not ({before:.2f})"
    )
    return [Finding("fatal", "order", message, explanation.remedy, tuple((name, row.index) for row in supporters))]


def _supports(row: Row, pair: tuple[np.ndarray, np.ndarray]) -> bool:
    return explains(*pair, cosine(row.label, row.model))


def axes(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Vectors (n, 3) whose components are exchanged, or have another sign."""
    remedy = "Write the columns as x, y, z, in the axes of the cell."
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            if order == (0, 1, 2) and len(set(signs)) == 1:
                continue
            name = ", ".join(f"{'-' if sign < 0 else ''}{'xyz'[axis]}" for axis, sign in zip(order, signs, strict=True))
            pairs = [
                (row.label, (row.model.reshape(-1, 3)[:, order] * signs).ravel()) if len(row.label) % 3 == 0 else None
                for row in rows
            ]
            yield Explanation(f"have their columns in the order {name}", remedy, pairs)


def rotations(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Vectors (n, 3) in other axes than the positions: a rotation of each structure."""
    pairs = []
    for row in rows:
        if len(row.label) % 3 or len(row.label) < 18:
            pairs.append(None)
            continue
        label, model = row.label.reshape(-1, 3), row.model.reshape(-1, 3)
        left, _, right = np.linalg.svd(model.T @ label)
        pairs.append((row.label, (model @ left @ right).ravel()))
    remedy = "Turn them with the positions: programs that standardise the cell (LAMMPS, say) turn both."
    yield Explanation("are in other axes than the positions", remedy, pairs)


def shifted_frames(rows: Sequence[Row], labels: Others) -> Iterator[Explanation]:
    """Labels of the structures some places before or after, or from the last to the first."""
    remedy = "Write structures and labels of the same step together."
    last = max(labels, default=0) + min(labels, default=0)
    for shift in _SHIFTS:
        pairs = [_other(row, labels.get(row.index - shift)) for row in rows]
        way = "after" if shift > 0 else "before"
        text = f"belong to the structure {abs(shift)} {'place' if abs(shift) == 1 else 'places'} {way}"
        yield Explanation(text, remedy, pairs)
    yield Explanation("are in reversed order", remedy, [_other(row, labels.get(last - row.index)) for row in rows])


def other_frames(rows: Sequence[Row], labels: Others) -> Iterator[Explanation]:
    """Labels of any other structure of the set, in no order."""
    pairs = []
    for row in rows:
        near = sorted((index for index in labels if index != row.index), key=lambda index: abs(index - row.index))
        fitting = [labels[i] for i in near[:_CANDIDATES] if len(labels[i]) == len(row.model)]
        best = max(fitting, key=lambda label: cosine(label, row.model), default=None)
        pairs.append(_other(row, best))
    yield Explanation("belong to other structures of the set", "Write structures and labels together.", pairs)


def _other(row: Row, label: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
    return None if label is None or len(label) != len(row.model) else (label, row.model)


def atoms(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Vectors (n, 3) that belong to the atoms in another order: of known rules, of one rule, or of any."""
    whole = [row if len(row.label) == 3 * row.system.n_atoms else None for row in rows]
    remedy = "Bring positions and forces into one order of atoms; some programs sort atoms by element."
    for text, rule in _RULES.items():
        orders = [None if row is None else rule(np.asarray(row.system.atomic_numbers)) for row in whole]
        yield Explanation(text, remedy, _permuted(whole, orders))
    yield Explanation("belong to the atoms in another order", remedy, _permuted(whole, _common_orders(whole)))
    yield Explanation("belong to the atoms in other orders", remedy, _permuted(whole, [_own_order(r) for r in whole]))


def _by_symbol(numbers: np.ndarray) -> np.ndarray:
    from ase.data import chemical_symbols

    return np.argsort([chemical_symbols[z] for z in numbers], kind="stable")


_RULES = {
    "belong to the atoms sorted by atomic number": lambda z: np.argsort(z, kind="stable"),
    "belong to the atoms sorted by symbol": _by_symbol,
    "belong to the atoms before they were sorted by atomic number": lambda z: np.argsort(np.argsort(z, kind="stable")),
    "belong to the atoms before they were sorted by symbol": lambda z: np.argsort(_by_symbol(z)),
    "belong to the atoms in reversed order": lambda z: np.arange(len(z))[::-1],
}


def _permuted(rows: Sequence[Row | None], orders: Sequence[np.ndarray | None]) -> list:
    return [
        None if row is None or order is None else (row.label, row.model.reshape(-1, 3)[order].ravel())
        for row, order in zip(rows, orders, strict=True)
    ]


def _common_orders(rows: Sequence[Row | None]) -> list[np.ndarray | None]:
    """The order of atoms that fits all structures of the same atoms together best, if it fits better than by chance."""
    found: list[np.ndarray | None] = [None] * len(rows)
    kinds: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        if row is not None and row.system.n_atoms <= _ATOMS:
            kinds.setdefault(np.asarray(row.system.atomic_numbers, np.int32).tobytes(), []).append(place)
    for places in kinds.values():
        members = [row for place in places if (row := rows[place]) is not None]
        order = _assign([row.label for row in members], [row.model for row in members])
        for place in places:
            found[place] = order
    return found


def _own_order(row: Row | None) -> np.ndarray | None:
    return None if row is None or row.system.n_atoms > _ATOMS else _assign([row.label], [row.model])


def _assign(labels: Sequence[np.ndarray], models: Sequence[np.ndarray]) -> np.ndarray | None:
    """The order of atoms in which predictions fit labels best; ``None`` if turned predictions fit nearly as well.

    With many atoms some order fits anything: predictions turned at random show how well.
    """
    order, fit = _best_order(labels, models)
    turns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(models), 3, 3)))
    turned = [(model.reshape(-1, 3) @ turn).ravel() for model, turn in zip(models, turns, strict=True)]
    _, chance = _best_order(labels, turned)
    return (
        order
        if fit > _ASSIGNED and np.sqrt(max(1.0 - fit**2, 0.0)) < 0.6 * np.sqrt(max(1.0 - chance**2, 0.0))
        else None
    )


def _best_order(labels: Sequence[np.ndarray], models: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    from scipy.optimize import linear_sum_assignment

    label = np.hstack([values.reshape(-1, 3) for values in labels])
    model = np.hstack([values.reshape(-1, 3) for values in models])
    _, order = linear_sum_assignment(label @ model.T, maximize=True)
    return order, cosine(label.ravel(), model[order].ravel())


_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def components(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Stresses (six components) in another order, or with shears counted twice or not at all.

    The order is sought among all, for all structures together.
    """
    from scipy.optimize import linear_sum_assignment

    remedy = "Write stress as xx, yy, zz, yz, xz, xy (or as a 3 x 3 matrix), in eV/Å^3, tension positive."
    label = np.array([row.label for row in rows])
    model = np.array([row.model for row in rows])
    for text, factor in (("", 1.0), (", shears doubled", 2.0), (", shears halved", 0.5)):
        scaled = model * np.array([1.0, 1.0, 1.0, factor, factor, factor])
        cost = np.sum((label[:, :, None] - scaled[:, None, :]) ** 2, axis=0)
        _, order = linear_sum_assignment(cost)
        if factor == 1.0 and np.array_equal(order, np.arange(6)):
            continue
        name = "have their components in the order " + ", ".join(_VOIGT[i] for i in order) + text
        yield Explanation(name, remedy, [(row.label, values[order]) for row, values in zip(rows, scaled, strict=True)])


def turned_axes(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Stresses in other axes than the cell: exchanged, or of another sign."""
    remedy = "Write stress in the axes of the cell vectors."
    for order in itertools.permutations(range(3)):
        for signs in ((1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)):
            if order == (0, 1, 2) and signs == (1.0, 1.0, 1.0):
                continue
            turn = np.eye(3)[list(order)] * np.array(signs)
            pairs = [(row.label, to_voigt(turn @ from_voigt(row.model) @ turn.T)) for row in rows]
            yield Explanation(f"have their axes in the order {', '.join('xyz'[i] for i in order)}", remedy, pairs)


def to_voigt(stress: np.ndarray) -> np.ndarray:
    """(6,) components xx, yy, zz, yz, xz, xy of a symmetric (3, 3) matrix."""
    return stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def from_voigt(stress: np.ndarray) -> np.ndarray:
    """Symmetric (3, 3) matrix of six components."""
    xx, yy, zz, yz, xz, xy = stress
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
