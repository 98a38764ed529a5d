"""Crystals in supercells, clusters cut from them, slabs with adsorbed molecules, and random packings."""

from __future__ import annotations

from collections import Counter

import numpy as np
from ase import Atoms
from ase.build import bulk, fcc111, make_supercell, molecule
from ase.data import covalent_radii
from ase.spacegroup import crystal

from experiments.pretrain.sampling import MAX_ATOMS, Labeller, rattled, rotated, strained
from experiments.pretrain.structures_molecular import ELEMENTS, MAIN, SOLVENTS, touching

MIN_HEIGHT = 7.0  # Å between opposite faces: below it Gamma-only sampling is not a bulk energy

ROCKSALT = {"LiF": 4.03, "LiCl": 5.13, "LiBr": 5.50, "LiH": 4.08, "NaF": 4.63, "NaCl": 5.64, "NaBr": 5.97, "NaH": 4.88,
            "KF": 5.34, "KCl": 6.29, "KBr": 6.60, "MgO": 4.21, "CaO": 4.81, "MgS": 5.20, "CaS": 5.69}  # fmt: skip
ZINCBLENDE = {"ZnS": 5.41, "SiC": 4.36, "BN": 3.62, "BP": 4.54, "AlP": 5.46, "CuCl": 5.42, "CuBr": 5.69, "ZnO": 4.62,
              "AlN": 4.38}  # fmt: skip
FLUORITE = {"CaF2": 5.46, "Li2O": 4.62, "Na2O": 5.55, "K2O": 6.44, "Li2S": 5.71, "Na2S": 6.54, "Mg2Si": 6.35}
PEROVSKITE = {"CaTiO3": 3.84, "KMgF3": 3.99, "NaMgF3": 3.83, "KZnF3": 4.05, "KCoF3": 4.07, "KNiF3": 4.01,
              "KCaCl3": 5.36}  # fmt: skip
DIAMOND = {"C": 3.57, "Si": 5.43}
METALS = {"Li": ("bcc", 3.51), "Na": ("bcc", 4.29), "K": ("bcc", 5.33), "Al": ("fcc", 4.05), "Cu": ("fcc", 3.61),
          "Ca": ("fcc", 5.58), "Ni": ("fcc", 3.52), "Mg": ("fcc", 4.52), "Co": ("fcc", 3.54),
          "Ti": ("fcc", 4.10), "Zn": ("fcc", 3.93)}  # fmt: skip
FACE_CENTRED = np.array([[0.5, 0.5, 0], [-0.5, 0.5, 0], [0, 0, 1]])


def _perovskite(formula: str, a: float) -> Atoms:
    symbols = list(Counter(Atoms(formula).get_chemical_symbols()))
    return crystal(symbols, [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], spacegroup=221, cellpar=[a, a, a, 90, 90, 90])


def unit_cells(formula: str) -> list[Atoms]:
    """Equivalent unit cells of a compound (cubic, and two smaller ones where the lattice is face-centred)."""
    if formula in PEROVSKITE:
        return [_perovskite(formula, PEROVSKITE[formula])]
    table, structure = next(
        (t, s)
        for t, s in ((ROCKSALT, "rocksalt"), (ZINCBLENDE, "zincblende"), (FLUORITE, "fluorite"), (DIAMOND, "diamond"))
        if formula in t
    )
    a = table[formula]
    primitive = bulk(formula, structure, a=a)
    tetragonal = make_supercell(primitive, np.rint(FACE_CENTRED * a @ np.linalg.inv(primitive.cell)).astype(int))
    return [bulk(formula, structure, a=a, cubic=True), primitive, tetragonal]


def supercells(formula: str) -> list[Atoms]:
    """Supercells with faces at least :data:`MIN_HEIGHT` apart and no more atoms than can be afforded."""
    found = []
    for cell in unit_cells(formula):
        heights = 1 / np.linalg.norm(np.linalg.inv(cell.cell.array), axis=0)
        big = cell.repeat(tuple(np.ceil(MIN_HEIGHT / heights).astype(int)))
        if len(big) <= MAX_ATOMS:
            found.append(big)
    return sorted(found, key=len)


COMPOUNDS = [f for table in (ROCKSALT, ZINCBLENDE, FLUORITE, PEROVSKITE, DIAMOND) for f in table]
AFFORDABLE = [f for f in COMPOUNDS if supercells(f)]


def crystals(lab: Labeller) -> None:
    """One compound: strained, rattled, sometimes with a neutral pair of atoms missing."""
    rng = lab.rng
    options = supercells(rng.choice(AFFORDABLE))
    start = options[0] if rng.random() < 0.8 else options[-1]
    for sigma in (rng.uniform(0.0, 0.05), rng.uniform(0.05, 0.15), rng.uniform(0.15, 0.3)):
        atoms = rattled(rng, strained(rng, start, 0.08, 0.03), sigma)
        lab.single(atoms, "crystal")


def metals(lab: Labeller) -> None:
    """Elemental metals in one fixed supercell per element: Gamma-only energies are not comparable across cells."""
    rng = lab.rng
    symbol = rng.choice(list(METALS))
    structure, a = METALS[symbol]
    cubic = bulk(symbol, structure, a=a, cubic=True)
    heights = cubic.cell.lengths()
    start = cubic.repeat(tuple(np.ceil(MIN_HEIGHT / heights).astype(int)))
    for sigma in (rng.uniform(0.02, 0.1), rng.uniform(0.1, 0.25)):
        lab.single(rattled(rng, strained(rng, start, 0.06, 0.02), sigma), "metal")


