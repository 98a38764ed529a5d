"""The same crystal described otherwise: lattice vectors, images, order of atoms and frame of reference at random."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from mlipjax.system import System


class Description(NamedTuple):
    """A crystal and how it came from the first one.

    Attributes:
        system: the crystal.
        matrix: (3, 3) integers, new lattice vectors in the old ones.
        order: (n,) old index of each atom.
        rotation: (3, 3) of row vectors, ``new = old @ rotation``.
    """

    system: System
    matrix: np.ndarray
    order: np.ndarray
    rotation: np.ndarray


def sharp_angles(cell):
    """Tell whether some angle between two lattice vectors is below 20 or above 150 degrees."""
    unit = cell / np.linalg.norm(cell, axis=1)[:, None]
    cosines = (unit @ unit.T)[np.triu_indices(3, 1)]
    return cosines.max() > np.cos(np.radians(20)) or cosines.min() < np.cos(np.radians(150))


def skew(cell, rng, in_plane=True):
    """Integer matrix of determinant ±1 that leads to sharp angles; only the last row differs without ``in_plane``."""
    while True:
        matrix = np.eye(3, dtype=int)[rng.permutation(3)] if in_plane else np.eye(3, dtype=int)
        for _ in range(3):
            i, j = rng.permutation(3)[:2] if in_plane else (2, rng.integers(2))
            matrix[i] += rng.integers(-3, 4) * matrix[j]
        matrix = matrix * (rng.choice([-1, 1], 3)[:, None] if in_plane else np.array([[1], [1], [rng.choice([-1, 1])]]))
        if sharp_angles(matrix @ cell) and np.linalg.norm(matrix @ cell, axis=1).max() < 60.0:
            return matrix


def described(system, seed, *, in_plane=True, turn=True):
    """Another description of a crystal."""
    rng = np.random.default_rng(seed)
    matrix = skew(np.asarray(system.cell), rng, in_plane)
    rotation = Rotation.random(random_state=seed).as_matrix() if turn else np.eye(3)
    order = rng.permutation(system.n_atoms)
    return Description(redescribed(system, matrix, order, rotation, rng), matrix, order, rotation)


def redescribed(system, matrix, order, rotation, rng):
    """A structure in other lattice vectors (the same for all frames), its atoms in images at random."""
    cell = matrix @ np.asarray(system.cell)
    positions = np.asarray(system.positions)[order] + rng.integers(-2, 3, (system.n_atoms, 3)) @ cell
    numbers = np.asarray(system.atomic_numbers)[order]
    return dataclasses.replace(system, positions=positions @ rotation, cell=cell @ rotation, atomic_numbers=numbers)


def rotated_elastic(voigt, rotation):
    """A (6, 6) matrix of elastic constants in a turned frame (``new = old @ rotation``)."""
    pairs = [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]
    index = {pair: k for k, pair in enumerate(pairs)} | {pair[::-1]: k for k, pair in enumerate(pairs)}
    tensor = np.array([
        [[[voigt[index[i, j], index[k, m]] for m in range(3)] for k in range(3)] for j in range(3)] for i in range(3)
    ])  # fmt: skip
    turned = np.einsum("ijkl,ia,jb,kc,ld->abcd", tensor, rotation, rotation, rotation, rotation)
    return np.array([[turned[i, j, k, m] for k, m in pairs] for i, j in pairs])
