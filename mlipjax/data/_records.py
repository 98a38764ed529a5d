"""The records of an LMDB or HDF5 file, read in a process of their own: ``python _records.py KIND FILE BYTES SECONDS``.

The C libraries behind these formats trust a file's own addresses: a damaged one makes them read wherever it says,
loop, or end the process. Here that ends this process alone, which imports nothing of the package, has bounds on its
memory and time, and writes each record to its standard output as JSON behind its length; a length of 0 says that all is
well.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import Any

MAX_RECORD = 1 << 28
"""Bytes of a record as JSON."""
_PICKLE = b"\x80"  # first byte
_WHOLE_NUMBERS = 1 << 62


def read_lmdb(path: str) -> Iterator[bytes]:
    """Yield the rows of an ASE database in an LMDB file (``.aselmdb``) as JSON, in the order of their numbers."""
    import lmdb

    # no lock file beside data that may be read-only; the map is as large as the file
    env: Any = lmdb.open(path, subdir=False, readonly=True, lock=False, readahead=False)
    with env, env.begin() as rows:
        numbers = sorted(int(key) for key in rows.cursor().iternext(values=False) if key.isdigit() and len(key) < 19)
        for number in numbers:
            packed = bytes(rows.get(str(number).encode()))
            if packed[:1] == _PICKLE:
                raise ValueError(
                    "it holds pickled Python objects, as older files of fairchem do, and those are not read here; "
                    "write its structures as .aselmdb"
                )
            unpacker = zlib.decompressobj()
            text = unpacker.decompress(packed, MAX_RECORD)
            if unpacker.unconsumed_tail:
                raise ValueError(f"row {number} unpacks to more than {MAX_RECORD} bytes")
            yield text


def read_hdf5(path: str) -> Iterator[bytes]:
    """Yield the structures of an HDF5 file of MACE as JSON, in the order of their numbers."""
    import h5py

    with h5py.File(path, "r") as opened:
        file: Any = opened
        batches = [name for name in file if name.startswith("config_batch_")]
        if not batches:
            raise ValueError("it holds no group config_batch_0, as HDF5 files of MACE do")
        for batch in sorted(batches, key=_number):
            group = _child(file, batch)
            for name in sorted(group, key=_number):
                yield json.dumps(_structure(_child(group, name))).encode()


def _structure(group: Any) -> dict[str, Any]:
    values = {name: _value(group, name) for name in group if name not in ("properties", "property_weights")}
    for name in ("properties", "property_weights"):
        if name in group:
            inner = _child(group, name)
            values[name] = {key: _value(inner, key) for key in inner}
    return values


def _value(group: Any, name: str) -> Any:
    dataset = _child(group, name)
    if dataset.is_virtual or dataset.external is not None:
        raise ValueError(f"{dataset.name} lies in another file")
    if dataset.nbytes > MAX_RECORD // 8:
        raise ValueError(f"{dataset.name} has {dataset.nbytes} bytes")
    value = dataset[()]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if dataset.dtype.kind not in "fiub":
        raise ValueError(f"{dataset.name} is no array of numbers")
    return value.tolist()


def _child(group: Any, name: str) -> Any:
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{group.name}/{name} is a link")
    return group[name]


def _number(name: str) -> int:
    digits = name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() and len(digits) < 19 else _WHOLE_NUMBERS


def main() -> None:
    """Write all records, or what is wrong behind a length of all ones."""
    kind, path, n_bytes, seconds = sys.argv[1:]
    output = sys.stdout.buffer
    try:
        _limit(int(n_bytes), int(seconds))
        for text in {"lmdb": read_lmdb, "hdf5": read_hdf5}[kind](path):
            output.write(struct.pack("<Q", len(text)) + text)
        output.write(struct.pack("<Q", 0))
    except Exception as error:
        text = f"{type(error).__name__ if not isinstance(error, ValueError) else ''} {error}".strip().encode()[:1000]
        output.write(struct.pack("<Q", 2**64 - 1) + text)
    output.flush()


def _limit(n_bytes: int, seconds: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    for limit, value in ((resource.RLIMIT_AS, n_bytes), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_CORE, 0)):
        hard = resource.getrlimit(limit)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (soft, hard))


if __name__ == "__main__":
    main()
