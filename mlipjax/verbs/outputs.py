"""Destinations of results: a folder for all of them, or one file."""

from __future__ import annotations

import os
from pathlib import Path

_FILES = (".xyz", ".extxyz")


def folder_and_file(
    out: str | os.PathLike[str] | None, write: str | os.PathLike[str] | None, name: str
) -> tuple[Path | None, Path | None]:
    """The folder for results, and the file for structures.

    Args:
        out: a folder, in which structures are written as ``name``; or, as for ``write``, a name that ends in .extxyz
            or .xyz.
        write: file for structures alone.
        name: of the file in a folder.

    Raises:
        ValueError: if both are given.
    """
    if out is None or write is not None:
        if out is not None:
            raise ValueError("give either a folder for everything (out) or a file for the structures alone (write).")
        return None, None if write is None else Path(write)
    out = Path(out)
    if out.suffix in _FILES or out.is_file():
        return None, out
    return out, out / name
