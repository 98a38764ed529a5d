"""Writing structures in formats that other programs read: ``ase.Atoms`` with their results, labelled structures."""

from __future__ import annotations

import gzip
import importlib.util
import io
import lzma
import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.dataset import Example
from mlipjax.data.extxyz import labels_of, write_examples
from mlipjax.data.labels import NAMES
from mlipjax.data.weights import without_weights
from mlipjax.files import replace_on_success
from mlipjax.system import System, full_to_voigt, with_results

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


def is_file_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a name ends like one of the files that are written here."""
    return _writer(Path(path)) is not None


def save_examples(path: str | os.PathLike[str], examples: Iterable[Example]) -> None:
    """Write labelled structures to a new file, all of them or nothing; ``read_dataset`` gives labels back bit for bit.

    Args:
        path: ends in .extxyz or .xyz (also .gz, .xz), .db (ASE database), or .h5 or .hdf5 (as MACE has them).
        examples: a ``Dataset``, or ``read_examples`` of a file that does not fit into memory.

    Raises:
        ValueError: for a name of another ending, if there is such a file already, if there is no structure, or the
            package h5py is not installed.
        OSError: if the file cannot be written.
    """
    path = Path(path)
    writer = _writer(path)
    if writer is None:
        raise ValueError(
            f"{path}: labelled structures are written to .extxyz, .db or .h5; choose one of these endings."
        )
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; choose another name.")
    if writer is _write_hdf5 and importlib.util.find_spec("h5py") is None:
        raise ValueError(f'{path}: HDF5 needs the package h5py, which is not installed: pip install "mlipjax[hdf5]".')
    with replace_on_success(path) as temporary:
        if not writer(temporary, examples, path.suffix.lower()):
            raise ValueError(f"{path}: there is no structure to write.")


_Writer = Callable[[Path, Iterable[Example], str], int]


def _writer(path: Path) -> _Writer | None:
    suffix = path.suffix.lower()
    kind = path.with_suffix("").suffix.lower() if suffix in OPENERS else suffix
    if kind in (".xyz", ".extxyz"):
        return _write_xyz
    return {".db": _write_database, ".h5": _write_hdf5, ".hdf5": _write_hdf5}.get(suffix)


def _write_xyz(path: Path, examples: Iterable[Example], suffix: str) -> int:
    with OPENERS.get(suffix, open)(path, "wb") as file:
        return write_examples(file, examples)


def _write_database(path: Path, examples: Iterable[Example], suffix: str) -> int:
    from ase.db import connect

    count = 0
    opened: Any = connect(path, type="db", append=False, use_lock_file=False)
    with opened as database:
        for example in examples:
            present, weights = labels_of(example)
            info = {**without_weights(example.info), **weights}
            pairs = {name: value for name, value in info.items() if _is_pair(name, value)}
            data = {name: value for name, value in info.items() if name not in pairs}
            database.write(_labelled(example.system, present), data=data, **pairs)
            count += 1
    return count


def _labelled(system: System, present: Mapping[str, Any]) -> Atoms:
    labels: dict[str, Any] = {name: np.asarray(value, np.float64) for name, value in present.items()}
    if "energy" in labels:
        labels["energy"] = float(labels["energy"])
    if "stress" in labels and np.array_equal(labels["stress"], labels["stress"].T):
        labels["stress"] = full_to_voigt(labels["stress"])
    return with_results(system.to_ase(), **labels)


def _is_pair(name: str, value: Any) -> bool:
    """Tell whether ASE takes information as a key and value by which rows are selected; the rest are a row's data."""
    from ase.db.core import check

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            check({name: value})
        except (ValueError, UserWarning):
            return False
    return True


def _write_hdf5(path: Path, examples: Iterable[Example], suffix: str) -> int:
    import h5py

    count = 0
    # in memory: where a disk is full, the library itself would end the process
    with h5py.File(path, "w", driver="core", backing_store=False) as file:
        file.attrs["drop_last"] = False
        batch = file.create_group("config_batch_0")
        for count, example in enumerate(examples, start=1):
            _write_mace(batch.create_group(f"config_{count - 1}"), example)
        file.flush()
        image = file.id.get_file_image()
    path.write_bytes(image)
    return count


def _write_mace(group: Any, example: Example) -> None:
    """A structure as MACE stores it; what is missing is the text None."""
    system, labels, info = example
    info, (present, _) = without_weights(info), labels_of(example)
    group["atomic_numbers"] = np.asarray(system.atomic_numbers)
    group["positions"] = np.asarray(system.positions, np.float64)
    group["cell"] = np.asarray(system.cell, np.float64)
    group["pbc"] = np.asarray(system.pbc, bool)
    group["weight"] = 1.0
    group["config_type"] = str(info.pop("config_type", "Default"))
    properties, weights = group.create_group("properties"), group.create_group("property_weights")
    for name in NAMES:
        properties[name] = np.asarray(present[name], np.float64) if name in present else "None"
        weights[name] = float(getattr(labels, f"{name}_weight")) if name in present else 0.0
    for name, value in info.items():
        if name not in properties and isinstance(value, (str, bool, int, float, np.ndarray)) and "/" not in name:
            properties[name] = value
