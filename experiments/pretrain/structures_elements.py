"""Structures of all elements for a teacher to label: crystals, alloys, packings, surfaces, molecules, pairs.

A family is a generator: it yields structures one by one and is sent what the teacher says of each, so that it may go on
from there: towards zero stress and forces, then away from it, rattled, strained or hot. Every structure that a teacher
was asked about is kept. A structure that has a calculator already is kept with its labels as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list

from experiments.pretrain.compositions import cation, compose
from experiments.pretrain.prototypes import prototypes
from experiments.pretrain.sampling import rattled, rotated, strained
from experiments.pretrain.structures_molecular import compound
from experiments.pretrain.structures_pairs import dimers
from mlipjax.elements import covalent_radii
from mlipjax.probes.evaluator import Evaluation

Family = Generator[Atoms, Evaluation, None]

MOST_ATOMS = 40
_LIGANDS = ("H", "F", "Cl", "Br", "I", "OH", "O", "S", "H", "F", "Cl")
_ADSORBED = ("CO", "H2O", "H2", "O2", "N2", "CH4", "NH3", "CO2", "HCOOH", "CH3OH", "Cl2", "HF", "NO", "C2H4")


@dataclasses.dataclass
class Descent:
    """Steps towards zero stress and forces, with lengths from the last two evaluations (Barzilai and Borwein 1988).

    Attributes:
        stretch: strain per stress, Å^3/eV.
        move: displacement per force, Å^2/eV.
    """

    stretch: float = 0.5
    move: float = 0.03
    before: tuple[np.ndarray, ...] | None = None

    def step(self, atoms: Atoms, found: Evaluation) -> Atoms:
        """Return where to look next: at most 5 % of strain and 0.15 Å away."""
        stress = np.zeros((3, 3)) if found.stress is None else found.stress
        if self.before is not None:
            strain, moved, old_stress, old_forces = self.before
            self.stretch = _ratio(strain, stress - old_stress, self.stretch, (0.05, 4.0))
            self.move = _ratio(moved, old_forces - found.forces, self.move, (0.005, 0.3))
        strain = np.clip(-self.stretch * stress, -0.05, 0.05)
        moved = np.clip(self.move * found.forces, -0.15, 0.15)
        self.before = strain, moved, stress, found.forces
        atoms = atoms.copy()
        atoms.positions += moved
        if found.stress is not None:
            atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        return atoms


def _ratio(step: np.ndarray, change: np.ndarray, default: float, limits: tuple[float, float]) -> float:
    overlap = float(np.sum(step * change))
    return float(np.clip(np.sum(step * step) / overlap, *limits)) if overlap > 1e-12 else default


def descend(atoms: Atoms, steps: int) -> Generator[Atoms, Evaluation, Atoms]:
    """Ask about a structure and ``steps`` - 1 others on the way down; return where that leads."""
    descent = Descent()
    for _ in range(steps):
        found = yield atoms
        atoms = descent.step(atoms, found)
    return atoms


def around(rng: np.random.Generator, atoms: Atoms, *, hot: bool = True) -> Generator[Atoms, Evaluation, None]:
    """Ask about a structure near equilibrium, rattled a little, strained, and shaken as if hot or under pressure."""
    atoms = grown(atoms)
    yield rattled(rng, strained(rng, atoms, 0.01, 0.005), rng.uniform(0.0, 0.03))
    yield rattled(rng, strained(rng, atoms, 0.05, 0.02), rng.uniform(0.03, 0.12))
    if hot:
        yield rattled(rng, strained(rng, atoms, 0.1, 0.03), rng.uniform(0.1, 0.3))


def grown(atoms: Atoms, least: int = 8) -> Atoms:
    """Repeat a cell along its shortest vector, again and again, until it has so many atoms that can move apart."""
    while len(atoms) < least:
        repeats = [1, 1, 1]
        repeats[int(np.argmin(atoms.cell.lengths()))] = 2
        atoms = atoms.repeat(repeats)
    return atoms


def crystal(rng: np.random.Generator) -> Atoms:
    """Any elements in any structure type, at the distances of covalent radii."""
    found = prototypes()
    # more letters are more compounds
    weights = np.array([len(p.counts) ** 1.5 for p in found])
    prototype = found[int(rng.choice(len(found), p=weights / weights.sum()))]
    return prototype.occupied(compose(rng, prototype))


def crystals(rng: np.random.Generator) -> Family:
    """A crystal on the way to equilibrium, and around it."""
    atoms = yield from descend(rattled(rng, crystal(rng), 0.01), 5)
    yield from around(rng, atoms, hot=bool(rng.random() < 0.7))


def defects(rng: np.random.Generator) -> Family:
    """A supercell with a vacancy, exchanged atoms, or another element in it."""
    atoms = crystal(rng)
    atoms = yield from descend(atoms, 3)
    atoms = grown(atoms, 12)
    kind = rng.choice(["vacancy", "exchange", "substitute"])
    i, j = rng.choice(len(atoms), 2, replace=False) if len(atoms) > 1 else (0, 0)
    if kind == "vacancy" and len(atoms) > 3:
        del atoms[int(i)]
    elif kind == "exchange":
        atoms.numbers[[i, j]] = atoms.numbers[[j, i]]
    else:
        atoms.numbers[int(i)] = cation(rng)
    atoms = yield from descend(rattled(rng, atoms, 0.03), 3)
    yield rattled(rng, atoms, rng.uniform(0.03, 0.25))


def alloys(rng: np.random.Generator) -> Family:
    """Two to four metals at random on a close-packed or body-centred lattice."""
    by_name = {p.name: p for p in prototypes()}
    lattice = by_name[str(rng.choice(["fcc", "bcc", "hcp"]))]
    kinds = [cation(rng) for _ in range(rng.integers(2, 5))]
    atoms = lattice.occupied({"A": max(kinds, key=lambda z: covalent_radii([z])[0])})
    shape = [(2, 2, 2), (2, 2, 3), (3, 2, 1)][int(rng.integers(3))]
    atoms = atoms.repeat(shape)
    atoms.numbers = rng.choice(kinds, len(atoms))
    scale = covalent_radii(atoms.numbers).mean() / covalent_radii(kinds).max()
    atoms.set_cell(atoms.cell.array * scale, scale_atoms=True)
    atoms = yield from descend(atoms, 3)
    yield from around(rng, atoms)


def packings(rng: np.random.Generator) -> Family:
    """Melts and glasses: a composition at random places, pushed apart, then on the way down, then hot."""
    prototype = prototypes()[int(rng.integers(len(prototypes())))]
    elements = compose(rng, prototype)
    unit = [elements[role] for role in prototype.roles.tolist()]
    copies = max(1, int(rng.integers(10, 33)) // len(unit))
    atoms = packed(rng, np.array(unit * copies), rng.uniform(0.55, 0.75))
    for _ in range(2):
        atoms = yield from descend(atoms, 3)
        atoms = rattled(rng, atoms, rng.uniform(0.05, 0.25))
    yield strained(rng, atoms, 0.1, 0.02)


def packed(rng: np.random.Generator, numbers: np.ndarray, fraction: float) -> Atoms:
    """Spheres of covalent radii at a packing fraction in a random cell, pushed apart to nine tenths of contact."""
    radii = np.maximum(covalent_radii(numbers), 0.5)
    volume = 4.19 * np.sum(radii**3) / fraction
    shape = np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3))
    cell = shape * np.cbrt(volume / np.linalg.det(shape))
    atoms = Atoms(numbers, scaled_positions=rng.uniform(0, 1, (len(numbers), 3)), cell=cell, pbc=True)
    for _ in range(60):
        i, j, d, vectors = neighbour_list("ijdD", atoms, 2 * radii.max())
        overlap = np.clip(0.9 * (radii[i] + radii[j]) - d, 0, None)
        if len(d) == 0 or overlap.max() < 0.05:
            break
        push = np.zeros((len(numbers), 3))
        np.add.at(push, i, -0.5 * (overlap / np.maximum(d, 0.01))[:, None] * vectors)
        atoms.positions += push
    return atoms


def surfaces(rng: np.random.Generator) -> Family:
    """A slab of a crystal with vacuum along one axis, perhaps with a small molecule on it."""
    atoms = crystal(rng)
    while len(atoms) > MOST_ATOMS // 2:
        atoms = crystal(rng)
    atoms = yield from descend(atoms, 2)
    axis = int(rng.integers(3))
    order = [(axis + 1) % 3, (axis + 2) % 3, axis]
    slab = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell.array[order], pbc=True)
    thick = max(1, min(MOST_ATOMS // len(slab), int(np.ceil(6.0 / slab.cell.lengths()[2]))))
    slab = slab.repeat((1, 1, thick))
    slab.wrap()
    if rng.random() < 0.5 and len(slab) < MOST_ATOMS - 8:
        slab = _with_adsorbed(rng, slab)
    normal = np.cross(slab.cell.array[0], slab.cell.array[1])
    cell = slab.cell.array.copy()
    cell[2] += normal / np.linalg.norm(normal) * rng.uniform(6.0, 12.0)
    slab.set_cell(cell)
    slab = yield from descend(rattled(rng, slab, 0.02), 2)
    yield rattled(rng, slab, rng.uniform(0.03, 0.2))


def _with_adsorbed(rng: np.random.Generator, slab: Atoms) -> Atoms:
    guest = rotated(rng, molecule(str(rng.choice(_ADSORBED))))
    normal = np.cross(slab.cell.array[0], slab.cell.array[1])
    normal /= np.linalg.norm(normal)
    spot = rng.uniform(0, 1, 2) @ slab.cell.array[:2]
    height = (slab.positions @ normal).max() - (guest.positions @ normal).min() + rng.uniform(1.5, 2.6)
    guest.positions += spot - (spot @ normal) * normal + height * normal
    return slab + Atoms(guest.numbers, guest.positions)


def molecules(rng: np.random.Generator) -> Family:
    """A molecule of ASE's collection, or any element with ligands around it: relaxing, rattled, stretched."""
    atoms = _molecule(rng)
    atoms = yield from descend(rattled(rng, atoms, 0.02), 3)
    yield rattled(rng, atoms, rng.uniform(0.02, 0.08))
    yield rattled(rng, strained_molecule(rng, atoms), rng.uniform(0.05, 0.15))


