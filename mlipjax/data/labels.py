"""Validation of labels: the one check of every door, whether labels come from a file, a store or an oracle.

Labels are real, finite numbers of the right shape, and not larger than those of any atoms.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mlipjax.system import Labels, stress_matrix

NAMES = ("energy", "forces", "stress")
MAX_ENERGY = 1e7
"""eV per atom: six times the total energy of the heaviest element."""
MAX_FORCE = 1e6
"""eV/Å: no two atoms that touch push each other harder."""
MAX_STRESS = 1e6
"""eV/Å^3."""
_TENSOR = ((3, 3), (6,), (9,))
_ROWS = 1024  # looked at together


class BadLabelError(ValueError):
    """Raised for what was given as a label and is none."""


def label_value(name: str, value: Any, n_atoms: int, what: str = "") -> np.ndarray:
    """Return a label as a float64 copy of shape (), (n_atoms, 3) or (3, 3).

    Args:
        name: "energy" (total, eV), "forces" (eV/Å), "stress" (eV/Å^3) or "virial" (eV); six components of a tensor are
            in Voigt order xx, yy, zz, yz, xz, xy.
        value: what was found.
        n_atoms: of the structure.
        what: the label in messages, if not its name.

    Raises:
        BadLabelError: saying that it has another shape or type, or is not finite or absurdly large.
    """
    shapes, limit, unit = {
        "energy": (((), (1,)), MAX_ENERGY * n_atoms, "eV"),
        "forces": (((n_atoms, 3),), MAX_FORCE, "eV/Å"),
        "stress": (_TENSOR, MAX_STRESS, "eV/Å^3"),
        "virial": (_TENSOR, np.inf, "eV"),
    }[name]
    array = _numbers(what or name, value, shapes)
    if (largest := np.abs(array).max(initial=0.0)) > limit:
        raise BadLabelError(f"{name} of {largest:.3g} {unit}, more than any atoms have ({limit:.3g})")
    return array.reshape(()) if name == "energy" else array if name == "forces" else stress_matrix(array)


def check_label(name: str, value: Any, n_atoms: int, where: str, key: str = "") -> np.ndarray:
    """As ``label_value``, for a label that stands in a file.

    Args:
        name, value, n_atoms: as there.
        where: file and structure, for the message.
        key: its name there.

    Raises:
        ValueError: starting with ``where``.
    """
    try:
        return label_value(name, value, n_atoms, f"{name} under {key!r}" if key else "")
    except BadLabelError as error:
        raise ValueError(f"{where}: {error}; correct it, or remove the label or the structure.") from None


def make_labels(n_atoms: int, energy: Any, forces: Any, stress: Any = None) -> Labels:
    """Labels of one structure from whatever a calculator returned, as float64 copies; ``None`` is a missing label.

    Args:
        n_atoms: of the structure.
        energy: one real number, eV.
        forces: (n_atoms, 3) real numbers, eV/Å.
        stress: (3, 3), (9,) or, in Voigt order xx, yy, zz, yz, xz, xy, (6,) real numbers, eV/Å^3.

    Raises:
        BadLabelError: see ``label_value``.
    """
    given = {"energy": energy, "forces": forces, "stress": stress}
    values = {name: label_value(name, value, n_atoms) for name, value in given.items() if value is not None}
    return Labels.create(n_atoms, **values)  # pyright: ignore[reportArgumentType]  (an energy is an array () here)


def check_labels(labels: Any, n_atoms: int, required: Sequence[str] = ()) -> Labels:
    """Return labels as ``make_labels`` would make them, with their own weights.

    Args:
        labels: what an oracle returned for one structure, or a store holds for it.
        n_atoms: of the structure.
        required: those of energy, forces and stress that must not be missing.

    Raises:
        BadLabelError: see ``label_value``; or it is no ``Labels``, lacks a required label, or a weight is none.
    """
    if not isinstance(labels, Labels):
        raise BadLabelError(f"the oracle returned {type(labels).__name__}, expected Labels")
    weights = {
        name: _numbers(f"weight of the {name}", getattr(labels, f"{name}_weight"), ((), (1,))).reshape(())
        for name in NAMES
    }
    if negative := [name for name in NAMES if weights[name] < 0.0]:
        raise BadLabelError(f"the weight of the {negative[0]} is {weights[negative[0]]:g}, expected 0 or more")
    values = {name: getattr(labels, name) if weights[name] > 0.0 else None for name in NAMES}
    if missing := [name for name in required if values[name] is None]:
        raise BadLabelError(f"the oracle returned no {missing[0]}")
    made = make_labels(n_atoms, **values)
    return dataclasses.replace(made, **{f"{name}_weight": np.float64(weight) for name, weight in weights.items()})


def check_label_arrays(
    labels: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray], counts: np.ndarray, where: Callable[[int], str]
) -> None:
    """Refuse labels as ``check_label`` does, and weights that are no finite numbers of 0 or more.

    All are screened together, which costs next to nothing; only those that the screen cannot clear are checked alone.

    Args:
        labels: "energy" (n,) eV, "forces" (A, 3) eV/Å and "stress" (n, 3, 3) eV/Å^3.
        weights: (n,) by the same names.
        counts: (n,) atoms of each structure; their sum is A.
        where: names a structure by its number.

    Raises:
        ValueError: for the first structure with a label or weight that is none.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    for name, weight in weights.items():
        for bad in np.flatnonzero(~(np.isfinite(weight) & (weight >= 0.0)))[:1]:
            raise ValueError(f"{where(bad)}: the weight of the {name} is {weight[bad]}, expected 0 or more.")
    limits = {"energy": MAX_ENERGY, "forces": MAX_FORCE, "stress": MAX_STRESS}  # of one atom: the smallest there is
    for name, values in labels.items():
        by_atom = name == "forces"
        step = _ROWS * (64 if by_atom else 1)
        for first in range(0, len(values), step):
            piece = np.asarray(values[first : first + step])
            odd = ~(np.abs(piece) <= limits[name]).reshape(len(piece), -1).all(axis=1)
            places = first + np.flatnonzero(odd)
            for row in np.unique(np.searchsorted(starts, places, side="right") - 1) if by_atom else places:
                part = slice(starts[row], starts[row + 1]) if by_atom else row
                check_label(name, np.asarray(values[part]), int(counts[row]), where(int(row)))


def _numbers(what: str, value: Any, shapes: Sequence[tuple[int, ...]]) -> np.ndarray:
    """A float64 copy of finite real numbers of one of the shapes."""
    if np.ma.is_masked(value):
        raise BadLabelError(f"{what}: {np.ma.count_masked(value)} of its numbers are masked")
    try:
        array = np.asarray(value)
    except Exception as error:
        raise BadLabelError(f"{what}: {type(value).__name__} that is no array ({error})") from None
    if array.dtype.kind not in "fiu":
        raise BadLabelError(f"{what}: found {str(value)[:60]!r} ({array.dtype}), expected real numbers")
    if array.shape not in shapes:
        raise BadLabelError(f"{what}: found shape {array.shape}, expected {' or '.join(map(str, shapes))}")
    with np.errstate(over="ignore"):
        array = np.array(array, np.float64)
    if bad := np.count_nonzero(~np.isfinite(array)):
        raise BadLabelError(f"{what} is not finite ({bad} of {array.size} numbers)")
    return array
