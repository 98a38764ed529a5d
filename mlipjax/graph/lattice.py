"""Lattices of structures that are not periodic along all of their vectors."""

from __future__ import annotations

from typing import Any

import numpy as np


def complete_lattice(cell: Any, pbc: tuple[bool, bool, bool], xp: Any) -> Any:
    """Replace the vectors of directions without periodicity by unit vectors orthogonal to the others."""
    periodic = np.array(pbc)
    if periodic.all():
        return cell
    if not periodic.any():
        return xp.eye(3, dtype=cell.dtype)
    # the last columns of a complete Q span what is orthogonal to the periodic vectors
    normals = xp.linalg.qr(cell[periodic].T, mode="complete")[0].T[int(periodic.sum()) :]
    vectors = xp.concatenate([cell[periodic], normals])
    return vectors[np.argsort(np.argsort(~periodic, kind="stable"), kind="stable")]
