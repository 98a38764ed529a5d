"""Writing ``ase.Atoms`` with their results as extended xyz, frame by frame, for other programs to read."""

from __future__ import annotations

import gzip
import io
import lzma
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlipjax.files import replace_on_success

if TYPE_CHECKING:
    from ase import Atoms

OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
"""Of compressed files that are written, by the ending of their name."""


def write_atoms(path: str | os.PathLike[str], frames: Iterable[Atoms]) -> int:
    """Write structures with what their calculators hold, information, arrays and fixed atoms; return how many.

    One structure is in memory at a time. The file is there as a whole or not at all.

    Args:
        path: ends in ``.extxyz`` or ``.xyz``, perhaps followed by ``.gz`` or ``.xz``.
        frames: structures.

    Raises:
        ValueError: for a name of another ending.
        OSError: if the file cannot be written.
    """
    from ase.io.extxyz import write_extxyz

    path = Path(path)
    check_name(path)
    with replace_on_success(path) as temporary:
        opener = OPENERS.get(path.suffix, open)
        with opener(temporary, "wb") as file, io.TextIOWrapper(file, encoding="utf-8", newline="\n") as text:
            count = 0
            for atoms in frames:
                write_extxyz(text, atoms)
                count += 1
    return count


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise ``ValueError`` if a file of this name would not be read as extended xyz."""
    path = Path(path)
    suffix = path.with_suffix("").suffix if path.suffix in OPENERS else path.suffix
    if suffix not in (".xyz", ".extxyz"):
        raise ValueError(f"{path}: structures are written as extended xyz; choose a name that ends in .extxyz.")
