"""Classes of atoms and pairs by their surroundings: what a representation should keep apart.

The classes of arXiv 2601.08486 (C with 4, 3 or 2 neighbours, H, F, O with 2 or 1, N with 3, 2 or 1) for any element:
an atom's class is its element and its number of bonds. A bond is a pair closer than 1.2 times the sum of the covalent
radii (``ase.neighborlist.natural_cutoffs``): with the sum itself, C-C single bonds (1.54 Å) would not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlipjax.elements import symbols
from mlipjax.system import System

BOND_FACTOR = 1.2
"""Longest bond relative to the sum of the covalent radii: between C-C (1.01) and C..C over a common neighbour (1.6)."""

UNDIVIDED = (1, 9)
"""Elements of one class whatever their neighbours, as in the paper: H and F."""


def bonds(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both directions of all bonds: atoms (B,), their partners (B,), and lattice translations (B, 3)."""
    from ase.neighborlist import natural_cutoffs, neighbor_list

    atoms = system.to_ase()
    radii = [BOND_FACTOR * radius for radius in natural_cutoffs(atoms)]
    first, second, shifts = neighbor_list("ijS", atoms, radii)
    return first, second, shifts


def coordination(system: System) -> np.ndarray:
    """Number of bonds (n,) of every atom; periodic images count."""
    return np.bincount(bonds(system)[0], minlength=system.n_atoms)


def environment_classes(systems: Sequence[System]) -> np.ndarray:
    """Class (M,) such as ``"C4"`` or ``"H"`` of all atoms, in the order of the structures."""
    names = []
    for system in systems:
        numbers = np.asarray(system.atomic_numbers)
        for z, symbol, n in zip(numbers, symbols(numbers), coordination(system), strict=True):
            names.append(symbol if z in UNDIVIDED else f"{symbol}{n}")
    return np.array(names)


_LEAST_MEMBERS = 10


def usable(classes: np.ndarray, structure: np.ndarray, *, structures: int = 4) -> np.ndarray:
    """Mask (M,) of the members of classes with enough members in enough structures to be compared.

    Args:
        classes: (M,) class of each atom or pair.
        structure: (M,) structure each belongs to.
        structures: least structures a class occurs in.

    Raises:
        ValueError: if fewer than two classes are left.
    """
    keep = [
        name
        for name in np.unique(classes)
        if np.sum(classes == name) >= _LEAST_MEMBERS and len(np.unique(structure[classes == name])) >= structures
    ]
    if len(keep) < 2:
        found = ", ".join(f"{name} ({np.sum(classes == name)})" for name in np.unique(classes))
        raise ValueError(
            f"fewer than two environment classes have {_LEAST_MEMBERS} members in {structures} structures; "
            f"found {found}. Give more structures, or more varied ones."
        )
    return np.isin(classes, keep)
