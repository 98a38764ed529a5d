"""Trajectories that an oracle itself drives: test sets that no model under test has shaped."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary

from mlipjax.oracles import Oracle
from mlipjax.system import System


class _OracleCalculator(Calculator):
    """ASE calculator around an oracle, for its own dynamics."""

    implemented_properties = ("energy", "forces")  # pyright: ignore[reportAssignmentType]

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        """Label the structure."""
        super().calculate(atoms, properties, system_changes)
        current: Any = self.atoms
        labels = self._oracle.label(System.from_ase(current))
        self.results = {"energy": float(labels.energy), "forces": np.asarray(labels.forces)}


def oracle_frames(
    oracle: Oracle, system: System, kelvin: float, n_frames: int, *, every: int, timestep: float = 1.0, seed: int = 0
) -> list[Atoms]:
    """Labelled frames of Langevin dynamics (friction 0.01/fs) by an oracle, from drawn velocities.

    Args:
        oracle: that drives, and labels.
        system: where it starts.
        kelvin: temperature in K.
        n_frames: frames kept.
        every: MD steps between two of them.
        timestep: fs.
        seed: of velocities and noise.
    """
    atoms, rng = system.to_ase(), np.random.default_rng(seed)
    atoms.calc = _OracleCalculator(oracle)
    MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
    Stationary(atoms)
    dynamics = Langevin(
        atoms, timestep * units.fs, temperature_K=kelvin, friction=0.01 / units.fs, fixcm=False, rng=rng
    )
    frames = []
    for _ in range(n_frames):
        dynamics.run(every)
        results = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
        frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, calculator=results))
    return frames
