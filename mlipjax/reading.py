"""Reading of files that anyone may have written: what a file claims is compared with what it holds before it is used.

Sizes come first. A file is a regular file of a bounded size; the members of an archive and the arrays in them are no
larger than the bytes that are there; JSON is neither deep nor long. All that is wrong is a ``ValueError`` of one line
that names the file. Nothing is unpickled.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import reprlib
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAX_BYTES = 1 << 30
"""Largest file that is read into memory as a whole, and largest sum of the unpacked members of an archive."""
MAX_JSON_BYTES = 1 << 24
"""Largest JSON file."""
MAX_MEMBERS = 20_000
"""Most members of an archive."""

_NPY = b"\x93NUMPY\x01\x00"
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<>|=]?[a-zA-Z]\d{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\),? ?\}\s*"
)
_MAX_NPY_HEADER = 4096
_MAX_DIMENSIONS = 16

ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, IndexError, NotImplementedError, OSError, OverflowError,
    RuntimeError, ValueError,
)  # fmt: skip
"""Errors of ``zipfile`` for damaged, encrypted and foreign archives."""


def shown(value: object) -> str:
    """Describe what was found, for a message: in at most some dozen words, however long, deep or shared it is."""
    return reprlib.repr(value)


def check_file(path: str | os.PathLike[str], limit: int = MAX_BYTES) -> int:
    """Return the size in bytes of a regular file.

    Args:
        path: file, or a link to one.
        limit: most bytes it may have.

    Raises:
        FileNotFoundError: if there is nothing.
        ValueError: if it is a folder, pipe or device, is empty, or larger than ``limit``.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file.")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "a pipe or device"
        raise ValueError(f"{path} is {what}, where a file is expected.")
    size = path.stat().st_size
    if size == 0:
        raise ValueError(f"{path} is empty: the file was never written, or cut off.")
    if size > limit:
        raise ValueError(f"{path} has {size} bytes; at most {limit} are read of a file of this kind.")
    return size


