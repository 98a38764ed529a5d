"""Make the start structures of ``experiments.periodic``: LiCl in water, and water, equilibrated with GFN1-xTB.

    python -m experiments.periodic.electrolyte   # data/electrolyte.extxyz, about three minutes
    python -m experiments.periodic.electrolyte --n-salt 0 --n-water 4 --density 1 --steps 500 --out data/water.extxyz

15 water molecules and one LiCl (47 atoms, 3.7 mol per kg of water) at 1.05 g/cm^3, the density of such a solution; and
four molecules, few enough for labels by density functional theory on two cores.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tyro
from ase import Atoms, units
from ase.build import molecule
from ase.geometry import get_distances
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

from experiments.lab.paths import ELECTROLYTE
from mlipjax.oracles.xtb import Xtb


@dataclasses.dataclass(frozen=True)
class Config:
    """Make water, or an aqueous LiCl solution.

    Attributes:
        out: file to write.
        n_water: water molecules.
        n_salt: pairs of Li and Cl.
        density: g/cm^3.
        temperature: K.
        steps: MD steps of 1 fs.
        seed: of the packing and the velocities.
    """

    out: Path = ELECTROLYTE
    n_water: int = 15
    n_salt: int = 1
    density: float = 1.05
    temperature: float = 300.0
    steps: int = 200
    seed: int = 0


def pack(config: Config, rng: np.random.Generator) -> Atoms:
    """Place molecules at random, as far from each other as a few hundred tries allow."""
    parts = [*(Atoms(name) for name in ("Li", "Cl") * config.n_salt), *(molecule("H2O") for _ in range(config.n_water))]
    mass = sum(part.get_masses().sum() for part in parts)
    edge = (mass / units.kg * units.m**3 / (1000.0 * config.density)) ** (1 / 3)
    packed = Atoms(cell=[edge] * 3, pbc=True)
    for part in parts:
        tries = [_place(part, packed, edge, rng) for _ in range(300)]
        packed += max(tries, key=lambda trial: trial[0])[1]
    return packed


def _place(part: Atoms, packed: Atoms, edge: float, rng: np.random.Generator) -> tuple[float, Atoms]:
    trial = part.copy()
    trial.rotate(rng.uniform(0.0, 360.0), rng.normal(size=3), center="COM")
    trial.translate(rng.uniform(0.0, edge, size=3) - trial.get_center_of_mass())
    if len(packed) == 0:
        return 0.0, trial
    distances = get_distances(trial.positions, packed.positions, cell=packed.cell, pbc=True)[1]
    return float(distances.min()), trial


def main(config: Config) -> None:
    """Pack, relax, equilibrate, write."""
    rng = np.random.default_rng(config.seed)
    atoms = pack(config, rng)
    atoms.calc = Xtb().calculator()
    relaxation = FIRE(atoms, logfile=None)  # pyright: ignore[reportArgumentType]
    relaxation.run(fmax=0.5, steps=100)
    MaxwellBoltzmannDistribution(atoms, temperature_K=config.temperature, rng=rng)
    dynamics = Langevin(
        atoms, units.fs, temperature_K=config.temperature, friction=0.05 / units.fs, fixcm=False, rng=rng
    )
    dynamics.run(config.steps)
    atoms.wrap()
    structure = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    write(config.out, structure, format="extxyz")
    print(f"{config.out}: {len(atoms)} atoms, {atoms.cell.lengths()[0]:.3f} Å, {atoms.get_temperature():.0f} K")


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
