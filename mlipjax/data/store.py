"""Labelled structures in a folder of flat arrays that stay on disk: only what a batch needs is read.

The folder is that of a property set (``data.properties``) with more arrays: ``atomic_numbers`` (A,), ``positions``
(A, 3) Å and ``forces`` (A, 3) eV/Å of all structures one after the other; by structure ``n_atoms`` (n,), ``cells``
(n, 3, 3) Å, ``pbc`` (n, 3), ``energy`` (n,) eV, ``stress`` (n, 3, 3) eV/Å^3 and the three weights (n,), 0 for a missing
label; the information of all structures as JSON in ``infos`` (bytes) and its lengths in ``info_sizes`` (n,). Floats are
float64: structures and labels come back bit for bit. ``store.json`` holds a checksum of every array.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.data.checks import check_counts, check_system, check_systems
from mlipjax.data.dataset import Dataset, Example, View
from mlipjax.data.labels import check_label, check_label_arrays
from mlipjax.files import file_digest, folder_on_success, make_folder, map_arrays
from mlipjax.locks import Lock
from mlipjax.reading import brief, shown
from mlipjax.system import Labels, System

DESCRIPTION = "store.json"
_FORMAT = "mlipjax labelled structures, version 1"
_ARRAY, _DTYPE = "__array__", "dtype"
_BY_ATOM = ("atomic_numbers", "positions", "forces")
_LABELS = ("energy", "forces", "stress", "energy_weight", "forces_weight", "stress_weight")
# Type and shape of a row of each array.
_COLUMNS: dict[str, tuple[str, tuple[int, ...]]] = {
    "atomic_numbers": ("<i4", ()),
    "positions": ("<f8", (3,)),
    "n_atoms": ("<i8", ()),
    "cells": ("<f8", (3, 3)),
    "pbc": ("|b1", (3,)),
    "energy": ("<f8", ()),
    "forces": ("<f8", (3,)),
    "stress": ("<f8", (3, 3)),
    "energy_weight": ("<f8", ()),
    "forces_weight": ("<f8", ()),
    "stress_weight": ("<f8", ()),
    "infos": ("|u1", ()),
    "info_sizes": ("<i8", ()),
}


def write_store(folder: str | os.PathLike[str], examples: Iterable[Example]) -> None:
    """Write labelled structures to a new folder, one by one, all of them or nothing.

    Args:
        folder: where; ``read_dataset`` opens it.
        examples: a ``Dataset``, or ``read_examples`` of a file that does not fit into memory.

    Raises:
        ValueError: if there is something at ``folder`` already, if there is no structure, or if one has forces of
            another shape than its positions or information that JSON cannot hold.
    """
    make_folder(Path(folder).parent)
    with Lock(folder), folder_on_success(folder) as temporary:
        count = 0
        with contextlib.ExitStack() as stack:
            columns = {name: stack.enter_context(_Column(temporary, name)) for name in _COLUMNS}
            for count, example in enumerate(examples, start=1):
                for name, rows in _rows(example, f"structure {count - 1}").items():
                    columns[name].append(rows)
        if not count:
            raise ValueError(f"{folder}: there is no structure to write.")
        checksums = {name: file_digest(temporary / f"{name}.npy") for name in _COLUMNS}
        description = {"format": _FORMAT, "structures": count, "sha256": checksums}
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def open_store(folder: str | os.PathLike[str]) -> Dataset:
    """Open what ``write_store`` wrote; all of it is checked in one pass, then structures are read when needed.

    Raises:
        ValueError: if it is no such folder, or a file is missing or not what was written; if a structure or label in
            it is none (see ``checks``): checksums say that a folder is whole, not that it makes sense.
    """
    folder = Path(folder)
    count = _check(folder)
    # plain arrays of the same memory: a slice of a memmap takes ten times as long
    arrays = {name: np.asarray(array) for name, array in map_arrays(folder).items() if name in _COLUMNS}
    _check_arrays(arrays, count, folder)
    store = _Store.create(folder, arrays)
    n = len(store.starts) - 1
    return Dataset(View(store.system, n), View(store.labels, n), View(store.info, n))


def hash_input(path: str | os.PathLike[str]) -> str | None:
    """SHA-256 (hex) of a file, or of the checksums of a folder of ``write_store``; ``None`` if it is neither."""
    path = Path(path)
    path = path / DESCRIPTION if path.is_dir() else path
    return file_digest(path) if path.is_file() else None


@dataclasses.dataclass(frozen=True, eq=False)
class _Store:
    """A folder, its arrays, and where each structure and its information begin in them."""

    folder: Path
    arrays: Mapping[str, np.ndarray]
    starts: np.ndarray
    info_starts: np.ndarray

    @classmethod
    def create(cls, folder: Path, arrays: Mapping[str, np.ndarray]) -> _Store:
        starts = (np.concatenate([[0], np.cumsum(arrays[name])]) for name in ("n_atoms", "info_sizes"))
        return cls(folder, arrays, *starts)

    def system(self, row: int) -> System:
        part, arrays = slice(self.starts[row], self.starts[row + 1]), self.arrays
        a, b, c = arrays["pbc"][row].tolist()
        return System(arrays["positions"][part], arrays["atomic_numbers"][part], arrays["cells"][row], (a, b, c))

    def labels(self, row: int) -> Labels:
        part = slice(self.starts[row], self.starts[row + 1])
        found: dict[str, Any] = {name: self.arrays[name][part if name == "forces" else row] for name in _LABELS}
        return Labels(**found)

    def info(self, row: int) -> dict[str, Any]:
        text = self.arrays["infos"][self.info_starts[row] : self.info_starts[row + 1]].tobytes()
        try:
            info = json.loads(text, object_hook=_decoded)
        except (ValueError, TypeError, OverflowError, MemoryError, RecursionError):
            info = None
        if not isinstance(info, dict):
            raise ValueError(
                f"{self.folder / 'infos.npy'}: the information of structure {row} is damaged; convert the data again."
            )
        return info


class _Column:
    """An ``.npy`` file that grows; use as a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        self.dtype, self.shape = _COLUMNS[name]
        self.length = 0
        self._file = open(folder / f"{name}.npy", "wb")  # noqa: SIM115  (closed on exit)
        self._write_header()

    def append(self, rows: np.ndarray) -> None:
        self.length += len(rows)
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())

    def _write_header(self) -> None:
        # numpy leaves room for any length, so the header keeps its size
        header = {"descr": self.dtype, "fortran_order": False, "shape": (self.length, *self.shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> _Column:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.seek(0)
        self._write_header()
        self._file.close()


def _rows(example: Example, where: str) -> dict[str, np.ndarray]:
    """Rows that a structure adds to each array."""
    system, labels, info = example
    if np.shape(labels.forces) != np.shape(system.positions):
        raise ValueError(
            f"{where}: forces have shape {np.shape(labels.forces)}, positions {np.shape(system.positions)}."
        )
    _check_example(system, labels, where)
    try:
        text = json.dumps(dict(info), default=_encoded, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: its information cannot be stored as JSON: {brief(error)}.") from None
    single = {
        "n_atoms": system.n_atoms,
        "cells": system.cell,
        "pbc": system.pbc,
        **{name: getattr(labels, name) for name in _LABELS if name != "forces"},
        "info_sizes": len(text),
    }
    return {
        "atomic_numbers": np.asarray(system.atomic_numbers),
        "positions": np.asarray(system.positions),
        "forces": np.asarray(labels.forces),
        "infos": np.frombuffer(text, np.uint8),
        **{name: np.asarray(value)[None] for name, value in single.items()},
    }


def _check_example(system: System, labels: Labels, where: str) -> None:
    """Refuse what could be written but not opened again."""
    numbers, positions, cell = (np.asarray(x) for x in (system.atomic_numbers, system.positions, system.cell))
    check_system(numbers, positions, cell, np.asarray(system.pbc), where)
    for name in ("energy", "forces", "stress"):
        check_label(name, np.asarray(getattr(labels, name)), system.n_atoms, where)


def _encoded(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {_ARRAY: value.tolist(), _DTYPE: value.dtype.str}
    raise TypeError(f"found a {type(value).__name__}")


def _decoded(content: dict[str, Any]) -> Any:
    if _ARRAY not in content:
        return content
    array = np.array(content[_ARRAY])
    dtype = np.dtype(content[_DTYPE])
    # a type that is larger than what it holds asks for any amount of memory
    if dtype.kind not in "fiubcUS" or dtype.itemsize > max(array.itemsize, 16):
        raise ValueError(f"an array of {dtype}")
    return array.astype(dtype)


def _check(folder: Path) -> int:
    """Check description and checksums; return the number of structures."""
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        checksums = {name: description["sha256"][name] for name in _COLUMNS}
        count = operator.index(description["structures"])
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: no {DESCRIPTION}, so not a folder of labelled structures as mlipjax convert makes them."
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{folder / DESCRIPTION}: damaged; convert the data again.") from None
    if description.get("format") != _FORMAT:
        raise ValueError(f"{folder}: its format is {shown(description.get('format'))}, this version reads {_FORMAT!r}.")
    for name, expected in checksums.items():
        file = folder / f"{name}.npy"
        if not file.is_file():
            raise ValueError(f"{file}: missing; convert the data again.")
        if file_digest(file) != expected:
            raise ValueError(f"{file}: not what was written: cut short or changed; convert the data again.")
    return count


def _check_arrays(arrays: Mapping[str, np.ndarray], count: int, folder: Path) -> None:
    """Check that arrays fit together, and every structure and label as those of any other file."""
    for name, (dtype, shape) in _COLUMNS.items():
        found = arrays[name]
        if found.dtype != np.dtype(dtype) or found.ndim != 1 + len(shape) or found.shape[1:] != shape:
            expected = ", ".join(["n", *map(str, shape)])
            raise ValueError(
                f"{folder / name}.npy: holds {found.dtype} of shape {found.shape}, expected {np.dtype(dtype)} of shape "
                f"({expected}); convert the data again."
            )
    counts = arrays["n_atoms"]
    for name in _COLUMNS:
        if name not in (*_BY_ATOM, "infos") and len(arrays[name]) != count:
            raise ValueError(
                f"{folder / name}.npy: {len(arrays[name])} rows, {DESCRIPTION} says {count} structures; convert the "
                "data again."
            )
    check_counts(counts, {name: len(arrays[name]) for name in _BY_ATOM}, str(folder))
    check_counts(arrays["info_sizes"], {"infos": len(arrays["infos"])}, str(folder), "info_sizes")

    def where(row: int) -> str:
        return f"{folder}, structure {row}"

    check_systems(arrays["atomic_numbers"], arrays["positions"], counts, arrays["cells"], arrays["pbc"], where)
    names = ("energy", "forces", "stress")
    labels, weights = ({name: arrays[f"{name}{end}"] for name in names} for end in ("", "_weight"))
    check_label_arrays(labels, weights, counts, where)
