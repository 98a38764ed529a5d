"""A driver for i-PI (Litman et al., J. Chem. Phys. 161, 062504 (2024)): all beads in one compiled call.

Units are converted with i-PI's own constants, so that energies that it writes in eV are the potential's to the last
digit. i-PI loads this file as it is: inside its process by ``<ffdirect><pes>custom</pes><pes_path>...``, or in a
process of its own by ``i-pi-driver-py -m custom -P THIS_FILE -o model=NAME,template=FILE``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from ipi.utils.units import unit_to_internal

from mlipjax.data import read_last_atoms
from mlipjax.probes.evaluator import Evaluation, Evaluator, load_evaluator
from mlipjax.system import System

__DRIVER_NAME__ = "mlipjax"
__DRIVER_CLASS__ = "Driver"

_BOHR = 1.0 / unit_to_internal("length", "angstrom", 1.0)
_HARTREE = 1.0 / unit_to_internal("energy", "electronvolt", 1.0)

Answer = tuple[float, np.ndarray, np.ndarray, str]
"""Energy (Hartree), forces (n, 3) (Hartree/Bohr), virial (3, 3) (Hartree) and further results as JSON, here none."""


class Driver:
    """The object that i-PI calls: structures in atomic units in, energies, forces and virials in atomic units out.

    Args:
        model: name, file or folder, as ``mlipjax.load`` takes it, or ``ase:module:factory``.
        template: file whose last structure has the atoms in i-PI's order, and the periodicity; i-PI sends neither.
        dtype: precision of the network; float64 gives the numbers of ``Calculator``.
        head: name of the model's energy head; by default its first.
        verbose: i-PI says so; nothing is printed here.

    Raises:
        ValueError, FileNotFoundError: if the model or the template cannot be read, or the model does not know an
            element or has no such head.
    """

    def __init__(
        self,
        model: str,
        template: str,
        dtype: str = "float64",
        head: str | None = None,
        verbose: bool = False,
        **_: Any,
    ) -> None:
        self.evaluate = load_evaluator(model, dtype, head)
        self.template = System.from_ase(read_last_atoms(template))

    def __call__(self, cell: Any, pos: Any) -> Any:
        """Evaluate one structure, or a list of them at once.

        Args:
            cell: (3, 3) Bohr, lattice vectors as columns; or a list of them.
            pos: (n, 3) Bohr; or a list of them.
        """
        if isinstance(cell, list):
            return batch_in_atomic_units(self.evaluate, self.template, cell, pos)
        return batch_in_atomic_units(self.evaluate, self.template, [cell], [pos])[0]


def batch_in_atomic_units(
    evaluate: Evaluator, template: System, cells: Sequence[np.ndarray], positions: Sequence[np.ndarray]
) -> list[Answer]:
    """Energies, forces and virials of structures of the same atoms, in i-PI's units and conventions.

    Args:
        evaluate: the potential.
        template: its atoms and periodicity; along directions without periodicity i-PI's cell means nothing.
        cells: (3, 3) Bohr each, lattice vectors as columns.
        positions: (n, 3) Bohr each.

    Raises:
        ValueError: for another number of atoms than the template has.
    """
    systems = []
    for cell, position in zip(cells, positions, strict=True):
        if position.shape != template.positions.shape:
            raise ValueError(f"i-PI sent {len(position)} atoms; the template has {template.n_atoms}.")
        rows = np.where(np.asarray(template.pbc)[:, None], _BOHR * cell.T, template.cell)
        systems.append(System(_BOHR * position, template.atomic_numbers, rows, template.pbc))
    return [_answer(result, system) for result, system in zip(evaluate(systems), systems, strict=True)]


def _answer(result: Evaluation, system: System) -> Answer:
    # minus dE/d(strain); without a stress (molecules, slabs) there is no pressure that i-PI could use
    stress = np.zeros((3, 3)) if result.stress is None else result.stress
    virial = -stress * abs(np.linalg.det(system.cell))
    return result.energy / _HARTREE, result.forces * (_BOHR / _HARTREE), virial / _HARTREE, ""
