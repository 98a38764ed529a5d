"""Labels that are right numbers in the wrong place: of other structures, atoms, axes or components.

Each way to put them wrong is tried. One is believed if it makes most of the structures at fault follow the model well,
and much better than they do as they are.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mlipjax.doctor.compared import Compared, Row, cosine, grouped
from mlipjax.doctor.findings import Finding
from mlipjax.elements import symbols
from mlipjax.system import full_to_voigt, voigt_to_full

# Part of the structures at fault that an explanation has to hold for, and values it has to be seen in.
_SHARE, _LEAST_VALUES = 0.6, 24
_MORE = 1.15
# Structures of a set whose labels are tried for another one, and atoms for which an assignment is sought.
_CANDIDATES, _ATOMS = 400, 600
_ASSIGNED, _BY_CHANCE = 0.95, 0.6

Others = Mapping[int, np.ndarray]
"""Label vectors of a data set by structure."""


class Explanation(NamedTuple):
    """One way in which labels may be in the wrong place.

    Attributes:
        text: what the labels are, if it holds.
        remedy: what to do.
        undo: a row as it would be without the mistake; ``None`` where the explanation says nothing.
    """

    text: str
    remedy: str
    undo: Callable[[Row], Row | None]


def find_order(part: Compared, what: str, rows: Sequence[Row], explanations: Iterable[Explanation]) -> list[Finding]:
    """Return a finding about the explanation that most of the rows support, or none.

    Args:
        part: data set.
        what: "forces" or "stress".
        rows: those whose labels are doubted.
        explanations: the simplest first: a later one has to explain clearly more.
    """
    best: list[tuple[Row, Row]] = []
    chosen, fits = None, [row.fit for row in rows]
    for explanation in explanations:
        tried = ((row, explanation.undo(row), before) for row, before in zip(rows, fits, strict=True))
        supporters = [(row, right) for row, right, before in tried if right is not None and right.explains(before)]
        seen = sum(len(row.label) for row, _ in supporters) >= _LEAST_VALUES
        if seen and len(supporters) >= _SHARE * len(rows) and len(supporters) > _MORE * len(best):
            best, chosen = supporters, explanation
    if chosen is None:
        return []
    before, after = np.mean([(row.fit, right.fit) for row, right in best], axis=0)
    message = (
        f"{what} of {part.name} {chosen.text} in {len(best)} structures: so they follow the model (correlation "
        f"{after:.2f}), as they are they do not ({before:.2f})"
    )
    return [part.finding("fatal", "order", message, chosen.remedy, (row for row, _ in best))]


def force_orders(rows: Sequence[Row], labels: Others) -> Iterator[Explanation]:
    """Ways to put forces wrong; ``labels`` are those of the whole data set."""
    yield from _columns()
    yield from shifted_frames(labels)
    yield from _atoms(rows)
    yield Explanation(
        "belong to other structures of the set", "Write structures and labels together.", lambda row: _best(row, labels)
    )
    remedy = "Turn them with the positions: programs that standardise the cell (LAMMPS, say) turn both."
    yield Explanation("are in other axes than the positions", remedy, _turned)


def shifted_frames(labels: Others) -> Iterator[Explanation]:
    """Labels of the structures some places before or after, or from the last to the first."""
    remedy = "Write structures and labels of the same step together."
    for shift in (-1, 1, -2, 2, -3, 3):
        places = f"{abs(shift)} {'place' if abs(shift) == 1 else 'places'} {'after' if shift > 0 else 'before'}"
        undo = lambda row, shift=shift: _with_label(row, labels.get(row.index - shift))  # noqa: E731
        yield Explanation(f"belong to the structure {places}", remedy, undo)
    last = max(labels, default=0) + min(labels, default=0)
    yield Explanation("are in reversed order", remedy, lambda row: _with_label(row, labels.get(last - row.index)))


def _with_label(row: Row, label: np.ndarray | None) -> Row | None:
    return None if label is None or len(label) != len(row.model) else row._replace(label=label)


def _best(row: Row, labels: Others) -> Row | None:
    """The row with the label, of those around it, that fits best."""
    near = sorted((index for index in labels if index != row.index), key=lambda index: abs(index - row.index))
    fitting = [labels[i] for i in near[:_CANDIDATES] if len(labels[i]) == len(row.model)]
    return _with_label(row, max(fitting, key=lambda label: cosine(label, row.model), default=None))


def _columns() -> Iterator[Explanation]:
    """Vectors (n, 3) whose components are exchanged, or have another sign."""
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            if order == (0, 1, 2) and len(set(signs)) == 1:
                continue
            matrix = np.eye(3)[:, order] * signs
            name = ", ".join(f"{'-' if sign < 0 else ''}{'xyz'[axis]}" for axis, sign in zip(order, signs, strict=True))
            yield Explanation(
                f"have their columns in the order {name}",
                "Write the columns as x, y, z, in the axes of the cell.",
                lambda row, matrix=matrix: _model(row, lambda model: model @ matrix),
            )


def _turned(row: Row) -> Row | None:
    """The row with its prediction rotated as fits best."""
    if len(row.label) % 3 or len(row.label) < 18:
        return None
    left, _, right = np.linalg.svd(row.model.reshape(-1, 3).T @ row.label.reshape(-1, 3))
    return _model(row, lambda model: model @ left @ right)


def _model(row: Row, change: Callable[[np.ndarray], np.ndarray]) -> Row | None:
    """The row with its prediction (n, 3) changed; ``None`` if it has lost components."""
    return None if len(row.label) % 3 else row._replace(model=change(row.model.reshape(-1, 3)).ravel())


def _sorted(row: Row) -> np.ndarray:
    return np.argsort(np.asarray(row.system.atomic_numbers), kind="stable")


def _by_symbol(row: Row) -> np.ndarray:
    return np.argsort(symbols(row.system.atomic_numbers), kind="stable")


_RULES: dict[str, Callable[[Row], np.ndarray]] = {
    "sorted by atomic number": _sorted,
    "sorted by symbol": _by_symbol,
    "before they were sorted by atomic number": lambda row: np.argsort(_sorted(row)),
    "before they were sorted by symbol": lambda row: np.argsort(_by_symbol(row)),
    "in reversed order": lambda row: np.arange(row.system.n_atoms)[::-1],
}


def _atoms(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Vectors (n, 3) that belong to the atoms in another order: of known rules, of one rule, or of any."""

    def kind(row: Row) -> bytes:
        return np.asarray(row.system.atomic_numbers, np.int32).tobytes()

    alike = grouped(filter(_is_assignable, rows), kind)

    @functools.cache
    def common(atoms: bytes) -> np.ndarray | None:
        return _assign(alike[atoms])

    rules: dict[str, Callable[[Row], np.ndarray | None]] = {
        **_RULES,
        "in another order": lambda row: common(kind(row)) if _is_assignable(row) else None,
        "in other orders": lambda row: _assign([row]) if _is_assignable(row) else None,
    }
    remedy = "Bring positions and forces into one order of atoms; some programs sort atoms by element."
    for text, rule in rules.items():
        yield Explanation(f"belong to the atoms {text}", remedy, lambda row, rule=rule: _permuted(row, rule(row)))


