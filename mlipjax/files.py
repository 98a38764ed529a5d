"""Files that are either the old one or the new one, whenever the program is killed; arrays that may live on disk."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Larger scratch arrays go to a temporary file.
_IN_MEMORY = 2**26


@contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on a clean exit it is synced to disk and renamed to ``path``.

    After an exception ``path`` is as it was and the temporary file is gone. After a kill a ``*.tmp`` file may
    stay behind; the next write overwrites it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


@contextmanager
def folder_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder next to ``path``; on a clean exit its files are synced to disk and it is renamed to ``path``.

    After an exception nothing is left; what a kill leaves, the next attempt removes.

    Raises:
        ValueError: if there is something at ``path`` already.
    """
    path = Path(path)
    if path.exists():
        raise ValueError(f"{path} exists already; choose another folder.")
    temporary = path.with_name(path.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for file in (*temporary.iterdir(), temporary):
            sync(file)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync(path.parent)


def scratch(shape: tuple[int, ...], dtype: Any = np.float64) -> np.ndarray:
    """Return an array of zeros; a large one lives in a nameless temporary file (``TMPDIR``), gone with the array.

    Raises:
        OSError: if the disk has no room for it.
    """
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes <= _IN_MEMORY:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk shows here, not in the middle of a write
        return np.asarray(np.memmap(file, dtype, "w+", shape=shape))


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file (text as UTF-8) so that readers see either the old content or all of the new."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync(path: str | os.PathLike[str]) -> None:
    """Ask the operating system to put a file, or the entries of a folder, on the disk (``fsync``)."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows cannot open folders; it commits renames by itself
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Map all ``.npy`` files of a folder into memory, by their names.

    Raises:
        ValueError: if one is no array of numbers, or claims more bytes than it has.
    """
    return {file.stem: _map_array(file) for file in sorted(folder.glob("*.npy"))}


def _map_array(file: Path) -> np.ndarray:
    try:
        if not file.is_file():
            raise ValueError("no regular file")
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # the reader of a damaged header raises whatever Python's parser does
        reason = " ".join(str(error).split())[:200].rstrip(".")
        raise ValueError(f"{file}: not an array in numpy's format, or damaged ({reason}).") from None
