"""Molecules, pairs of atoms, and close contacts between molecules."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii

from experiments.pretrain.force_field import bonds
from experiments.pretrain.sampling import Labeller, rattled, rotated

ELEMENTS = ["H", "Li", "B", "C", "N", "O", "F", "Na", "Mg", "Al", "Si", "P", "S", "Cl", "K", "Ca", "Ti", "Co",
            "Ni", "Cu", "Zn", "Br"]  # fmt: skip
MAIN = ["H", "Li", "C", "N", "O", "F", "Na", "Cl", "K", "Co"]
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / np.sqrt(3)
OCTAHEDRON = np.concatenate([np.eye(3), -np.eye(3)])
TRIGONAL = np.array([[np.cos(a), np.sin(a), 0.0] for a in np.arange(3) * 2 * np.pi / 3])

# centre -> ligands; hydroxide is "OH"
COMPOUNDS = {
    "Li": [["H"], ["Br"], ["OH"], ["Cl"]], "Na": [["H"], ["F"], ["Br"], ["OH"]],
    "K": [["H"], ["F"], ["Cl"], ["Br"], ["OH"]], "Mg": [["H"] * 2, ["F"] * 2, ["Cl"] * 2, ["OH"] * 2],
    "Ca": [["F"] * 2, ["Cl"] * 2, ["OH"] * 2], "B": [["H"] * 3, ["Br"] * 3, ["OH"] * 3, ["OH", "F", "F"]],
    "Al": [["H"] * 3, ["OH"] * 3, ["Br"] * 3, ["Cl", "Cl", "OH"]],
    "Si": [["OH"] * 4, ["Br"] * 4, ["Cl", "H", "H", "OH"]],
    "P": [["O", "OH", "OH", "OH"], ["Cl"] * 3, ["Br"] * 3, ["O", "Cl", "Cl", "Cl"]],
    "S": [["O", "O", "OH", "OH"], ["F"] * 6, ["O"] * 3, ["Cl", "Cl"]],
    "C": [["Br"] * 4, ["Br", "H", "H", "H"], ["F", "Br", "Cl", "H"]],
    "N": [["H", "H", "OH"], ["Cl"] * 3, ["O", "O", "OH"]], "Cl": [["O", "O", "O", "OH"]], "H": [["Br"]],
    "Br": [["Br"], ["Cl"]],
    "Ti": [["Cl"] * 4, ["F"] * 4, ["Br"] * 4, ["O", "O"], ["OH"] * 4, ["H"] * 4],
    "Co": [["Cl"] * 2, ["F"] * 2, ["OH"] * 2, ["Cl"] * 4 + ["Li"] * 2],
    "Ni": [["Cl"] * 2, ["F"] * 2, ["OH"] * 2], "Cu": [["Cl"], ["Cl"] * 2, ["OH"], ["F"], ["H"], ["Br"]],
    "Zn": [["Cl"] * 2, ["Br"] * 2, ["F"] * 2, ["OH"] * 2, ["H"] * 2],
}  # fmt: skip
COORDINATED = ["Li", "Na", "K", "Mg", "Ca", "Co", "Ni", "Cu", "Zn", "Al", "Ti"]
SUBSTITUENTS = ["F", "Cl", "Br", "OH", "CH3", "NH2", "SH", "SiH3", "PH2", "BH2"]
SOLVENTS = ["H2O", "H2O", "H2O", "CH3OH", "NH3", "HCl", "CH4", "CO2", "CH3CN", "HF", "SH2", "H2CO", "HCOOH"]


def _bond(a: str, b: str) -> float:
    return covalent_radii[atomic_numbers[a]] + covalent_radii[atomic_numbers[b]]


def compound(centre: str, ligands: list[str]) -> Atoms:
    """Central atom with ligands at ideal directions and covalent distances."""
    directions = {
        1: np.eye(3)[:1], 2: np.array([[1.0, 0, 0], [-0.8, 0.6, 0]]), 3: TRIGONAL, 4: TETRAHEDRON, 6: OCTAHEDRON
    }[len(ligands)]  # fmt: skip
    atoms = Atoms(centre, positions=[[0, 0, 0]])
    for ligand, direction in zip(ligands, directions, strict=True):
        element = ligand[0] if ligand == "OH" else ligand
        tip = direction * _bond(centre, element)
        atoms += Atoms(element, positions=[tip])
        if ligand == "OH":
            side = np.cross(direction, [0.3, 0.5, 0.8])
            atoms += Atoms("H", positions=[tip + 0.3 * direction + 0.9 * side / np.linalg.norm(side)])
    return atoms


def aqua_complex(rng: np.random.Generator) -> Atoms:
    """Metal halide with four or fewer molecules of water around the metal, electrically neutral."""
    metal = rng.choice(COORDINATED)
    charge = {"Li": 1, "Na": 1, "K": 1, "Al": 3, "Ti": 4}.get(metal, 2)
    halide = rng.choice(["Cl", "F", "Br"], p=[0.6, 0.25, 0.15])
    sites = OCTAHEDRON[rng.permutation(6)]
    atoms = Atoms(metal, positions=[[0, 0, 0]])
    for k in range(charge):
        atoms += Atoms(halide, positions=[sites[k] * _bond(metal, halide)])
    for k in range(charge, charge + rng.integers(1, 7 - charge)):
        water = molecule("H2O")
        water.positions -= water.positions[0]
        outward = water.positions[1:].mean(axis=0)
        water.rotate(outward, sites[k])
        water.translate(sites[k] * (_bond(metal, "O") + 0.1))
        atoms += water
    return rattled(rng, atoms, 0.05)


def base_molecule(rng: np.random.Generator) -> Atoms:
    """A molecule of ASE's G2 set or an inorganic compound, perhaps with hydrogens replaced by other groups."""
    kind = rng.choice(["g2", "substituted", "compound", "complex"], p=[0.3, 0.35, 0.2, 0.15])
    if kind == "complex":
        return aqua_complex(rng)
    if kind == "compound":
        centre = rng.choice(list(COMPOUNDS))
        options = COMPOUNDS[centre]
        return compound(centre, options[rng.integers(len(options))])
    names = [n for n in g2.names if len(molecule(n)) > 1 and "Be" not in n]
    atoms = molecule(rng.choice(names))
    if kind == "substituted":
        for _ in range(rng.integers(1, 4)):
            atoms = substituted(rng, atoms)
    return Atoms(atoms.numbers, atoms.positions)


