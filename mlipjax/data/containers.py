"""Structures in LMDB files of fairchem and in HDF5 files of MACE, each by an optional package (an extra)."""

from __future__ import annotations

import importlib.util
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mlipjax.data import _records
from mlipjax.reading import check_file
from mlipjax.system import with_results

if TYPE_CHECKING:
    from ase import Atoms

KINDS = {".aselmdb": "lmdb", ".lmdb": "lmdb", ".mdb": "lmdb", ".h5": "hdf5", ".hdf5": "hdf5"}
"""Kind of container by the ending of a name in small letters."""
_PACKAGES = {"lmdb": "lmdb", "hdf5": "h5py"}
_LARGEST = 1 << 40
# of the process that reads: what Python and its packages take, and more with the size of the file
_BYTES, _SECONDS, _SECONDS_PER_BYTE = 3 << 29, 8, 1e-6
# of MACE's layout: what is no information
_NOT_INFO = {"atomic_numbers", "positions", "cell", "pbc", "properties", "property_weights", "weight", "config_type"}
_LABELS = ("energy", "forces", "stress", "virials")
_RESULTS = ("energy", "forces", "stress", "charges", "dipole")


def read_container(path: Path) -> Iterator[Atoms]:
    """Read the structures of a container one by one, with their labels as other files have them.

    Raises:
        ValueError: if it cannot be read, or the package that reads it is not installed.
    """
    kind = KINDS[path.suffix.lower()]
    if importlib.util.find_spec(_PACKAGES[kind]) is None:
        raise ValueError(
            f"files of this kind need the package {_PACKAGES[kind]}, which is not installed: "
            f'pip install "mlipjax[{kind}]".'
        )
    make = _from_row if kind == "lmdb" else _from_mace
    for text in _records_of(kind, path):
        yield make(_decoded(text))


def _records_of(kind: str, path: Path) -> Iterator[bytes]:
    """The records of a file, read by a process that may end in any way."""
    size = check_file(path, _LARGEST)
    bounds = (_BYTES + 2 * size, int(_SECONDS + _SECONDS_PER_BYTE * size))
    command = [sys.executable, "-I", _records.__file__, kind, os.path.abspath(path), *map(str, bounds)]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nowhere, stdout=subprocess.PIPE, stderr=nowhere) as child:
        assert child.stdout is not None
        try:
            while (length := _length(child.stdout)) not in (0, None):
                if length == 2**64 - 1:
                    raise ValueError(child.stdout.read(1000).decode(errors="replace"))
                if length > _records.MAX_RECORD:
                    raise ValueError(f"a record of {length} bytes; at most {_records.MAX_RECORD} are read")
                text = child.stdout.read(length)
                if len(text) < length:
                    break
                yield text
            if length is None or length:
                raise ValueError("the library that reads it broke off: the file is damaged, or asks for too much")
        finally:
            child.kill()


def _length(stream: IO[bytes]) -> int | None:
    content = stream.read(8)
    return struct.unpack("<Q", content)[0] if len(content) == 8 else None


def _decoded(text: bytes) -> dict[str, Any]:
    from ase.io.jsonio import decode

    record: Any = decode(text.decode())
    if not isinstance(record, dict):
        raise ValueError(f"a record is a {type(record).__name__}, expected a mapping")
    return record


def _from_row(record: dict[str, Any]) -> Atoms:
    """The structure of a row of an ASE database, as ``atoms.py`` reads those of other databases."""
    from ase.db.row import AtomsRow

    if "numbers" not in record:
        raise ValueError("a row has no atomic numbers")
    row = AtomsRow({"unique_id": "", **record})
    atoms = row.toatoms()
    atoms.info.update(row.data if isinstance(row.data, Mapping) else {}, **row.key_value_pairs)
    return atoms


def _from_mace(record: dict[str, Any]) -> Atoms:
    """The structure of a record of MACE; labels and weights under the names that files of MACE give them."""
    from ase import Atoms

    given = {name: value for name, value in record.items() if not _is_none(value)}
    if not {"atomic_numbers", "positions"} <= set(given):
        raise ValueError("a structure has no atomic numbers or positions")
    numbers = np.asarray(given["atomic_numbers"])
    atoms = Atoms(numbers, np.asarray(given["positions"], float), cell=given.get("cell"), pbc=given.get("pbc"))
    # in an earlier layout properties and their weights stand beside the structure
    properties = {**{key: given[key] for key in given if key not in _NOT_INFO}, **given.get("properties", {})}
    properties = {name: value for name, value in properties.items() if not _is_none(value)}
    weights = {**given.get("property_weights", {})}
    weights |= {name: properties.pop(f"{name}_weight") for name in _LABELS if f"{name}_weight" in properties}
    results = {name: np.asarray(properties.pop(name)) for name in _RESULTS if name in properties}
    with_results(atoms, **results)
    for name, value in properties.items():
        atoms.info[name] = np.asarray(value) if isinstance(value, list) else value
    scales = {"config_weight": given.get("weight", 1.0)}
    # a weight of 0 beside a label that is not there says nothing
    there = {*results, *properties} & {*weights}
    scales |= {f"config_{name}_weight": weights[name] for name in _LABELS if name in there}
    atoms.info |= {name: weight for name, weight in scales.items() if not _is_none(weight) and weight != 1.0}
    if given.get("config_type", "Default") != "Default":
        atoms.info["config_type"] = given["config_type"]
    return atoms


def _is_none(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "None")
