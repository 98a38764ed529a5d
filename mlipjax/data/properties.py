"""Structures with one number each (a band gap, a volume, ...): data sets whose labels are of one property.

Such sets hold many structures; their arrays may stay on disk. They are read from

- ``.npz``: ``atomic_numbers`` (A,), ``positions`` (A, 3) Å of all structures one after the other, ``n_atoms`` (n,),
  optionally ``cells`` (n, 3, 3) Å and ``pbc`` (n, 3), and the property (n,) under its key;
- a folder with these arrays as ``.npy`` files, which are mapped into memory: only what a batch needs is read; in one
  of ``data.store`` the property may also be information of every structure;
- anything ASE reads, with the property in the information of every structure.

``open_properties(..., cache=FOLDER)`` makes such a folder from the other two, piece by piece.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.data.atoms import iread_located, say_electrons
from mlipjax.data.checks import check_counts, check_systems
from mlipjax.data.dataset import Dataset, Placed, View
from mlipjax.data.store import open_store
from mlipjax.files import map_arrays, write_atomic
from mlipjax.reading import MAX_BYTES, open_archive, read_npz
from mlipjax.system import Labels, System

MAX_VALUE = 1e15
"""Largest value of a property: squares of larger ones leave float32, and no network learns them."""

_REQUIRED = ("atomic_numbers", "positions", "n_atoms")
_KINDS = (
    ("atomic_numbers", "iu", "whole numbers"), ("n_atoms", "iu", "whole numbers"), ("positions", "f", "numbers"),
    ("cells", "f", "numbers"), ("pbc", "bui", "yes or no"),
)  # fmt: skip
_COMPLETE = "complete"
_CHUNK = 1 << 22
_MOST_PACKED = 50


def label_property(
    systems: Sequence[System], key: str, values: Any, infos: Sequence[Mapping[str, Any]] | None = None
) -> Dataset:
    """Return structures labelled with the values of a property.

    Args:
        systems: structures.
        key: name of the property.
        values: (n,) a number for each.
        infos: information of each, if there is any.

    Raises:
        ValueError: if there is no structure, or values do not fit, are not finite or absurdly large.
    """
    values = np.asarray(values, np.float64)
    n = len(systems)
    if not n or values.shape != (n,):
        raise ValueError(f"{key}: found {n} structures with values of shape {values.shape}; give one for each.")

    def labels(row: int) -> Labels:
        return Labels.create(systems[row].n_atoms, properties={key: values[row]})

    dataset = Dataset(systems, View(labels, n), ({},) * n if infos is None else infos)
    if len(bad := np.flatnonzero(~(np.abs(values) <= MAX_VALUE))):
        raise ValueError(
            f"{dataset.where(bad[0])}: {key!r} is {values[bad[0]]:g}, expected a finite number of at most "
            f"{MAX_VALUE:g}; correct it or remove the structure ({len(bad)} of {n} are so)."
        )
    return dataset


def property_name(dataset: Dataset) -> str:
    """Return the name of the one property that a data set is labelled with.

    Raises:
        ValueError: if it has none or several.
    """
    names = sorted(dataset.labels[0].properties) if len(dataset) else []
    if len(names) != 1:
        raise ValueError(f"a property set has one property, found {', '.join(names) or 'none'}.")
    return names[0]


def targets(dataset: Dataset, key: str) -> np.ndarray:
    """Return the values of a property, (n,) float64."""
    return np.array([labels.properties[key] for labels in dataset.labels], np.float64)


def parse_property(text: str) -> tuple[Path, str]:
    """Split ``FILE:KEY``.

    Raises:
        ValueError: if there is no key.
    """
    file, _, key = text.rpartition(":")
    if not file or not key or "/" in key:
        raise ValueError(f"a property is given as FILE:KEY, found {text!r}.")
    return Path(file), key


def open_properties(path: str | Path, key: str, *, cache: str | Path | None = None) -> Dataset:
    """Open a property data set.

    Args:
        path: see the module.
        key: name of the property.
        cache: folder to which an ``.npz`` or ASE file is unpacked, so that it can be mapped; made anew if the file
            has changed. ``None`` reads the file into memory.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it does not hold what it should.
    """
    path = Path(path)
    if path.is_dir():
        arrays = map_arrays(path)
        if key in arrays or "infos" not in arrays:
            return _from_arrays(arrays, key, str(path))
        store = open_store(path)
        values = [_number(info, key, f"{path}: structure {i}") for i, info in enumerate(store.infos)]
        return label_property(store.systems, key, values, store.infos)
    if path.suffix != ".npz":
        return _read_structures(path, key)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    if cache is None:
        return _from_arrays(read_npz(path, "a property set", _limit(path)), key, str(path))
    return _from_arrays(map_arrays(_unpack(path, Path(cache))), key, str(path))


def _from_arrays(arrays: Mapping[str, np.ndarray], key: str, source: str) -> Dataset:
    """Check arrays and make a data set of them that reads a structure when it is asked for."""
    missing = [name for name in (*_REQUIRED, key) if name not in arrays]
    if missing:
        raise ValueError(f"{source}: no array {missing[0]!r}; found {', '.join(sorted(arrays)) or 'nothing'}.")
    for name, kinds, what in (*_KINDS, (key, "fiub", "numbers")):
        if name in arrays and arrays[name].dtype.kind not in kinds:
            raise ValueError(f"{source}: {name!r} is {arrays[name].dtype}, expected {what}.")
    counts = np.asarray(arrays["n_atoms"], np.int64)
    if counts.ndim != 1:
        raise ValueError(f"{source}: 'n_atoms' has shape {counts.shape}, expected one number per structure.")
    check_counts(counts, {"atomic_numbers": arrays["atomic_numbers"].size}, source)
    n, total = len(counts), int(counts.sum())
    shapes = {"atomic_numbers": (total,), "positions": (total, 3), key: (n,)}
    shapes |= {name: shape for name, shape in (("cells", (n, 3, 3)), ("pbc", (n, 3))) if name in arrays}
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise ValueError(f"{source}: {name!r} has shape {arrays[name].shape}, n_atoms asks for {shape}.")
    check_systems(
        arrays["atomic_numbers"], arrays["positions"], counts, arrays.get("cells"), arrays.get("pbc"),
        lambda row: f"{source}, structure {row}",
    )  # fmt: skip
    starts = np.concatenate([[0], np.cumsum(counts)])

    def system(row: int) -> System:
        part = slice(starts[row], starts[row + 1])
        a, b, c = map(bool, arrays["pbc"][row]) if "pbc" in arrays else (False,) * 3
        return System(
            positions=np.array(arrays["positions"][part], np.float64),
            atomic_numbers=np.array(arrays["atomic_numbers"][part], np.int32),
            cell=np.array(arrays["cells"][row], np.float64) if "cells" in arrays else np.zeros((3, 3)),
            pbc=(a, b, c),
        )

    return label_property(View(system, n), key, arrays[key], View(lambda row: Placed({}, source, row), n))


def _limit(path: Path) -> int:
    """Most bytes that a property set unpacks to: numbers never shrink as a bomb does."""
    return max(MAX_BYTES, _MOST_PACKED * path.stat().st_size)


def _unpack(path: Path, folder: Path) -> Path:
    """Copy the members of an ``.npz`` to a folder, a few megabytes at a time."""
    stamp = f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns}"
    done = folder / _COMPLETE
    if done.is_file() and done.read_text(encoding="utf-8") == stamp:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    with open_archive(path, "a property set", _limit(path)) as archive:
        for name in archive.namelist():
            # members are bare names: nothing is written outside the folder
            if name.endswith(".npy") and Path(name).name == name:
                with archive.open(name) as source, open(folder / name, "wb") as target:
                    shutil.copyfileobj(source, target, _CHUNK)
    write_atomic(done, stamp)
    return folder


def _read_structures(path: Path, key: str) -> Dataset:
    """Read a file with ASE, structure by structure."""
    systems, values, infos = [], [], []
    for place in iread_located(path):
        atoms = place.atoms
        say_electrons(atoms)
        results = {} if atoms.calc is None else atoms.calc.results
        values.append(_number({**results, **atoms.info}, key, place.where))
        systems.append(System.from_ase(atoms))
        infos.append(Placed(atoms.info, str(place.path), place.index))
    if not systems:
        raise ValueError(f"{path}: holds no structure.")
    return label_property(systems, key, values, infos)


def _number(information: Mapping[str, Any], key: str, where: str) -> float:
    value = information.get(key)
    if value is None:
        names = ", ".join(sorted(map(str, information)))
        raise ValueError(f"{where} has no number {key!r}; it has {names or 'no information'}.")
    try:
        return float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key!r} is {str(value)[:60]!r}, expected a number.") from None
