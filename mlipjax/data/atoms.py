"""The one door for atomic structures from files: anything that ASE reads, validated, as ``ase.Atoms``.

What else a file says (constraints, momenta, masses, labels, information) stays on the ``Atoms``; it is the caller who
honours it, or says that it does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ase import Atoms


def iread_atoms(path: str | os.PathLike[str]) -> Iterator[Atoms]:
    """Read structures one by one; no label is looked for.

    Args:
        path: extended xyz (also ``.gz``, ``.xz``), ASE database (``.db``) or any other format ASE reads.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be parsed; if a structure has no atoms, an element ``X``, numbers that are not
            finite, or is periodic along a zero vector.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    for index, atoms in enumerate(_frames(path)):
        _check_structure(atoms, f"{path}, structure {index}")
        yield atoms


def read_atoms(path: str | os.PathLike[str]) -> list[Atoms]:
    """Read all structures of a file, at least one; arguments and errors as ``iread_atoms``."""
    frames = list(iread_atoms(path))
    if not frames:
        raise ValueError(f"{path}: no structure in this file.")
    return frames


def read_last_atoms(path: str | os.PathLike[str]) -> Atoms:
    """Read the last structure of a file; arguments and errors as ``iread_atoms``."""
    return read_atoms(path)[-1]


def _frames(path: Path) -> Iterator[Atoms]:
    from ase.io import iread

    try:
        yield from _database(path) if path.suffix == ".db" else iread(path, index=":")
    except Exception as error:  # ASE's readers raise almost anything on malformed files
        raise ValueError(f"{path}: cannot be read: {type(error).__name__}: {error}") from error


def _database(path: Path) -> Iterator[Atoms]:
    from ase.db import connect

    for row in connect(path).select():
        atoms = row.toatoms()
        atoms.info.update(row.data, **row.key_value_pairs)
        yield atoms


def _check_structure(atoms: Atoms, where: str) -> None:
    if len(atoms) == 0:
        raise ValueError(f"{where}: no atoms.")
    if (atoms.numbers < 1).any():
        raise ValueError(f"{where}: atom {int(np.argmin(atoms.numbers))} has no element (X); remove it.")
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        raise ValueError(f"{where}: positions or cell are not finite.")
    for axis in range(3):
        if atoms.pbc[axis] and not np.any(atoms.cell.array[axis]):
            raise ValueError(f"{where}: periodic along lattice vector {axis}, which is zero; correct pbc or cell.")


__all__ = ["iread_atoms", "read_atoms", "read_last_atoms"]