def parse_json(content: bytes | str, source: str) -> Any:
    """Return the value of a JSON text (UTF-8).

    Raises:
        ValueError: if it is no JSON, or too deep or too long for one; the message starts with ``source``.
    """
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"{source}: {len(content)} bytes are too many for JSON; at most {MAX_JSON_BYTES} are read.")
    try:
        return json.loads(content if isinstance(content, str) else content.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{source}: not JSON: the text is not UTF-8.") from None
    except RecursionError:
        raise ValueError(f"{source}: not JSON that belongs here: nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{source}: not JSON: {error}.") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the value in a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as ``check_file`` and ``parse_json``.
    """
    check_file(path, MAX_JSON_BYTES)
    return parse_json(Path(path).read_bytes(), str(path))


def read_array(file: BinaryIO, n_bytes: int, source: str) -> np.ndarray:
    """Read one array in numpy's format, version 1.0, in the byte order of this machine: numbers, booleans or text.

    Args:
        file: at the start of the array.
        n_bytes: how many bytes are left in it.
        source: what the message calls it.

    Raises:
        ValueError: if it is no such array, claims more bytes than are left, or holds Python objects (a pickle).
    """
    start = file.tell()
    shape, fortran_order, dtype = _read_npy_header(file, source)
    too_long = dtype.kind != "U" and dtype.itemsize > 8  # a long double is no array for JAX
    if dtype.kind not in "fiubU" or dtype.itemsize == 0 or too_long:
        raise ValueError(f"{source} holds {brief(dtype)}, where numbers are expected; nothing in it was run.")
    count, left = math.prod(shape), n_bytes - (file.tell() - start)
    if len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"{source} is damaged: an array of {len(shape)} dimensions.")
    if count * dtype.itemsize > left:
        raise ValueError(
            f"{source} is truncated or damaged: an array of shape {shown(shape)} and type {dtype} needs "
            f"{count * dtype.itemsize} bytes, and {left} are left."
        )
    content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise ValueError(f"{source} is truncated: it ends within an array.")
    # of a bytearray: the array can be written to
    array = np.ndarray(shape, dtype, bytearray(content), order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)


def _read_npy_header(file: BinaryIO, source: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type that an array claims, as ``numpy.save`` writes them (its own reader evaluates Python)."""
    prefix = file.read(len(_NPY) + 2)
    size = int.from_bytes(prefix[len(_NPY) :], "little")
    found = None
    if prefix.startswith(_NPY) and len(prefix) == len(_NPY) + 2 and size <= _MAX_NPY_HEADER:
        found = _NPY_HEADER.fullmatch(file.read(size))
    if found is None:
        raise ValueError(f"{source} is truncated or damaged: no array in numpy's format, version 1.0.")
    descr, order, shape = (group.decode("ascii") for group in found.groups())
    try:
        return tuple(int(number) for number in shape.split(",") if number.strip()), order == "True", np.dtype(descr)
    except (TypeError, ValueError):
        raise ValueError(f"{source} is damaged: no type of numbers is called {descr!r}.") from None


@contextmanager
def open_archive(path: str | os.PathLike[str], kind: str, limit: int = MAX_BYTES) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive whose members, unpacked, have a bounded size in all; errors while it is open are explained.

    Args:
        path: file.
        kind: what it should be, for messages, such as "a file that torch.save wrote".
        limit: most bytes of the file, and of its unpacked members in all.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no archive, is damaged or encrypted, names a member twice, or is a bomb.
    """
    check_file(path, limit)
    try:
        archive = zipfile.ZipFile(path)
    except PermissionError:
        raise
    except ARCHIVE_ERRORS:
        raise ValueError(f"{path} is not {kind} (no zip archive): damaged, or another format.") from None
    with archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if len(members) > MAX_MEMBERS or size > limit:
            raise ValueError(
                f"{path} claims {len(members)} members of {size} bytes in all; {kind} has at most {MAX_MEMBERS} of "
                f"{limit}."
            )
        if len({member.filename for member in members}) < len(members):
            raise ValueError(f"{path} is not {kind}, or damaged: it holds two members of one name.")
        for member in members:
            if member.flag_bits & 1 or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{path} is not {kind}: {shown(member.filename)} is encrypted or packed otherwise.")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str, limit: int = MAX_BYTES) -> bytes:
    """Return the bytes of a member of an archive of ``open_archive``.

    Raises:
        ValueError: if there is no such member, it has more bytes than ``limit``, or is damaged.
    """
    source = f"{archive.filename}: {shown(name)}"
    if name not in archive.NameToInfo:
        raise ValueError(f"{source} is missing: the file is damaged.")
    size = archive.getinfo(name).file_size
    if size > limit:
        raise ValueError(f"{source} has {size} bytes; at most {limit} are read.")
    try:
        content = archive.read(name)
    except ARCHIVE_ERRORS as error:
        raise ValueError(f"{source} is damaged: {brief(error)}.") from None
    if len(content) != size:
        raise ValueError(f"{source} is truncated: {len(content)} of {size} bytes.")
    return content


def read_npz(path: str | os.PathLike[str], kind: str, limit: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays of an ``.npz`` file by name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as ``open_archive`` and ``read_array``; or if anything else is in the file.
    """
    arrays = {}
    with open_archive(path, kind, limit) as archive:
        for name in archive.namelist():
            source = f"{path}: {shown(name)}"
            content = read_member(archive, name, limit)
            with io.BytesIO(content) as file:
                arrays[name.removesuffix(".npy")] = read_array(file, len(content), source)
                if file.tell() != len(content):
                    raise ValueError(f"{source} is damaged: {len(content) - file.tell()} bytes follow the array.")
    return arrays


def brief(error: object) -> str:
    """The beginning of a message in one line, without its full stop."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160]}..."