def clusters(lab: Labeller) -> None:
    """Neutral pieces of 2 to 24 atoms cut around a random point of a compound or a metal, then shaken."""
    rng = lab.rng
    if rng.random() < 0.25:
        symbol = rng.choice(list(METALS))
        source = bulk(symbol, *METALS[symbol][:1], a=METALS[symbol][1], cubic=True)
    else:
        source = unit_cells(rng.choice(COMPOUNDS))[0]
    counts = Counter(source.get_chemical_symbols())
    smallest = min(counts.values())
    unit = {s: n // smallest for s, n in counts.items()}
    n_units = int(rng.integers(2, max(3, 21 // sum(unit.values()))))
    big = source.repeat(4)
    centre = big.cell.array.sum(axis=0) / 2 + rng.uniform(0, 1, 3) @ source.cell.array
    order = np.argsort(np.linalg.norm(big.positions - centre, axis=1))
    symbols = np.array(big.get_chemical_symbols())
    chosen = np.concatenate([[i for i in order if symbols[i] == s][: n * n_units] for s, n in unit.items()])
    atoms = Atoms(big.numbers[chosen], big.positions[chosen] * rng.uniform(0.95, 1.05))
    lab.single(rattled(rng, atoms, rng.uniform(0.02, 0.2)), "cluster")
    relaxed = lab.relax(rattled(rng, atoms, 0.1), 8, "cluster relaxing", keep=2)
    lab.burst(relaxed, rng.uniform(300, 2000), 2, 4, "cluster heated")


def surfaces(lab: Labeller) -> None:
    """Slabs with vacuum along z: clean and with one molecule of a solvent at contact."""
    rng = lab.rng
    slab = _slab(rng)
    slab = rattled(rng, slab, rng.uniform(0.02, 0.1))
    lab.single(slab, "slab")
    guest = rotated(rng, molecule(rng.choice([*SOLVENTS, "CO", "H2", "O2", "Cl2", "LiF"])))
    spot = Atoms(slab.numbers, slab.positions)
    guest.positions += rng.uniform(0, 1, 2) @ slab.cell.array[:2] + [0, 0, slab.positions[:, 2].max()]
    # approach from above: the contact search walks along z, past any overlap
    pair = touching(spot, guest, np.array([0, 0, 1.0]), rng.uniform(0.7, 1.05))
    pair.set_cell(slab.cell)
    pair.pbc = True
    lab.single(pair, "adsorbate")
    lab.burst(pair, rng.uniform(300, 900), 1, 5, "adsorbate heated")


def _slab(rng: np.random.Generator) -> Atoms:
    kind = rng.choice(["rocksalt", "sheet", "metal"], p=[0.6, 0.2, 0.2])
    if kind == "metal":
        symbol = rng.choice(["Cu", "Al", "Ni"], p=[0.6, 0.25, 0.15])
        slab = fcc111(symbol, (3, 3, 2), a=METALS[symbol][1], vacuum=7.0)
    elif kind == "sheet":
        a, pair = (2.46, "CC") if rng.random() < 0.6 else (2.51, "BN")
        cell = Atoms(pair, scaled_positions=[[0, 0, 0], [1 / 3, 2 / 3, 0]], cell=[a, a, 1.0, 90, 90, 120], pbc=True)
        slab = cell.repeat((4, 4, 1))
        slab.cell[2] = [0, 0, 14.0]
    else:
        formula = rng.choice([f for f in ROCKSALT if ROCKSALT[f] > 4.0 and "Br" not in f])
        tetragonal = unit_cells(formula)[2]
        lateral = int(np.ceil(MIN_HEIGHT / tetragonal.cell.lengths()[0]))
        slab = tetragonal.repeat((lateral, lateral, 1))
        slab.cell[2] = [0, 0, slab.cell[2, 2] + 10.0]
    slab.pbc = True
    slab.wrap()
    return Atoms(slab.numbers, slab.positions, cell=slab.cell, pbc=True)


def packings(lab: Labeller) -> None:
    """Random elements at random places, atoms no closer than 0.75 of the sum of covalent radii."""
    rng = lab.rng
    n = int(rng.integers(3, 11))
    kinds = [rng.choice(MAIN if rng.random() < 0.5 else ELEMENTS) for _ in range(rng.integers(1, 5))]
    numbers = Atoms([kinds[k] for k in rng.integers(0, len(kinds), n)]).numbers
    radii = covalent_radii[numbers]
    edge = np.cbrt(n * 4.2 * (2 * radii.mean()) ** 3) * rng.uniform(0.6, 0.9)
    positions = rng.uniform(0, edge, (n, 3))
    for _ in range(300):  # push overlapping atoms apart
        delta = positions[:, None] - positions
        distance = np.linalg.norm(delta, axis=-1) + 10 * np.eye(n)
        overlap = np.clip(rng.uniform(0.75, 1.0) * (radii[:, None] + radii) - distance, 0, None)
        if overlap.max() < 0.02:
            break
        positions = positions + 0.5 * ((overlap / distance)[..., None] * delta).sum(axis=1)
    atoms = Atoms(numbers, positions)
    lab.single(atoms, "random")
    lab.relax(atoms, 12, "random relaxing", keep=2)
