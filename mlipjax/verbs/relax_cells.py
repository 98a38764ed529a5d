"""What may move in a relaxation: strains of a cell that its periodicity allows, and atoms that nothing fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms

CellChange = Literal["none", "volume", "full"]
"""What may happen to a cell: nothing, the same stretch of all periodic directions, or any strain of them."""


def strains(cell: CellChange, atoms: Atoms, name: str) -> np.ndarray:
    """(S, 3, 3) orthonormal strains that a cell may undergo: none, or six, some of them zero.

    Directions without periodicity (the vacuum of a slab) are never strained.

    Args:
        cell: what may happen.
        atoms: the structure.
        name: of the structure, for messages.

    Raises:
        ValueError: for an unknown word, or a cell that cannot be strained.
    """
    if cell == "none":
        return np.zeros((0, 3, 3))
    if cell not in ("volume", "full"):
        raise ValueError(f"cell must be none, volume or full, found {cell!r}.")
    if not atoms.pbc.any() or atoms.cell.rank < 3:
        raise ValueError(
            f"{name}: only a structure that is periodic and has three cell vectors has a cell to relax; found pbc "
            f'{atoms.pbc.tolist()} and {atoms.cell.rank} vectors. Choose cell="none".'
        )
    # orthonormal directions of the space that the periodic vectors span, as columns
    across = np.linalg.svd(atoms.cell.array[atoms.pbc].T)[0][:, : int(atoms.pbc.sum())]
    across = np.eye(3) if atoms.pbc.all() else across
    basis = np.zeros((6, 3, 3))
    if cell == "volume":
        basis[0] = across @ across.T / np.sqrt(across.shape[1])
        return basis
    row = 0
    for i in range(across.shape[1]):
        for j in range(i, across.shape[1]):
            both = np.outer(across[:, i], across[:, j])
            basis[row] = both if i == j else np.sqrt(0.5) * (both + both.T)
            row += 1
    return basis


def free_atoms(atoms: Atoms, name: str) -> np.ndarray:
    """(n,) true for atoms that no constraint fixes.

    Raises:
        ValueError: if there are other constraints than fixed atoms, or no atom is free.
    """
    from ase.constraints import FixAtoms

    free = np.ones(len(atoms), bool)
    for constraint in atoms.constraints:
        if not isinstance(constraint, FixAtoms):
            raise ValueError(
                f"{name}: found the constraint {type(constraint).__name__}; only fixed atoms (FixAtoms) can be "
                "honoured. Remove it from the structure."
            )
        free[constraint.index] = False
    if not free.any():
        raise ValueError(f"{name}: all {len(atoms)} atoms are fixed, so there is nothing to relax.")
    return free
