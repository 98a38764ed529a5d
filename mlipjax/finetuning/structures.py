"""Structures that a model should still know after a fine-tune, made from chemical elements alone.

Diversity of a replay set matters more than its labels (arXiv 2606.12704), so these cover every element of a training
set in several coordinations and at many distances, the short-range wall included: elemental and binary crystals,
strained and rattled; pairs; molecules of ASE's collection whose elements all occur.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mlipjax.elements import covalent_radii, symbols
from mlipjax.system import System

if TYPE_CHECKING:
    from ase import Atoms

# Distance of neighbours in each lattice, as a fraction of the cubic lattice constant.
_ELEMENTAL = {"fcc": 0.5**0.5, "bcc": 0.75**0.5, "sc": 1.0, "diamond": 0.1875**0.5}
_BINARY = {"rocksalt": 0.5, "cesiumchloride": 0.75**0.5, "zincblende": 0.1875**0.5}
# Bonds in units of the sum of covalent radii: crystals around their volume, pairs from the wall to where bonds break.
_STRETCH = (0.9, 1.25)
_PAIR_STRETCH = (0.75, 2.0)
_STRAIN = 0.03
_RATTLE = (0.01, 0.06)
# No crystal of hydrogen is as dense as its radius says; neighbours within the cutoff would be many hundreds.
_LEAST_CRYSTAL_BOND = 2.0


def element_structures(elements: Sequence[int], n: int, seed: int = 0) -> list[System]:
    """Make ``n`` structures that cover the given elements; the first ones of a larger ``n`` are the same.

    Kinds take turns (elemental crystal, pair, binary crystal, molecule), and within a kind elements and pairs of
    elements do, in an order drawn from ``seed``. So ``n`` of about four times the number of elements holds every
    element as a crystal and in a pair.

    Args:
        elements: atomic numbers, at least one.
        n: number of structures, each of at most some 30 atoms.
        seed: of order, strains and displacements.

    Raises:
        ValueError: if there is no element or no structure is asked for.
    """
    elements = sorted({int(z) for z in elements})
    if not elements or n < 1:
        raise ValueError(f"need at least one element and one structure, found {elements} and n = {n}.")
    rng = np.random.default_rng(seed)
    kinds = [iter(kind) for kind in (_crystals(elements, rng), _pairs(elements, rng), _binaries(elements, rng))]
    if molecules := _molecule_names(elements):
        kinds.append(iter(_molecules(molecules, rng)))
    made = (next(kind) for kind in itertools.cycle(kinds))
    return [System.from_ase(next(made)) for _ in range(n)]


def _endless(items: Sequence, rng: np.random.Generator) -> Iterator:
    """All items in a random order, again and again."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[int(index)]


def _crystals(elements: Sequence[int], rng: np.random.Generator) -> Iterator[Atoms]:
    rng = rng.spawn(1)[0]
    lattices = _endless(list(_ELEMENTAL), rng)
    for z in _endless(elements, rng):
        lattice = next(lattices)
        yield _crystal(lattice, (z, z), _ELEMENTAL[lattice], rng)


def _binaries(elements: Sequence[int], rng: np.random.Generator) -> Iterator[Atoms]:
    rng = rng.spawn(1)[0]
    lattices = _endless(list(_BINARY), rng)
    for pair in _endless(_element_pairs(elements), rng):
        lattice = next(lattices)
        yield _crystal(lattice, pair, _BINARY[lattice], rng)


def _crystal(lattice: str, pair: tuple[int, int], fraction: float, rng: np.random.Generator) -> Atoms:
    from ase.build import bulk

    first, second = symbols(pair)
    bond = max(_bond(*pair), _LEAST_CRYSTAL_BOND)
    constant = bond * rng.uniform(*_STRETCH) / fraction
    name = first if lattice in _ELEMENTAL else first + second
    atoms = bulk(name, lattice, a=constant, cubic=True)
    random = rng.uniform(-_STRAIN, _STRAIN, (3, 3))
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.5 * (random + random.T)), scale_atoms=True)
    return _rattled(atoms, bond, rng)


def _pairs(elements: Sequence[int], rng: np.random.Generator) -> Iterator[Atoms]:
    from ase import Atoms

    rng = rng.spawn(1)[0]
    like = [(z, z) for z in elements]
    for pair in _endless(like + _element_pairs(elements) if len(elements) > 1 else like, rng):
        distance = _bond(*pair) * rng.uniform(*_PAIR_STRETCH)
        yield Atoms(numbers=pair, positions=[[0.0, 0.0, 0.0], distance * _direction(rng)])


def _molecules(names: Sequence[str], rng: np.random.Generator) -> Iterator[Atoms]:
    from ase.build import molecule

    rng = rng.spawn(1)[0]
    for name in _endless(names, rng):
        atoms = molecule(name)
        atoms.positions *= rng.uniform(0.95, 1.1)
        yield _rattled(atoms, 1.5, rng)


def _molecule_names(elements: Sequence[int]) -> list[str]:
    from ase.build import molecule
    from ase.collections import g2

    build: Callable[[str], Atoms] = molecule
    return [name for name in g2.names if len(atoms := build(name)) > 2 and set(atoms.numbers.tolist()) <= set(elements)]


def _element_pairs(elements: Sequence[int]) -> list[tuple[int, int]]:
    return list(itertools.combinations(elements, 2)) or [(elements[0], elements[0])]


def _rattled(atoms: Atoms, bond: float, rng: np.random.Generator) -> Atoms:
    atoms.positions += rng.normal(scale=bond * rng.uniform(*_RATTLE), size=(len(atoms), 3))
    return atoms


def _direction(rng: np.random.Generator) -> np.ndarray:
    vector = rng.normal(size=3)
    return vector / np.linalg.norm(vector)


def _bond(first: int, second: int) -> float:
    """Sum of the covalent radii in Å."""
    return float(covalent_radii([first, second]).sum())
