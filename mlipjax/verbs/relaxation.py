"""Result of a relaxation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlipjax.system import System
from mlipjax.units import GPA

if TYPE_CHECKING:
    from ase import Atoms

SYMPREC = 0.01
"""Å, how far atoms may be off for a symmetry to count."""


class Relaxation(NamedTuple):
    """One structure before and after.

    Attributes:
        initial: as given, with energy, forces and stress of the model.
        atoms: relaxed, with the same.
        converged: whether ``fmax`` is below what was asked for.
        fmax: eV/Å, largest force on a free atom, or on the cell.
        steps: evaluations.
        pressure: GPa, of the cell's outside.
        path: every structure on the way, if asked for.
    """

    initial: Atoms
    atoms: Atoms
    converged: bool
    fmax: float
    steps: int
    pressure: float
    path: tuple[Atoms, ...]

    @property
    def energy_change(self) -> float:
        """Energy gained, in eV (negative); of a structure under pressure the enthalpy."""
        change = self.atoms.get_potential_energy() - self.initial.get_potential_energy()
        if self.pressure == 0.0:
            return float(change)
        return float(change + self.pressure * GPA * (self.atoms.cell.volume - self.initial.cell.volume))

    def as_dict(self) -> dict[str, Any]:
        """Numbers before and after, JSON types; keys say the units."""
        return {
            "formula": self.atoms.get_chemical_formula(),
            "n_atoms": len(self.atoms),
            "converged": self.converged,
            "steps": self.steps,
            "fmax_eV_per_A": self.fmax,
            "pressure_GPa": self.pressure,
            "energy_change_eV": self.energy_change,
            "before": describe(self.initial),
            "after": describe(self.atoms),
        }


def moved(atoms: Atoms, system: System) -> Atoms:
    """A copy of ``atoms`` at the positions and cell of ``system``; constraints stay, momenta do not."""
    found = atoms.copy()
    found.arrays.pop("momenta", None)
    found.set_cell(np.asarray(system.cell), scale_atoms=False)
    found.set_positions(np.asarray(system.positions), apply_constraint=False)
    return found


def describe(atoms: Atoms) -> dict[str, Any]:
    """Energy, largest force on what may move, and of a cell its shape, stress and space group; JSON types."""
    calculator: Any = atoms.calc
    results = calculator.results
    found: dict[str, Any] = {
        "energy_eV": float(atoms.get_potential_energy()),
        "max_force_eV_per_A": float(np.linalg.norm(atoms.get_forces(), axis=1).max()),
    }
    if atoms.cell.rank == 3 and atoms.pbc.any():
        found["lengths_A"] = atoms.cell.lengths().tolist()
        found["angles_deg"] = atoms.cell.angles().tolist()
        found["volume_A3"] = float(atoms.cell.volume)
    if "stress" in results:
        found["stress_GPa"] = (results["stress"] / GPA).tolist()
    if atoms.pbc.all():
        found["space_group"] = space_group(atoms)
    return found


def space_group(atoms: Atoms) -> str | None:
    """Symbol and number, such as ``Fd-3m (227)``, within ``SYMPREC``; ``None`` if spglib finds none."""
    import warnings

    import spglib

    cell: Any = (atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about how it reports errors
            return spglib.get_spacegroup(cell, symprec=SYMPREC)
    except Exception:  # spglib raises errors of its own since version 2.7, and returned None before
        return None
