"""GFN1-xTB through tblite: a semi-empirical quantum-mechanical method for most of the periodic table, in process.

Reference: Grimme, Bannwarth, Shushkov, J. Chem. Theory Comput. 13, 1989 (2017).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlipjax.oracles.ase_calculator import evaluate
from mlipjax.system import Labels, System

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator

_HALOGEN_BOND_DONORS = {35, 53, 85}
_HALOGEN_BOND_ACCEPTORS = {7, 8, 15, 16}


@dataclass(frozen=True)
class Xtb:
    """Tight-binding labels: total energies in eV (electronic free energies), forces, and stress of periodic systems.

    The Brillouin zone is sampled at Gamma only, so a crystal needs a supercell of about 8 Å or more along
    every axis. A system that is periodic along some axes only is treated as periodic along all of them when it
    has a full cell (leave vacuum), because tblite knows nothing in between.

    Attributes:
        method: a tblite method name.
        accuracy: tblite's numerical accuracy; smaller is tighter.
        electronic_temperature: of the Fermi occupation, K. The usual 300 K and the default agree to 0.1 meV for
            liquids and insulators, but where a gap closes (separated ions, broken bonds, metals) the cycle
            converges at 1000 K and mostly does not at 300 K.
        max_iterations: of the self-consistent cycle; a system that needs more is a failed label.
    """

    method: str = "GFN1-xTB"
    accuracy: float = 1.0
    electronic_temperature: float = 1000.0
    max_iterations: int = 250

    jittable = False

    @property
    def name(self) -> str:
        """Short name for reports."""
        return "xtb"

    @property
    def identity(self) -> str:
        """Everything that decides the numbers: part of the key under which labels are stored."""
        return (
            f"tblite:{self.method}:accuracy={self.accuracy!r}:Te={self.electronic_temperature!r}"
            f":iterations={self.max_iterations}"
        )

    def calculator(self) -> Calculator:
        """Return a fresh ASE calculator with these settings.

        Raises:
            ValueError: tblite is not installed.
        """
        # tblite reads the thread count when OpenMP starts; one process is one label, so more threads only compete
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        try:
            from tblite.ase import TBLite
        except ImportError as error:
            raise ValueError("the xtb oracle needs the package tblite: pip install tblite") from error
        return TBLite(
            method=self.method,
            accuracy=self.accuracy,
            electronic_temperature=self.electronic_temperature,
            max_iterations=self.max_iterations,
            verbosity=0,
        )

    def label(self, system: System) -> Labels:
        """Energy, forces and (for a periodic system) stress of one structure.

        Raises:
            ValueError: the system is periodic and has no volume, or one that GFN1-xTB gets wrong (see the class).
            Exception: whatever tblite raises when the cycle does not converge or an element is unknown.
        """
        if any(system.pbc):
            self._check_periodic(system)
        return evaluate(self.calculator(), system)

    def _check_periodic(self, system: System) -> None:
        if abs(np.linalg.det(np.asarray(system.cell))) < 1e-6:
            raise ValueError(
                f"pbc is {system.pbc} but the cell has no volume; xtb needs three lattice vectors (with vacuum along"
                " directions that are not periodic), or pbc False everywhere"
            )
        found = set(np.asarray(system.atomic_numbers).tolist())
        if self.method == "GFN1-xTB" and found & _HALOGEN_BOND_DONORS and found & _HALOGEN_BOND_ACCEPTORS:
            raise ValueError(
                "tblite's halogen-bond correction is wrong in periodic systems: GFN1-xTB cannot label Br, I or At"
                " together with N, O, P or S there. Use method=GFN2-xTB, or a structure without periodicity"
            )
