"""Aqueous electrolytes, other liquids, molten and amorphous salts, and droplets of them."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import FIRE

from experiments.pretrain.force_field import ForceField, Topology
from experiments.pretrain.sampling import Labeller, rotated
from experiments.pretrain.structures_molecular import base_molecule
from mlipjax.oracles.xtb import Xtb

CHARGE = {"Li": 1, "Na": 1, "K": 1, "Mg": 2, "Ca": 2, "Co": 2, "Ni": 2, "Cu": 2, "Zn": 2, "Al": 3, "F": -1,
          "Cl": -1, "Br": -1, "OH": -1, "H3O": 1, "O": -2, "S": -2, "Si": 4, "Ti": 4, "B": 3}  # fmt: skip
ION_SCREENING = 0.85
# Å^3 at ordinary density
VOLUME = {"H2O": 29.9, "OH": 25.0, "H3O": 30.0, "Li": 12.0, "Na": 18.0, "K": 30.0, "Mg": 12.0, "Ca": 18.0,
          "Al": 10.0, "Co": 12.0, "Ni": 12.0, "Cu": 14.0, "Zn": 12.0, "F": 20.0, "Cl": 35.0, "Br": 42.0, "O": 17.0,
          "S": 32.0, "Si": 6.0, "Ti": 9.0, "B": 6.0}  # fmt: skip
# salt -> (ions, weight): LiCl in water is the main use of the model. No periodic system may hold Br together
# with N, O, P or S: there tblite's periodic halogen-bond correction returns forces of 10^4 eV/Å.
SALTS = {
    "LiCl": (["Li", "Cl"], 8), "NaCl": (["Na", "Cl"], 3), "KF": (["K", "F"], 2), "KCl": (["K", "Cl"], 1),
    "LiF": (["Li", "F"], 1), "CoCl2": (["Co", "Cl", "Cl"], 4), "MgCl2": (["Mg", "Cl", "Cl"], 1),
    "CaCl2": (["Ca", "Cl", "Cl"], 1), "ZnCl2": (["Zn", "Cl", "Cl"], 1), "NiCl2": (["Ni", "Cl", "Cl"], 0.5),
    "CuCl2": (["Cu", "Cl", "Cl"], 0.5), "AlCl3": (["Al", "Cl", "Cl", "Cl"], 0.5), "LiOH": (["Li", "OH"], 1),
    "NaOH": (["Na", "OH"], 0.5), "H3OCl": (["H3O", "Cl"], 1.5), "H3OOH": (["H3O", "OH"], 1),
}  # fmt: skip
MELTS = [
    ["Li", "Cl"], ["Na", "Cl"], ["K", "F"], ["K", "Cl"], ["Li", "F"], ["Na", "Br"], ["Li", "Br"], ["Mg", "O"],
    ["Ca", "F", "F"], ["Si", "O", "O"], ["Ti", "O", "O"], ["Al", "Al", "O", "O", "O"], ["Zn", "O"],
    ["Li", "Li", "O"], ["Zn", "Cl", "Cl"], ["B", "B", "O", "O", "O"], ["Ca", "O"], ["Li", "Li", "S"],
    ["Na", "Na", "S"], ["Cu", "S"], ["Ni", "O"], ["Co", "O"], ["Na", "Si", "Al", "O", "O", "O", "O"],
]  # fmt: skip
ORGANIC = ["CH3OH", "CH3CN", "NH3", "CH4", "C2H6", "CO2", "HCl", "HF", "SH2", "H2CO", "CH3OCH3", "C2H4", "CCl4", "N2",
           "CH3Cl", "HCOOH", "CH3SH", "SO2", "CS2", "SiH4", "PH3", "C6H6", "CH3CONH2", "BF3"]  # fmt: skip


@lru_cache(maxsize=256)
def _species(name: str) -> tuple[Atoms, Topology]:
    """A molecule or ion by name, at its xTB geometry, with force-field charges."""
    if name in ("OH", "H3O"):
        atoms = molecule("OH") if name == "OH" else molecule("NH3")
        if name == "H3O":
            atoms.numbers[0] = 8
        oxygen = -1.25 if name == "OH" else -0.5
        charges = np.where(atoms.numbers == 8, oxygen, (CHARGE[name] - oxygen) / (len(atoms) - 1))
        return atoms, Topology.of_molecule(atoms, ION_SCREENING * charges)
    if name in CHARGE:
        atoms = Atoms(name, positions=[[0, 0, 0]])
        return atoms, Topology.of_molecule(atoms, np.array([ION_SCREENING * CHARGE[name]]))
    return _solvent(molecule(name), 0.82 if name == "H2O" else None)


def _solvent(atoms: Atoms, largest_charge: float | None = None) -> tuple[Atoms, Topology]:
    """Relax a neutral molecule by xTB and take its charges, scaled up to what a liquid polarises them to."""
    atoms = Atoms(atoms.numbers, atoms.positions, calculator=Xtb().calculator())
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=0.03, steps=60)  # pyright: ignore[reportArgumentType]
    charges = atoms.get_charges()
    charges *= largest_charge / abs(charges).max() if largest_charge else 1.2
    return Atoms(atoms.numbers, atoms.positions), Topology.of_molecule(atoms, charges - charges.mean())


def _pack(rng: np.random.Generator, parts: list[Atoms], box: np.ndarray, periodic: bool) -> Atoms:
    """Insert the parts one by one, each at the roomiest of 60 random places and orientations."""
    placed = np.empty((0, 3))
    atoms = Atoms(cell=np.diag(box) if periodic else None, pbc=periodic)
    for part in parts:
        best, best_gap = part.positions, -1.0
        for _ in range(60):
            trial = rotated(rng, part).positions + rng.uniform(0, box)
            delta = trial[:, None] - placed
            if periodic:
                delta -= box * np.round(delta / box)
            gap = np.linalg.norm(delta, axis=-1).min() if len(placed) else np.inf
            if gap > best_gap:
                best, best_gap = trial, gap
        placed = np.concatenate([placed, best])
        atoms += Atoms(part.numbers, positions=best)
    return atoms


def _trajectory(rng, atoms: Atoms, topology: Topology, temperature: float, frames: int, every: int) -> list[Atoms]:
    """Force-field Langevin trajectory after a short minimisation; returns evenly spaced frames."""
    atoms = atoms.copy()
    atoms.calc = ForceField(topology)
    FIRE(atoms, logfile=None, maxstep=0.1).run(fmax=1.0, steps=150)  # pyright: ignore[reportArgumentType]
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        dynamics = Langevin(atoms, 0.8 * units.fs, temperature_K=temperature, friction=0.03 / units.fs, rng=rng)
    kept = []
    dynamics.run(every)
    for _ in range(frames):
        dynamics.run(every)
        kept.append(atoms.copy())
    return kept


def _sample(
    lab: Labeller, species, volume: float | None, temperature: float, config_type: str, frames: int, bursts: int
):
    """Pack, shake with the force field, label the frames, and follow the last ``bursts`` of them by xTB."""
    rng = lab.rng
    parts, topologies = zip(*species, strict=True)
    periodic = volume is not None
    n_atoms = sum(len(part) for part in parts)
    if periodic:
        shape = rng.uniform(0.9, 1.1, 3)
        box = shape / np.cbrt(shape.prod()) * np.cbrt(volume)
    else:
        box = np.full(3, 1.1 * np.cbrt(14.0 * n_atoms))
    start = _pack(rng, list(parts), box, periodic)
    drafts = _trajectory(rng, start, Topology.join(list(topologies)), temperature, frames, 80)
    for k, draft in enumerate(drafts):
        lab.single(draft, config_type)
        if k >= frames - bursts:
            lab.burst(draft, temperature, 2, 4, config_type + " xtb md")


def _electrolyte(rng: np.random.Generator, n_atoms: int) -> list[str]:
    """Names of ions and waters with about ``n_atoms`` atoms; a tenth is pure water."""
    names = list(SALTS)
    weights = np.array([SALTS[n][1] for n in names])
    ions: list[str] = []
    if rng.random() > 0.1:
        for _ in range(rng.integers(1, 4 if n_atoms > 30 else 2)):
            ions += SALTS[rng.choice(names, p=weights / weights.sum())][0]
    waters = max((n_atoms - sum(len(_species(i)[0]) for i in ions)) // 3, 1)
    return ions + ["H2O"] * int(waters)


def _temperature(rng: np.random.Generator) -> float:
    return rng.choice([300.0, rng.uniform(300, 600), rng.uniform(600, 1500)], p=[0.4, 0.4, 0.2])


def electrolytes(lab: Labeller) -> None:
    """Periodic water with ions, 24 to 60 atoms, density 0.85 to 1.2 of the ordinary one."""
    rng = lab.rng
    names = _electrolyte(rng, int(rng.choice([rng.integers(24, 40), rng.integers(40, 61)], p=[0.55, 0.45])))
    volume = sum(VOLUME[n] for n in names) * rng.uniform(0.85, 1.15)
    _sample(
        lab, [_species(n) for n in names], volume, _temperature(rng), "aqueous electrolyte", 6, int(rng.random() < 0.5)
    )


def droplets(lab: Labeller) -> None:
    """The same without periodicity: clusters of 2 to 12 waters with or without one salt."""
    rng = lab.rng
    names = _electrolyte(rng, int(rng.integers(6, 31)))
    _sample(lab, [_species(n) for n in names], None, 0.7 * _temperature(rng), "droplet", 5, 1)


def organics(lab: Labeller) -> None:
    """Molecular liquids and mixtures with water, 15 to 45 atoms."""
    rng = lab.rng
    pool = [_species(rng.choice(ORGANIC)), _species(rng.choice([*ORGANIC, "H2O", "H2O", "H2O"]))]
    if rng.random() < 0.5:
        unusual = base_molecule(rng)
        pool.append(_solvent(unusual) if len(unusual) > 2 and 35 not in unusual.numbers else pool[0])
    species, target = [], rng.integers(15, 38)
    while sum(len(part) for part, _ in species) < target:
        species.append(pool[rng.integers(len(pool))])
    heavy = sum(int((part.numbers > 1).sum()) for part, _ in species)
    hydrogens = sum(int((part.numbers == 1).sum()) for part, _ in species)
    volume = (19.0 * heavy + 6.0 * hydrogens) * rng.uniform(0.9, 1.5) + 60.0
    _sample(lab, species, volume, 0.8 * _temperature(rng), "molecular liquid", 4, 1)


def melts(lab: Labeller) -> None:
    """Molten or glassy ionic compounds, 24 to 36 atoms, periodic."""
    rng = lab.rng
    unit = MELTS[rng.integers(len(MELTS))]
    names = unit * int(rng.integers(24, 37) // len(unit))
    volume = sum(VOLUME[n] for n in names) * rng.uniform(0.85, 1.3)
    _sample(lab, [_species(n) for n in names], max(volume, 330.0), rng.uniform(500, 3000), "melt", 3, 0)
