"""The coordinates that a relaxation moves: atoms, and strains of their cell.

Positions are ``x (1 + e)`` and cells ``h (1 + e)`` with a strain ``e = sum_s q_s B_s / N``: what may happen to a cell
is the list of matrices ``B``, empty for a fixed one. The number of atoms ``N`` makes a strain about as stiff as an
atom, and its force that of ``ase.filters.FrechetCellFilter`` at no strain: (stress + pressure) times volume over ``N``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.lattice import inverse
from mlipjax.precision import exact
from mlipjax.system import System
from mlipjax.typing import Array, Float

CellChange = Literal["none", "volume", "normal", "full"]
"""Changes that a cell may undergo: none, the same stretch of all periodic directions, a stretch along the normal of its
first two vectors, or any strain of the periodic directions."""


@struct.dataclass
class Coordinates:
    """Map from the numbers that are moved, (M, 3 N + S), to M structures of N atoms: coordinates in Å, and strains.

    Attributes:
        cells: (M, 3, 3) Å, before any strain.
        strains: (M, S, 3, 3) strains ``B`` that are free, orthonormal or zero; S = 0 for fixed cells.
        free: (M, N, 3) 1 where a coordinate may move, 0 where not.
        pressure: () eV/Å^3 on the outside of a free cell; the enthalpy is then what becomes least.
    """

    cells: Float[Array, "M 3 3"]
    strains: Float[Array, "M S 3 3"]
    free: Float[Array, "M N 3"]
    pressure: Float[Array, ""]

    def start(self, positions: Any) -> Float[Array, "M D"]:
        """The coordinates of structures at ``positions`` (M, N, 3) without strain."""
        m, s = self.strains.shape[:2]
        x = jnp.asarray(positions, self.cells.dtype).reshape(m, -1)
        return jnp.concatenate([x, jnp.zeros((m, s), x.dtype)], axis=1)

    @exact
    def place(self, x: Float[Array, "M D"]) -> tuple[Array, Array, Array]:
        """Positions (M, N, 3) Å, cells (M, 3, 3) Å and deformations ``1 + e`` (M, 3, 3)."""
        m, n = self.free.shape[:2]
        positions, unit = x[:, : 3 * n].reshape(m, n, 3), jnp.broadcast_to(jnp.eye(3, dtype=x.dtype), (m, 3, 3))
        if self.strains.shape[1] == 0:
            return positions, self.cells, unit
        deformation = unit + jnp.einsum("ms,msij->mij", x[:, 3 * n :] / n, self.strains)
        return positions @ deformation, self.cells @ deformation, deformation

    @exact
    def forces(
        self, x: Float[Array, "M D"], forces: Any, virial: Any
    ) -> tuple[Float[Array, "M D"], Float[Array, " M"]]:
        """Forces on the coordinates, and the largest on an atom or a strain.

        Args:
            x: the coordinates.
            forces: (M, N, 3) eV/Å on the atoms.
            virial: (M, 3, 3) eV, stress times volume.
        """
        m, n = self.free.shape[:2]
        forces = forces * self.free
        residual = jnp.sqrt(jnp.max(jnp.sum(forces**2, axis=-1), axis=1))
        _, cells, deformation = self.place(x)
        on_atoms = (forces @ jnp.swapaxes(deformation, 1, 2) * self.free).reshape(m, 3 * n)
        if self.strains.shape[1] == 0:
            return on_atoms, residual
        # dH/dq_s = <(1 + e)^-T (virial + p V), B_s> / N
        work = self.pressure * jnp.abs(jnp.linalg.det(cells))[:, None, None] * jnp.eye(3, dtype=x.dtype)[None]
        pull = jnp.swapaxes(inverse(deformation, jnp), 1, 2) @ (virial + work)
        on_strains = -jnp.einsum("mij,msij->ms", pull, self.strains) / n
        residual = jnp.maximum(residual, jnp.max(jnp.abs(on_strains), axis=1))
        return jnp.concatenate([on_atoms, on_strains], axis=1), residual

    def length(self, move: Float[Array, "M D"]) -> Float[Array, " M"]:
        """The longest move of an atom, or of a strain, of each structure."""
        m, n = self.free.shape[:2]
        atoms = move[:, : 3 * n].reshape(m, n, 3)
        furthest = jnp.sqrt(jnp.max(jnp.sum(atoms**2, axis=-1), axis=1))
        return jnp.maximum(furthest, jnp.max(jnp.abs(move[:, 3 * n :]), axis=1, initial=0.0))


def coordinates(
    systems: Sequence[System],
    dtype: Any,
    *,
    cell: CellChange = "none",
    free: np.ndarray | None = None,
    pressure: float = 0.0,
    stress: bool = False,
) -> Coordinates:
    """The coordinates of structures of the same atoms.

    Args:
        systems: M structures.
        dtype: of the numbers.
        cell: what may happen to the cells.
        free: (N,), (N, 3) or (M, N, 3) true where an atom or a coordinate may move; all may by default.
        pressure: eV/Å^3.
        stress: whether cells that stay have strains that are zero, so that there is a virial.

    Raises:
        ValueError: for an unknown change, a cell that cannot be strained or a mask of another shape.
    """
    bases = [strains(cell, system.cell, system.pbc) for system in systems]
    bases = [np.zeros((6, 3, 3)) if stress and not len(basis) else basis for basis in bases]
    return Coordinates(
        cells=jnp.asarray(np.stack([np.asarray(system.cell) for system in systems]), dtype),
        strains=jnp.asarray(np.stack(bases), dtype),
        free=jnp.asarray(freedom(free, len(systems), systems[0].n_atoms), dtype),
        pressure=jnp.asarray(pressure, dtype),
    )


def freedom(free: np.ndarray | None, n_structures: int, n_atoms: int) -> np.ndarray:
    """(M, N, 3) float mask of the coordinates that may move, from (N,), (N, 3) or (M, N, 3).

    Raises:
        ValueError: if the mask has another shape.
    """
    mask = np.ones(n_atoms) if free is None else np.asarray(free, np.float64)
    shape = (n_structures, n_atoms, 3)
    if mask.shape not in (shape[1:2], shape[1:], shape):
        raise ValueError(
            f"the mask of free coordinates has shape {mask.shape}; expected ({n_atoms},) or ({n_atoms}, 3)."
        )
    return np.broadcast_to(mask[:, None] if mask.ndim == 1 else mask, shape)


def strains(change: CellChange, cell: np.ndarray, pbc: Sequence[bool]) -> np.ndarray:
    """(S, 3, 3) orthonormal strains that a cell may undergo: none, or six, some of them zero.

    Directions without periodicity (the vacuum of a slab) are never strained. Always six, so that all ways to relax a
    cell share one compiled program.

    Args:
        change: what may happen.
        cell: (3, 3) Å, rows.
        pbc: periodicity along them.

    Raises:
        ValueError: for an unknown word, or a cell that cannot be strained.
    """
    if change == "none":
        return np.zeros((0, 3, 3))
    if change not in ("volume", "normal", "full"):
        raise ValueError(f"cell must be none, volume, normal or full, found {change!r}.")
    cell, periodic = np.asarray(cell, np.float64), np.array(pbc, bool)
    rank = int(np.linalg.matrix_rank(cell))
    if not periodic.any() or rank < 3:
        raise ValueError(
            "only a structure that is periodic and has three cell vectors has a cell to relax; found pbc "
            f'{periodic.tolist()} and {rank} vectors. Choose cell="none".'
        )
    if change == "normal":
        across = np.cross(cell[0], cell[1])[:, None] / np.linalg.norm(np.cross(cell[0], cell[1]))
    else:
        # orthonormal directions of the space that the periodic vectors span, as columns
        across = np.eye(3) if periodic.all() else np.linalg.svd(cell[periodic].T)[0][:, : int(periodic.sum())]
    basis = np.zeros((6, 3, 3))
    if change == "volume":
        basis[0] = across @ across.T / np.sqrt(across.shape[1])
        return basis
    pairs = [(i, j) for i in range(across.shape[1]) for j in range(i, across.shape[1])]
    for row, (i, j) in enumerate(pairs):
        both = np.outer(across[:, i], across[:, j])
        basis[row] = both if i == j else np.sqrt(0.5) * (both + both.T)
    return basis
