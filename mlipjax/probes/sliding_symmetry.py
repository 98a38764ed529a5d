"""Shifts of one half of a crystal over the other that have the same energy by symmetry."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import spglib

from mlipjax.probes.sliding_layers import LayeredCrystal

SYMPREC = 1e-3
"""Å; tolerance of the symmetry search."""


def equivalent_shifts(crystal: LayeredCrystal, n: int) -> np.ndarray:
    """(n, n) flat index of the representative of each shift on an n x n grid of the two lattice vectors.

    An operation ``x -> W x + w`` of the crystal that maps the interface onto itself maps the shift ``t`` to ``W t``; if
    it turns the crystal upside down, the halves change places and it becomes ``-W t``. A translation in the plane
    that maps the crystal onto itself adds to ``t``.
    """
    matrices, translations = _operations(crystal)
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    images = [grid @ matrix.T for matrix in matrices]
    for translation in translations:
        steps = translation * n
        if np.allclose(steps, np.round(steps), atol=1e-6):
            images += [image + np.round(steps).astype(int) for image in images]
    flat = np.stack([(image % n) @ np.array([n, 1]) for image in images])
    # the images generate the group when applied repeatedly: take the smallest index until nothing changes
    representative = flat.min(axis=0)
    while not np.array_equal(better := representative[flat].min(axis=0), representative):
        representative = better
    return representative.reshape(n, n)


def _operations(crystal: LayeredCrystal) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(2, 2) integer matrices that act on shifts, and (2,) fractional translations that leave them equivalent."""
    system = crystal.system
    cell = np.asarray(system.cell, np.float64)
    fractional = np.asarray(system.positions) @ np.linalg.inv(cell)
    numbers = np.asarray(system.atomic_numbers)
    structure: Any = (cell, fractional % 1.0, numbers)
    with warnings.catch_warnings():
        # spglib announces that a failed search will raise one day, instead of returning None as it does now
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry(structure, symprec=SYMPREC)
    matrices, translations = [np.eye(2, dtype=int)], []
    if found is None:
        return matrices, translations
    bottom, top = 0, crystal.n_layers - 1
    probe = int(np.flatnonzero(crystal.layer == bottom)[0])
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        if rotation[2, 0] or rotation[2, 1] or abs(rotation[2, 2]) != 1:
            continue
        image = rotation @ fractional[probe] + translation
        difference = fractional - image
        difference -= np.round(difference)
        reached = int(np.argmin(np.linalg.norm(difference @ cell, axis=1)))
        # the layer above the interface must stay there, or become the one below if the crystal is turned over
        if crystal.layer[reached] != (bottom if rotation[2, 2] == 1 else top):
            continue
        matrices.append(rotation[2, 2] * rotation[:2, :2])
        if np.array_equal(rotation, np.eye(3)) and abs((translation[2] + 0.5) % 1.0 - 0.5) < 1e-6:
            translations.append(translation[:2])
    return _unique(matrices), [t for t in translations if np.abs(t - np.round(t)).max() > 1e-6]


def _unique(matrices: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(rows).reshape(2, 2) for rows in sorted({tuple(m.ravel().tolist()) for m in matrices})]
