"""Label structures by GFN1-xTB, alone or along short relaxations and trajectories, and count what fails."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

from mlipjax.oracles.xtb import Xtb

MAX_FORCE = 50.0  # eV/Å: beyond it the method, and any fit to it, is meaningless
MAX_ATOMS = 72


class Unusable(RuntimeError):
    """A frame that is not kept; the message is the reason, used as the key of the failure count."""


class Labeller:
    """Collects labelled frames of one group (all that descends from one starting structure).

    Attributes:
        frames: structures with a ``SinglePointCalculator`` holding energy, forces and (periodic) stress.
        failures: reason -> number of frames dropped.
    """

    def __init__(self, rng: np.random.Generator, family: str, group: str):
        self.rng, self.family, self.group = rng, family, group
        self.frames: list[Atoms] = []
        self.failures: Counter[str] = Counter()
        self._oracle = Xtb(max_iterations=200)

    def single(self, atoms: Atoms, config_type: str) -> None:
        """Label one structure."""
        atoms = self._prepared(atoms)
        try:
            self._keep(atoms, config_type)
        except Unusable as reason:
            self.failures[str(reason)] += 1

    def relax(self, atoms: Atoms, steps: int, config_type: str, keep: int = 1) -> Atoms:
        """Move downhill for at most ``steps`` steps; label the last ``keep`` of evenly spaced frames."""
        atoms = self._prepared(atoms)
        every = max(steps // keep, 1)
        optimizer = FIRE(atoms, logfile=None, maxstep=0.1)  # pyright: ignore[reportArgumentType]
        try:
            for _ in range(keep):
                self._run(lambda: optimizer.run(fmax=0.02, steps=every))
                self._keep(atoms, config_type)
                if optimizer.converged(atoms.get_forces().ravel()):
                    break
        except Unusable as reason:
            self.failures[str(reason)] += 1
        return bare(atoms)

    def burst(self, atoms: Atoms, temperature: float, frames: int, every: int, config_type: str) -> Atoms:
        """Short Langevin trajectory on the xTB surface; every ``every``-th step (0.5 to 1 fs) is kept."""
        atoms = self._prepared(atoms)
        MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=self.rng)
        timestep = (1.0 if temperature < 900 else 0.5) * units.fs
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            dynamics = Langevin(atoms, timestep, temperature_K=temperature, friction=0.02 / units.fs, rng=self.rng)
        try:
            for _ in range(frames):
                self._run(lambda: dynamics.run(every))
                self._keep(atoms, config_type)
        except Unusable as reason:
            self.failures[str(reason)] += 1
        return bare(atoms)

    def _prepared(self, atoms: Atoms) -> Atoms:
        atoms = bare(atoms)
        atoms.calc = self._oracle.calculator()
        return atoms

    def _run(self, move) -> None:
        try:
            move()
        except Exception as error:
            raise Unusable("no self-consistency") from error

    def _keep(self, atoms: Atoms, config_type: str) -> None:
        if len(atoms) > MAX_ATOMS:
            raise Unusable("too many atoms")
        self._run(atoms.get_forces)
        results: Any = atoms.calc.results  # pyright: ignore[reportOptionalMemberAccess]
        forces = results["forces"]
        if not np.isfinite(forces).all() or not np.isfinite(results["energy"]):
            raise Unusable("not finite")
        if np.linalg.norm(forces, axis=1).max() > MAX_FORCE:
            raise Unusable(f"force above {MAX_FORCE:g} eV/Å")
        frame = bare(atoms)
        labels = {"energy": float(results["energy"]), "forces": forces.copy()}
        if atoms.pbc.all():
            labels["stress"] = results["stress"].copy()
        frame.calc = SinglePointCalculator(frame, **labels)
        frame.info = {"family": self.family, "group": self.group, "config_type": config_type}
        self.frames.append(frame)


def bare(atoms: Atoms) -> Atoms:
    """Structure alone: no calculator, momenta, charges or notes."""
    return Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)


def rattled(rng: np.random.Generator, atoms: Atoms, sigma: float) -> Atoms:
    """Copy with Gaussian displacements of standard deviation ``sigma`` (Å) per coordinate."""
    atoms = atoms.copy()
    atoms.positions += rng.normal(scale=sigma, size=(len(atoms), 3))
    return atoms


def strained(rng: np.random.Generator, atoms: Atoms, linear: float, shear: float = 0.0) -> Atoms:
    """Copy with a random isotropic strain within ±``linear`` and a random symmetric strain of scale ``shear``."""
    atoms = atoms.copy()
    random = rng.normal(scale=shear, size=(3, 3)) if shear else np.zeros((3, 3))
    strain = np.eye(3) * (1 + rng.uniform(-linear, linear)) + 0.5 * (random + random.T)
    atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
    return atoms


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Uniform random rotation matrix (QR decomposition of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def rotated(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """Copy in a random orientation, centred at the origin."""
    atoms = atoms.copy()
    atoms.positions = (atoms.positions - atoms.positions.mean(axis=0)) @ random_rotation(rng)
    return atoms
