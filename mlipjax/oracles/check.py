"""The one check that every label passes before it is used or stored, whatever it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlipjax.data.checks import label_limit
from mlipjax.system import Labels, voigt_to_full


class BadLabelError(ValueError):
    """A label that is none."""


def make_labels(n_atoms: int, energy: Any, forces: Any, stress: Any = None) -> Labels:
    """Labels of one structure from whatever a calculator returned, as float64 copies; ``None`` is a missing label.

    Args:
        n_atoms: of the structure.
        energy: one real number, eV.
        forces: (n_atoms, 3) real numbers, eV/Å.
        stress: (3, 3), (9,) or, in Voigt order xx, yy, zz, yz, xz, xy, (6,) real numbers, eV/Å^3.

    Raises:
        BadLabelError: saying which one has another shape or type, or is not finite or absurdly large.
    """
    if energy is not None:
        energy = _real("energy", energy, ((), (1,)), *label_limit("energy", n_atoms)).reshape(())
    if forces is not None:
        forces = _real("forces", forces, ((n_atoms, 3),), *label_limit("forces", n_atoms))
    if stress is not None:
        stress = _real("stress", stress, ((3, 3), (6,), (9,)), *label_limit("stress", n_atoms))
        stress = voigt_to_full(stress) if stress.shape == (6,) else stress.reshape(3, 3)
    return Labels.create(n_atoms, energy, forces, stress)


def check_labels(labels: Any, n_atoms: int, required: Sequence[str] = ()) -> Labels:
    """Return labels as ``make_labels`` would make them, with their own weights.

    Args:
        labels: what an oracle returned for one structure, or a store holds for it.
        n_atoms: of the structure.
        required: those of energy, forces and stress that must not be missing.

    Raises:
        BadLabelError: see ``make_labels``; or it is no ``Labels``, lacks a required label, or a weight is none.
    """
    if not isinstance(labels, Labels):
        raise BadLabelError(f"the oracle returned {type(labels).__name__}, expected Labels")
    names = ("energy", "forces", "stress")
    weights = {
        name: _real(f"weight of the {name}", getattr(labels, f"{name}_weight"), ((), (1,)), np.inf, "").reshape(())
        for name in names
    }
    if negative := [name for name in names if weights[name] < 0.0]:
        raise BadLabelError(f"the weight of the {negative[0]} is {weights[negative[0]]:g}, expected 0 or more")
    values = {name: getattr(labels, name) if weights[name] > 0.0 else None for name in names}
    if missing := [name for name in required if values[name] is None]:
        raise BadLabelError(f"the oracle returned no {missing[0]}")
    made = make_labels(n_atoms, **values)
    return dataclasses.replace(made, **{f"{name}_weight": np.float64(weight) for name, weight in weights.items()})


def _real(name: str, value: Any, shapes: Sequence[tuple[int, ...]], limit: float, unit: str) -> np.ndarray:
    """A float64 copy of real numbers of one of the shapes."""
    if np.ma.is_masked(value):
        raise BadLabelError(f"{name}: {np.ma.count_masked(value)} of its numbers are masked")
    try:
        array = np.asarray(value)
    except Exception as error:
        raise BadLabelError(f"{name}: {type(value).__name__} that is no array ({error})") from None
    if array.dtype.kind not in "fiu":
        raise BadLabelError(f"{name}: found {array.dtype} numbers, expected real ones")
    if array.shape not in shapes:
        expected = " or ".join(map(str, shapes))
        raise BadLabelError(f"{name}: found shape {array.shape}, expected {expected}")
    with np.errstate(over="ignore"):
        array = np.array(array, np.float64)
    if not np.isfinite(array).all():
        count = np.count_nonzero(~np.isfinite(array))
        raise BadLabelError(f"found {name} that is not finite ({count} of {array.size} numbers)")
    if (largest := np.abs(array).max(initial=0.0)) > limit:
        raise BadLabelError(f"{name}: found {largest:.3g} {unit}, more than any atoms have ({limit:.3g})")
    return array


__all__ = ["BadLabelError", "check_labels", "make_labels"]