def substituted(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """Replace one hydrogen by a random group placed along the same bond; unchanged without hydrogen."""
    hydrogens = [i for i in range(len(atoms)) if atoms.numbers[i] == 1]
    if not hydrogens or len(atoms) < 3 or len(atoms) > 16:
        return atoms
    h = rng.choice(hydrogens)
    others = [i for i in range(len(atoms)) if i != h]
    anchor = others[int(np.argmin(atoms.get_distances(h, others)))]
    direction = atoms.positions[h] - atoms.positions[anchor]
    direction /= np.linalg.norm(direction)
    group = rng.choice(SUBSTITUENTS)
    first = group.rstrip("H23") if group != "OH" else "O"
    n_hydrogen = {"OH": 1, "CH3": 3, "NH2": 2, "SH": 1, "SiH3": 3, "PH2": 2, "BH2": 2}.get(group, 0)
    tip = atoms.positions[anchor] + direction * _bond(atoms[anchor].symbol, first)
    new = atoms[others] + Atoms(first, positions=[tip])
    frame = TETRAHEDRON if n_hydrogen else None
    if frame is not None:
        rotation = _rotation_between(frame[0], -direction)
        for k in range(n_hydrogen):
            new += Atoms("H", positions=[tip + frame[k + 1] @ rotation * _bond(first, "H")])
    return new


def _rotation_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Matrix R with ``a @ R == b`` for unit vectors (two reflections)."""
    middle = a + b
    if np.linalg.norm(middle) < 1e-6:
        return -np.eye(3) + 2 * np.outer(v := np.cross(a, [0.6, 0.8, 0.0]), v) / (v @ v)
    middle /= np.linalg.norm(middle)
    return (np.eye(3) - 2 * np.outer(a, a)) @ (np.eye(3) - 2 * np.outer(middle, middle))


def stretched(rng: np.random.Generator, atoms: Atoms) -> Atoms:
    """Scale one bond by 0.75 to 1.9, moving one side of the molecule (or one atom of a ring)."""
    bonded = bonds(atoms)
    pairs = np.argwhere(np.triu(bonded))
    if len(pairs) == 0:
        return rattled(rng, atoms, 0.1)
    i, j = pairs[rng.integers(len(pairs))]
    bonded[i, j] = bonded[j, i] = False
    side = np.zeros(len(atoms), bool)
    side[j] = True
    while (grown := side | bonded[side].any(axis=0)).sum() > side.sum():
        side = grown
    if side[i]:
        side[:] = False
        side[j] = True
    atoms = atoms.copy()
    bond = atoms.positions[j] - atoms.positions[i]
    atoms.positions[side] += bond * (rng.uniform(0.75, 1.0) if rng.random() < 0.35 else rng.uniform(1.0, 1.9)) - bond
    return rattled(rng, atoms, 0.03)


def molecules(lab: Labeller) -> None:
    """One molecule: relaxed, rattled, with stretched bonds, and heated."""
    rng = lab.rng
    relaxed = lab.relax(base_molecule(rng), 30, "relaxed", keep=2)
    lab.single(rattled(rng, relaxed, rng.uniform(0.02, 0.08)), "rattled")
    lab.single(rattled(rng, relaxed, rng.uniform(0.08, 0.2)), "rattled")
    for _ in range(2):
        lab.single(stretched(rng, relaxed), "bond stretched")
    lab.burst(relaxed, rng.uniform(300, 2500), 3, 8, "heated")


def dimers(lab: Labeller) -> None:
    """Two or three atoms from the repulsive wall to beyond the bond length."""
    rng = lab.rng
    a, b = rng.choice(ELEMENTS, 2) if rng.random() < 0.6 else rng.choice(MAIN, 2)
    bond = _bond(a, b)
    for factor in (rng.uniform(0.55, 0.75), rng.uniform(0.75, 0.95), rng.uniform(0.95, 1.4), rng.uniform(1.4, 3.0)):
        lab.single(Atoms([a, b], positions=[[0, 0, 0], [bond * factor, 0, 0]]), "dimer")
    c = rng.choice(MAIN)
    angle, first, second = rng.uniform(0.6, np.pi), rng.uniform(0.75, 1.3), rng.uniform(0.75, 1.3)
    tip = _bond(a, c) * second * np.array([np.cos(angle), np.sin(angle), 0])
    lab.single(Atoms([a, b, c], positions=[[0, 0, 0], [bond * first, 0, 0], tip]), "trimer")


def contacts(lab: Labeller) -> None:
    """Two molecules (or a molecule and an ion pair) pushed together and pulled apart along a random line."""
    rng = lab.rng
    first = rotated(rng, base_molecule(rng) if rng.random() < 0.6 else molecule(rng.choice(SOLVENTS)))
    second = rotated(rng, molecule(rng.choice(SOLVENTS)) if rng.random() < 0.7 else base_molecule(rng))
    first, second = (Atoms(m.numbers, rattled(rng, m, 0.04).positions) for m in (first, second))
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    for factor in (rng.uniform(0.55, 0.8), rng.uniform(0.8, 1.05), rng.uniform(1.05, 1.5)):
        lab.single(touching(first, second, direction, factor), "contact")


def touching(first: Atoms, second: Atoms, direction: np.ndarray, factor: float) -> Atoms:
    """Place ``second`` along ``direction`` so that the closest pair is at ``factor`` x (covalent sum + 0.9 Å)."""
    contact = covalent_radii[first.numbers][:, None] + covalent_radii[second.numbers] + 0.9
    for distance in np.arange(0.0, 20.0, 0.05):
        moved = second.positions + direction * distance
        gap = np.linalg.norm(first.positions[:, None] - moved, axis=-1)
        if (gap / contact).min() >= factor:
            break
    return first + Atoms(second.numbers, moved)
