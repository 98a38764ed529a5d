"""Files that are either the old one or the new one, whenever the program is killed; arrays that may live on disk."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import lzma
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PACKED: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
"""Openers of compressed files, by the ending of their name in small letters."""

UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""Errors of these openers, and of what they open."""

# Larger scratch arrays go to a temporary file.
_IN_MEMORY = 2**26


def first_bytes(path: Path, n: int) -> bytes:
    """The first bytes of a file, unpacked; none of one that cannot be read, as whoever reads all of it will say."""
    try:
        with PACKED.get(path.suffix.lower(), open)(path, "rb") as file:
            return file.read(n)
    except UNREADABLE:
        return b""


@contextmanager
def naming(path: str | os.PathLike[str], instead_of: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Let errors of the operating system name ``path`` if they name no file (a full disk), or a temporary one."""
    try:
        yield
    except OSError as error:
        nameless = error.errno is not None and error.filename is None
        temporary = instead_of is not None and error.filename in (instead_of, os.fspath(instead_of))
        if nameless or temporary:
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error
        raise


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder, with its parents, if it is absent.

    Raises:
        NotADirectoryError: if a file stands where it, or one of its parents, should be.
        OSError: if it cannot be made.
    """
    folder = Path(folder)
    _existing_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)


def check_writable(path: str | os.PathLike[str], *, is_file: bool) -> None:
    """Refuse a path at which nothing can be written: early, and without writing anything.

    Args:
        path: where something will be made or replaced.
        is_file: whether that is a file, for which a folder is in the way.

    Raises:
        OSError: naming what is in the way, or cannot be written.
    """
    if is_file and _is_stream(path):
        return  # whatever its folder
    path = Path(os.path.realpath(path))
    if is_file and path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder, not a file; choose another path", str(path))
    existing = _existing_folder(path.parent if is_file else path)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "cannot be written; choose another path", str(existing))


def _existing_folder(folder: Path) -> Path:
    """The deepest part of a path that exists; it must be a folder."""
    for part in (folder, *folder.parents):
        if part.is_dir():
            return part
        if part.exists():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder; choose another path", str(part))
    return Path()


@contextmanager
def replace_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; on a clean exit it is synced to disk and renamed to ``path``.

    After an exception ``path`` is as it was and the temporary file is gone. After a kill a ``*.tmp`` file may
    stay behind; the next write overwrites it. Of a link what it points to is replaced. A device or a pipe
    (``/dev/null``, ``/dev/stdout``) is written to and stays what it is.

    Raises:
        OSError: naming ``path``, if it is a folder or cannot be written.
    """
    if _is_stream(path):
        with _copied_to(Path(path)) as temporary:
            yield temporary
        return
    path = Path(os.path.realpath(path))
    make_folder(path.parent)
    check_writable(path, is_file=True)
    temporary = path.with_name(path.name + ".tmp")
    with naming(path, instead_of=temporary):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        sync(path.parent)


def _is_stream(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is a device, a pipe or an open stream, in whose place no file belongs."""
    path = Path(path)
    return _descriptor(path) is not None or (path.exists() and not (path.is_file() or path.is_dir()))


def _descriptor(path: Path) -> int | None:
    """The number of an open stream that a path names, such as 1 for ``/dev/stdout``."""
    names = {"/dev/stdout": 1, "/dev/stderr": 2}
    if str(path.parent) in ("/dev/fd", "/proc/self/fd") and path.name.isdecimal():
        return int(path.name)
    return names.get(str(path))


@contextmanager
def _copied_to(stream: Path) -> Iterator[Path]:
    """Yield a temporary path elsewhere; on a clean exit its content is written to a device, pipe or open stream."""
    with tempfile.TemporaryDirectory() as folder, naming(stream):
        temporary = Path(folder) / stream.name
        yield temporary
        descriptor = _descriptor(stream)
        sys.stdout.flush()
        with open(temporary, "rb") as content, open(stream if descriptor is None else os.dup(descriptor), "wb") as out:
            shutil.copyfileobj(content, out)


def replace_together(contents: Mapping[Path, bytes]) -> None:
    """Write several files under temporary names (``*.tmp``), then rename them in their order.

    Nothing is renamed before all are on the disk, and after an exception until then all are as they were. A kill
    between two renames leaves the first files new and the others, complete, under their temporary names: readers of
    such a group must know that.

    Raises:
        OSError: naming a file, if it is a folder or cannot be written.
    """
    temporary = {path: path.with_name(path.name + ".tmp") for path in contents}
    try:
        for path, content in contents.items():
            make_folder(path.parent)
            check_writable(path, is_file=True)
            with naming(path, instead_of=temporary[path]):
                temporary[path].write_bytes(content)
                sync(temporary[path])
    except BaseException:
        for left in temporary.values():
            with contextlib.suppress(OSError):
                left.unlink()
        raise
    for path in contents:
        os.replace(temporary[path], path)
        sync(path.parent)


@contextmanager
def folder_on_success(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder next to ``path``; on a clean exit its files are synced to disk and it is renamed to ``path``.

    After an exception nothing is left; what a kill leaves, the next attempt removes.

    Two processes must not do so at the same time (``locks.Lock(path)``).

    Raises:
        ValueError: if there is something at ``path`` already.
        OSError: naming ``path``, if it cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; choose another folder.")
    make_folder(path.parent)
    temporary = path.with_name(path.name + ".tmp")
    with naming(path, instead_of=temporary):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            yield temporary
            for file in (*temporary.iterdir(), temporary):
                sync(file)
            os.rename(temporary, path)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        sync(path.parent)


def scratch(shape: tuple[int, ...]) -> np.ndarray:
    """Return zeros, float64; a large array lives in a nameless temporary file (``TMPDIR``), gone with the array.

    Raises:
        OSError: if the disk has no room for it.
    """
    n_bytes = 8 * math.prod(shape)
    if n_bytes <= _IN_MEMORY:
        return np.zeros(shape)
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)  # a full disk shows here, not in the middle of a write
        return np.asarray(np.memmap(file, np.float64, "w+", shape=shape))


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file (text as UTF-8) so that readers see either the old content or all of the new."""
    with replace_on_success(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def digest(*parts: str | bytes | np.ndarray) -> str:
    """SHA-256 (hex) of texts (UTF-8), bytes and arrays (their numbers in C order), one after the other."""
    found = hashlib.sha256()
    for part in parts:
        part = part.encode() if isinstance(part, str) else part
        found.update(np.ascontiguousarray(part).tobytes() if isinstance(part, np.ndarray) else part)
    return found.hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Turn arrays, tuples, mappings, paths and results (``as_dict``) into what ``json.dumps`` takes.

    JSON has no NaN and no infinity: they become ``None``.
    """
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    return plain(np.asarray(value).tolist())


def sync(path: str | os.PathLike[str]) -> None:
    """Ask the operating system to put a file, or the entries of a folder, on the disk (``fsync``)."""
    if os.name == "nt" and Path(path).is_dir():
        return  # Windows cannot open folders; it commits renames by itself
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        with naming(path):
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
