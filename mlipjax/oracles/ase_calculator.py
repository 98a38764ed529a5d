"""Any ASE calculator as an oracle, named by the factory that makes it."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.labels import BadLabelError, make_labels
from mlipjax.factory import import_factory, make_calculator
from mlipjax.oracles.stale import is_same_structure
from mlipjax.system import Labels, System

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def evaluate(calculator: Calculator, system: System) -> Labels:
    """Run ``calculator`` on ``system`` and collect energy (eV), forces (eV/Å) and stress (eV/Å^3).

    Stress is asked for only where the calculator offers it and the system is periodic along all three axes;
    otherwise it is a missing label.

    Raises:
        BadLabelError: the calculator returned something that cannot be a label of this structure, or changed the
            structure, or remembers another one, so that its numbers belong to that.
        Exception: whatever the calculator raises.
    """
    atoms = system.to_ase()
    atoms.calc = calculator
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    if getattr(calculator, "converged", None) is False:  # VASP's says so, and gives its last energy all the same
        raise BadLabelError(f"{type(calculator).__name__} did not converge")
    stress: Any = None
    if all(system.pbc) and "stress" in calculator.implemented_properties:
        stress = calculator.get_stress(atoms)
    labels = make_labels(system.n_atoms, energy, forces, stress)
    after = System.from_ase(atoms)
    for name in ("atomic_numbers", "positions", "cell", "pbc"):
        if not np.array_equal(getattr(after, name), getattr(system, name)):
            raise BadLabelError(
                f"{type(calculator).__name__} changed the {name.replace('_', ' ')} of the structure: its numbers belong"
                " to another one"
            )
    _check_remembered(calculator, system)
    return labels


def _check_remembered(calculator: Any, system: System) -> None:
    """An ASE calculator keeps the structure that its results belong to as ``atoms``; one without says nothing."""
    from ase import Atoms

    atoms = getattr(calculator, "atoms", None)
    if isinstance(atoms, Atoms) and not is_same_structure(
        dataclasses.replace(System.from_ase(atoms), pbc=system.pbc), system
    ):
        raise BadLabelError(
            f"the results of {type(calculator).__name__} belong to another structure, the one that it keeps as atoms:"
            " was nothing computed for this one?"
        )


@dataclass(frozen=True)
class AseOracle:
    """Labels by the ASE calculator that ``factory`` makes: any code ASE can drive, density functional theory included.

    A calculator that works in the current folder is given an empty temporary one for each label, so that
    parallel labels do not overwrite each other's files.

    Attributes:
        factory: ``"module:function"``; the function takes no argument and returns a calculator. Workers import it
            by this name, so it must be importable there (current folder or installed).

    Labels are stored under ``factory``: a function that returns a calculator with other settings needs another
    name (or another run folder).
    """

    factory: str

    jittable = False
    name = "ase"

    def __post_init__(self) -> None:
        import_factory(self.factory)

    @property
    def identity(self) -> str:
        """The factory's name."""
        return f"ase:{self.factory}"

    def calculator(self) -> Calculator:
        """Call the factory.

        Raises:
            ValueError: it did not return a calculator.
        """
        return make_calculator(self.factory)

    def label(self, system: System) -> Labels:
        """Label one structure with a fresh calculator.

        Raises:
            Exception: whatever the calculator raises.
        """
        calculator: Any = self.calculator()
        if str(getattr(calculator, "directory", "")) != ".":
            return evaluate(calculator, system)
        with tempfile.TemporaryDirectory(prefix="mlipjax-label-") as folder:
            calculator.directory = type(calculator.directory)(folder)  # a path, or text
            return evaluate(calculator, system)
