"""Lattices: shortest lattice vectors and nearest periodic images, for any choice of lattice vectors.

The same crystal may be written with lattice vectors of any angles. In a *Minkowski-reduced* basis (the shortest one
there is) the nearest image of a vector with fractional components in [-1/2, 1/2] is at most one lattice vector away in
each direction (Nguyen, Stehlé, ACM Trans. Algorithms 5, 46 (2009)), so that a search of 27 images is enough; in a
basis that is not reduced no fixed number is.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

_AROUND = np.array(sorted(itertools.product((-1, 0, 1), repeat=3), key=lambda shift: sum(map(abs, shift))))
"""(27, 3) a cell and those around it, itself first."""

_CHUNK = 50_000
"""Vectors whose images are held in memory at once."""

_EQUALLY_NEAR = 1e-4
"""Å by which images may differ in length and still be equally near."""


def completed(cell: Any, pbc: Sequence[bool], xp: Any = np) -> Any:
    """(3, 3) lattice vectors, those of open directions replaced by unit vectors orthogonal to all others.

    What stands in the cell for an open direction has no meaning, and may be zero or parallel to another.

    Args:
        cell: (3, 3) Å, rows.
        pbc: which rows count.
        xp: ``numpy`` or ``jax.numpy``.
    """
    periodic = np.array(pbc, bool)
    if periodic.all():
        return cell
    if not periodic.any():
        return xp.eye(3, dtype=cell.dtype)
    # the last columns of a complete Q span what is orthogonal to the periodic vectors
    normals = xp.linalg.qr(cell[periodic].T, mode="complete")[0].T[int(periodic.sum()) :]
    vectors = xp.concatenate([cell[periodic], normals])
    return vectors[np.argsort(np.argsort(~periodic, kind="stable"), kind="stable")]


def inverse(matrix: Any, xp: Any = np) -> Any:
    """Inverse of (..., 3, 3) matrices by cross products: on GPUs a part of other kernels, not a call of a solver.

    Args:
        matrix: (..., 3, 3), such as lattice vectors in rows.
        xp: ``numpy`` or ``jax.numpy``.
    """
    a, b, c = (matrix[..., row, :] for row in range(3))
    columns = xp.stack([xp.cross(b, c), xp.cross(c, a), xp.cross(a, b)], axis=-1)
    return columns / xp.sum(a * columns[..., :, 0], axis=-1)[..., None, None]


def independent(vectors: np.ndarray) -> bool:
    """Return whether no lattice vector (k, 3) is zero or a combination of the others."""
    spanned = np.sqrt(max(float(np.linalg.det(vectors @ vectors.T)), 0.0)) if len(vectors) else 1.0
    return bool(spanned > 1e-8 * np.prod(np.linalg.norm(vectors, axis=1)))


def reduced(cell: np.ndarray, pbc: Sequence[bool] = (True, True, True)) -> tuple[np.ndarray, np.ndarray]:
    """Minkowski-reduced basis of the lattice of the periodic directions.

    Args:
        cell: (3, 3) Å, rows.
        pbc: which rows count; the others are completed (see ``completed``) and stay what they are.

    Returns:
        basis (3, 3) and integer matrix (3, 3) of determinant ±1 with ``basis = matrix @ completed(cell, pbc)``. The
        periodic rows come first to last in the places of the given ones, from short to long.

    Raises:
        ValueError: if the lattice vectors of the periodic directions are zero or linearly dependent.
    """
    cell = np.asarray(cell, np.float64)
    kept = cell[np.asarray(pbc, bool)]
    if not independent(kept):
        raise ValueError(f"the lattice vectors {kept.tolist()} are zero or linearly dependent.")
    vectors = completed(cell, pbc)
    places = np.flatnonzero(np.asarray(pbc, bool))
    rows = np.eye(3, dtype=np.int64)[places]
    shorter = True
    while shorter:
        rows, shorter = _shortened(rows, vectors)
    matrix = np.eye(3, dtype=np.int64)
    matrix[places] = rows
    return matrix @ vectors, matrix


def _shortened(rows: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, bool]:
    """Integer rows with the first one that can be made shorter replaced, and whether there was one."""
    lengths = np.linalg.norm(rows @ vectors, axis=1)
    rows = rows[np.argsort(lengths, kind="stable")]
    basis = rows @ vectors
    for last in range(1, len(rows)):
        signs = np.array(list(itertools.product((-1, 0, 1), repeat=last)))
        projections = basis[:last] @ basis[last] / np.sum(basis[:last] ** 2, axis=1)
        steps = np.diag(-np.rint(projections).astype(np.int64))
        candidates = rows[last] + np.concatenate([signs, steps]) @ rows[:last]
        found = np.linalg.norm(candidates @ vectors, axis=1)
        if found.min() < np.linalg.norm(basis[last]) * (1.0 - 1e-10):
            rows = rows.copy()
            rows[last] = candidates[np.argmin(found)]
            return rows, True
    return rows, False


def minimum_image(vectors: np.ndarray, cell: np.ndarray, pbc: Sequence[bool]) -> np.ndarray:
    """Shortest periodic image of each vector (..., 3) in Å; any cell, any periodicity."""
    vectors = np.asarray(vectors, np.float64)
    if not any(pbc):
        return vectors
    basis, _ = reduced(cell, pbc)
    periodic = np.asarray(pbc, bool)
    flat = vectors.reshape(-1, 3)
    fractional = flat @ np.linalg.inv(basis)
    flat = flat - np.where(periodic, np.rint(fractional), 0.0) @ basis
    shortest = np.linalg.norm(basis[periodic], axis=1).min()
    # a vector shorter than half of the shortest lattice vector has no shorter image
    far = np.flatnonzero(np.sum(flat**2, axis=1) > 0.25 * shortest**2)
    around = _around(periodic) @ basis
    for part in np.array_split(far, max(1, -(-len(far) // _CHUNK))):
        images = flat[part, None] + around
        nearest = np.argmin(np.sum(images**2, axis=-1), axis=1)
        flat[part] = images[np.arange(len(part)), nearest]
    return flat.reshape(vectors.shape)


def nearest_translations(vectors: np.ndarray, cell: np.ndarray, pbc: Sequence[bool]) -> list[np.ndarray]:
    """Lattice translations to *all* nearest images of each vector.

    Args:
        vectors: (m, 3) Å.
        cell: (3, 3) Å, rows.
        pbc: periodicity.

    Returns:
        for each vector, integers (k, 3) in the given lattice vectors: ``vector + integers @ cell`` are its k nearest
        images.
    """
    periodic = np.asarray(pbc, bool)
    basis, matrix = reduced(cell, pbc)
    vectors = np.asarray(vectors, np.float64).reshape(-1, 3)
    home = -np.where(periodic, np.rint(vectors @ np.linalg.inv(basis)), 0.0).astype(np.int64)
    around = _around(periodic)
    found = []
    for part in np.array_split(np.arange(len(vectors)), max(1, -(-len(vectors) // _CHUNK))):
        images = (vectors[part] + home[part] @ basis)[:, None] + around @ basis
        lengths = np.linalg.norm(images, axis=-1)
        near = lengths < lengths.min(axis=1, keepdims=True) + _EQUALLY_NEAR
        found += [(home[row] + around[own]) @ matrix for row, own in zip(part, near, strict=True)]
    return found


def heights(cell: np.ndarray) -> np.ndarray:
    """(3,) Å, distances between opposite faces of a cell with a volume."""
    return 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell, np.float64)), axis=0)


def shortest_period(cell: np.ndarray, pbc: Sequence[bool]) -> float:
    """Length in Å of the shortest lattice vector: how far an atom is from its own nearest image; infinite if open."""
    basis, _ = reduced(cell, pbc)
    return float(np.linalg.norm(basis[np.asarray(pbc, bool)], axis=1).min(initial=np.inf))


def share_of_period(vectors: np.ndarray, cell: np.ndarray, pbc: Sequence[bool]) -> np.ndarray:
    """(...,) largest part of a lattice vector that each vector (..., 3) covers along it.

    Below 1/2 for the shortest image of a vector, and 1/2 where another image is as short.
    """
    if not any(pbc):
        return np.zeros(np.shape(vectors)[:-1])
    basis, _ = reduced(cell, pbc)
    periods = _around(np.asarray(pbc, bool))[1:] @ basis
    return np.abs(np.asarray(vectors) @ (periods / np.sum(periods**2, axis=1)[:, None]).T).max(axis=-1)


def _around(periodic: np.ndarray) -> np.ndarray:
    return _AROUND[~np.any(_AROUND[:, ~periodic], axis=1)]