def _molecule(rng: np.random.Generator) -> Atoms:
    if rng.random() < 0.4:
        names = [name for name in g2.names if len(molecule(name)) > 1]
        atoms = molecule(str(rng.choice(names)))
        return Atoms(atoms.numbers, atoms.positions)
    centre = chemical_symbols[cation(rng)]
    ligands = [str(rng.choice(_LIGANDS))] * int(rng.choice([1, 2, 3, 4, 6]))
    return compound(centre, ligands)


def strained_molecule(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """Scale a molecule along random axes by up to a tenth."""
    atoms = atoms.copy()
    random = rng.normal(scale=0.05, size=(3, 3))
    atoms.positions = atoms.positions @ (np.eye(3) * rng.uniform(0.95, 1.1) + 0.5 * (random + random.T))
    return atoms


def liquids(rng: np.random.Generator) -> Family:
    """A few molecules and perhaps ions in a periodic cell, dense as a molecular liquid or crystal."""
    first = _molecule(rng)
    parts = [first]
    while sum(map(len, parts)) < rng.integers(10, 30):
        parts.append(first if rng.random() < 0.5 else molecule(str(rng.choice(_ADSORBED))))
    if rng.random() < 0.4:
        salt = [str(rng.choice(["Li", "Na", "K", "Mg", "Ca", "Zn", "Cs"])), str(rng.choice(["F", "Cl", "Br", "I"]))]
        parts += [Atoms(symbol, positions=[[0, 0, 0]]) for symbol in salt]
    numbers = np.concatenate([part.numbers for part in parts])
    volume = 12.0 * np.sum(np.maximum(covalent_radii(numbers), 0.45) / 0.7) * rng.uniform(0.9, 1.4)
    edge = np.cbrt(volume)
    best: tuple[float, Atoms] = (0.0, Atoms())
    for _ in range(40):  # the roomiest of some places and orientations
        trial = Atoms(cell=np.eye(3) * edge, pbc=True)
        for part in parts:
            trial += Atoms(part.numbers, rotated(rng, part).positions + rng.uniform(0, edge, 3))
        groups = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        i, j, d = neighbour_list("ijd", trial, 3.0)
        apart = d[groups[i] != groups[j]]
        room = float(apart.min()) if len(apart) else 3.0
        best = max(best, (room, trial), key=lambda pair: pair[0])
    atoms = yield from descend(best[1], 5)
    yield rattled(rng, atoms, rng.uniform(0.03, 0.15))


FAMILIES: dict[str, tuple[Callable[[np.random.Generator], Family], float]] = {
    "crystals": (crystals, 0.45), "defects": (defects, 0.1), "alloys": (alloys, 0.07), "packings": (packings, 0.12),
    "surfaces": (surfaces, 0.08), "molecules": (molecules, 0.08), "liquids": (liquids, 0.04), "dimers": (dimers, 0.06),
}  # fmt: skip
"""Families and their shares of tasks."""
