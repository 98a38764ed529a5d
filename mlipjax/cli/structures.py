"""A structure for commands that move all of its atoms themselves."""

from __future__ import annotations

from pathlib import Path

from mlipjax.data import read_last_atoms
from mlipjax.notices import notice
from mlipjax.system import System


def read_unconstrained(path: Path, why: str) -> System:
    """Read the last structure of a file; constraints are left out, and that is said with the reason.

    Raises:
        FileNotFoundError, ValueError: if the file cannot be read.
    """
    atoms = read_last_atoms(path)
    if atoms.constraints:
        names = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        notice(f"{path}: its constraints ({names}) are not used: {why}.")
    return System.from_ase(atoms)