def _permuted(row: Row, order: np.ndarray | None) -> Row | None:
    whole = len(row.label) == 3 * row.system.n_atoms
    return _model(row, lambda model: model[order]) if whole and order is not None else None


def _is_assignable(row: Row) -> bool:
    return row.system.n_atoms <= _ATOMS and len(row.label) == 3 * row.system.n_atoms


def _assign(rows: Sequence[Row]) -> np.ndarray | None:
    """The order of atoms in which predictions fit labels best; ``None`` if turned predictions fit nearly as well.

    With many atoms some order fits anything: predictions turned at random show how well.
    """
    labels, models = ([getattr(row, name).reshape(-1, 3) for row in rows] for name in ("label", "model"))
    order, fit = _best_order(labels, models)
    turns, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(rows), 3, 3)))
    _, chance = _best_order(labels, [model @ turn for model, turn in zip(models, turns, strict=True)])
    left, by_chance = (np.sqrt(max(1.0 - value**2, 0.0)) for value in (fit, chance))
    return order if fit > _ASSIGNED and left < _BY_CHANCE * by_chance else None


def _best_order(labels: Sequence[np.ndarray], models: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    from scipy.optimize import linear_sum_assignment

    label, model = np.hstack(labels), np.hstack(models)
    _, order = linear_sum_assignment(label @ model.T, maximize=True)
    return order, cosine(label.ravel(), model[order].ravel())


_VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")


def components(rows: Sequence[Row]) -> Iterator[Explanation]:
    """Stresses (six components) in another order, or with shears counted twice or not at all.

    The order is sought among all, for all structures together.
    """
    from scipy.optimize import linear_sum_assignment

    remedy = "Write stress as xx, yy, zz, yz, xz, xy (or as a 3 x 3 matrix), in eV/Å^3, tension positive."
    label, model = (np.array([getattr(row, name) for row in rows]) for name in ("label", "model"))
    for text, factor in (("", 1.0), (", shears doubled", 2.0), (", shears halved", 0.5)):
        scale = np.array([1.0, 1.0, 1.0, factor, factor, factor])
        _, order = linear_sum_assignment(np.sum((label[:, :, None] - (scale * model)[:, None, :]) ** 2, axis=0))
        if factor != 1.0 or not np.array_equal(order, np.arange(6)):
            names = [_VOIGT[i] for i in order]
            name = f"have their components in the order {', '.join(names)}{text}"
            cure = "" if text else f' units="voigt={"-".join(names)}" reads six numbers in this order.'
            undo = lambda row, scale=scale, order=order: row._replace(model=(scale * row.model)[order])  # noqa: E731
            yield Explanation(name, remedy + cure, undo)


def turned_axes() -> Iterator[Explanation]:
    """Stresses in other axes than the cell: exchanged, or of another sign."""
    remedy = "Write stress in the axes of the cell vectors."
    for order in itertools.permutations(range(3)):
        for signs in ((1.0, 1.0, 1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0)):
            if order == (0, 1, 2) and signs == (1.0, 1.0, 1.0):
                continue
            turn = np.eye(3)[list(order)] * np.array(signs)
            yield Explanation(
                f"have their axes in the order {', '.join('xyz'[i] for i in order)}",
                remedy,
                lambda row, turn=turn: row._replace(model=full_to_voigt(turn @ voigt_to_full(row.model) @ turn.T)),
            )
