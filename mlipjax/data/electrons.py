"""Electrons of a structure as files describe them (charge, spin, moments), which no model here takes into account."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.notices import notice

if TYPE_CHECKING:
    from ase import Atoms

_USUAL = {"charge": 0.0, "total_charge": 0.0, "spin": 1.0, "total_spin": 1.0, "multiplicity": 1.0}
_MOMENT = 0.1  # Bohr magnetons


def say_electrons(atoms: Atoms) -> None:
    """Say what a structure holds of its electrons, as a model's energies are those without it."""
    for key, usual in _USUAL.items():
        value = atoms.info.get(key, usual)
        if isinstance(value, (int, float, np.number)) and value not in (usual, 0):
            notice(f"structures name a {key} other than {usual:g}; models here do not take it into account.")
    results = {} if atoms.calc is None else atoms.calc.results
    moments = numbers(results.get("magmoms", atoms.arrays.get("initial_magmoms")))
    if np.abs(moments).max(initial=0.0) > _MOMENT:
        notice("structures carry magnetic moments; models here do not take them into account.")


def numbers(value: Any) -> np.ndarray:
    """Array of the numbers that are there; an empty one if there is nothing, or something else."""
    try:
        return np.asarray(() if value is None else value, np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)
