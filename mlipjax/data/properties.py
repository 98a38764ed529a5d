"""Structures with one number each (a band gap, a volume, ...): flat arrays that may stay on disk.

Force-field labels are a handful per atom; property sets hold one number per structure and therefore many structures.
They are read from

- ``.npz``: ``atomic_numbers`` (A,), ``positions`` (A, 3) Å of all structures one after the other, ``n_atoms`` (n,),
  optionally ``cells`` (n, 3, 3) Å and ``pbc`` (n, 3), and the property (n,) under its key;
- a folder with these arrays as ``.npy`` files, which are mapped into memory: only what a batch needs is read; in one
  of ``data.store`` the property may also be information of every structure;
- anything ASE reads, with the property in the information of every structure.

``open_properties(..., cache=FOLDER)`` makes such a folder from the other two, piece by piece.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.data.array_checks import check_counts, check_systems
from mlipjax.data.atoms import iread_located
from mlipjax.data.store import open_store
from mlipjax.files import map_arrays, scratch, write_atomic
from mlipjax.reading import MAX_BYTES, open_archive, read_npz
from mlipjax.system import System

_REQUIRED = ("atomic_numbers", "positions", "n_atoms")
_KINDS = (
    ("atomic_numbers", "iu", "whole numbers"), ("n_atoms", "iu", "whole numbers"), ("positions", "f", "numbers"),
    ("cells", "f", "numbers"), ("pbc", "bui", "yes or no"),
)  # fmt: skip
_COMPLETE = "complete"
_CHUNK = 1 << 22
_MOST_PACKED = 50


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyData:
    """Structures and the value of one property for each.

    Attributes:
        key: name of the property.
        atomic_numbers, positions: (A,) and (A, 3) Å of all structures, maybe mapped from disk.
        starts: (n + 1,) first atom of each structure in them.
        cells, pbc: (n, 3, 3) Å and (n, 3), or ``None`` for molecules.
        values: (n,) float64.
        rows: (m,) the structures of this view, in order; a subset shares all arrays with what it was taken from.
        infos: of each structure, if the file had any; else ``None``.
    """

    key: str
    atomic_numbers: np.ndarray
    positions: np.ndarray
    starts: np.ndarray
    cells: np.ndarray | None
    pbc: np.ndarray | None
    values: np.ndarray
    rows: np.ndarray
    infos: tuple[dict[str, Any], ...] | None = None

    @classmethod
    def from_arrays(cls, arrays: dict[str, Any], key: str, source: str, infos: Any = None) -> PropertyData:
        """Check arrays and make a data set of them.

        Raises:
            ValueError: if one is missing, they do not fit together, a structure is none (see ``checks``), or a value is
                not finite.
        """
        missing = [name for name in (*_REQUIRED, key) if name not in arrays]
        if missing:
            raise ValueError(f"{source}: no array {missing[0]!r}; found {', '.join(sorted(arrays)) or 'nothing'}.")
        for name, kinds, what in (*_KINDS, (key, "fiub", "numbers")):
            if name in arrays and arrays[name].dtype.kind not in kinds:
                raise ValueError(f"{source}: {name!r} is {arrays[name].dtype}, expected {what}.")
        counts = np.asarray(arrays["n_atoms"], np.int64)
        values = np.asarray(arrays[key], np.float64)
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
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values))
            raise ValueError(f"{source}: {key!r} is not finite for {len(bad)} structures (first: {bad[0]}).")
        return cls(
            key=key,
            atomic_numbers=arrays["atomic_numbers"],
            positions=arrays["positions"],
            starts=np.concatenate([[0], np.cumsum(counts)]),
            cells=arrays.get("cells"),
            pbc=arrays.get("pbc"),
            values=values,
            rows=np.arange(n),
            infos=infos,
        )

    @classmethod
    def from_systems(cls, systems: Sequence[System], key: str, values: np.ndarray | None = None) -> PropertyData:
        """Structures and their values, or none (NaN) for what needs structures alone, such as denoising.

        Raises:
            ValueError: if there is no structure, or values do not fit or are not finite.
        """
        if not systems:
            raise ValueError(f"{key}: there is no structure.")
        n, counts = len(systems), np.array([system.n_atoms for system in systems])
        total = int(counts.sum())
        arrays = {
            "atomic_numbers": scratch((total,), np.int32),
            "positions": scratch((total, 3)),
            "n_atoms": counts,
            "cells": scratch((n, 3, 3)),
            "pbc": np.zeros((n, 3), bool),
            key: np.zeros(n) if values is None else values,
        }
        for index, (system, stop) in enumerate(zip(systems, np.cumsum(counts), strict=True)):
            part = slice(stop - counts[index], stop)
            arrays["atomic_numbers"][part], arrays["positions"][part] = system.atomic_numbers, system.positions
            arrays["cells"][index], arrays["pbc"][index] = system.cell, system.pbc
        data = cls.from_arrays(arrays, key, key)
        return data if values is not None else dataclasses.replace(data, values=np.full(len(systems), np.nan))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def targets(self) -> np.ndarray:
        """(m,) values of the property, float64."""
        return self.values[self.rows]

    @property
    def n_atoms(self) -> np.ndarray:
        """(m,) number of atoms of each structure."""
        return np.diff(self.starts)[self.rows]

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers present, ascending."""
        present = np.zeros(256, bool)
        for index in range(len(self)):
            present[self.numbers(index)] = True
        return tuple(int(z) for z in np.flatnonzero(present))

    def numbers(self, index: int) -> np.ndarray:
        """Atomic numbers of a structure."""
        row = self.rows[index]
        return np.asarray(self.atomic_numbers[self.starts[row] : self.starts[row + 1]])

    def system(self, index: int) -> System:
        """Read one structure."""
        row = self.rows[index]
        part = slice(self.starts[row], self.starts[row + 1])
        pbc = (False,) * 3 if self.pbc is None else tuple(bool(x) for x in self.pbc[row])
        return System(
            positions=np.array(self.positions[part], np.float64),
            atomic_numbers=np.array(self.atomic_numbers[part], np.int32),
            cell=np.zeros((3, 3)) if self.cells is None else np.array(self.cells[row], np.float64),
            pbc=pbc,  # pyright: ignore[reportArgumentType]
        )

    def subset(self, indices: Iterable[int]) -> PropertyData:
        """The structures at ``indices``, in that order; nothing is copied."""
        return dataclasses.replace(self, rows=self.rows[np.asarray(list(indices), int)])


def parse_property(text: str) -> tuple[Path, str]:
    """Split ``FILE:KEY``.

    Raises:
        ValueError: if there is no key.
    """
    file, _, key = text.rpartition(":")
    if not file or not key or "/" in key:
        raise ValueError(f"a property is given as FILE:KEY, found {text!r}.")
    return Path(file), key


def open_properties(path: str | Path, key: str, *, cache: str | Path | None = None) -> PropertyData:
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
        if key not in arrays and "infos" in arrays:
            arrays[key] = np.array(
                [_number(info, key, f"{path}: structure {i}") for i, info in enumerate(open_store(path).infos)]
            )
        return PropertyData.from_arrays(arrays, key, str(path))
    if path.suffix != ".npz":
        arrays, infos = _read_structures(path, key)
        return PropertyData.from_arrays(arrays, key, str(path), infos)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    if cache is None:
        return PropertyData.from_arrays(read_npz(path, "a property set", _limit(path)), key, str(path))
    return PropertyData.from_arrays(map_arrays(_unpack(path, Path(cache))), key, str(path))


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


def _read_structures(path: Path, key: str) -> tuple[dict[str, np.ndarray], tuple[dict[str, Any], ...]]:
    """Read a file with ASE, structure by structure."""
    numbers, positions, cells, pbc, values, infos = [], [], [], [], [], []
    for place in iread_located(path):
        atoms = place.atoms
        results = {} if atoms.calc is None else atoms.calc.results
        value = _number({**results, **atoms.info}, key, place.where)
        numbers.append(atoms.numbers.astype(np.uint8))
        positions.append(atoms.positions.astype(np.float64))
        cells.append(atoms.cell.array)
        pbc.append(atoms.pbc)
        values.append(value)
        infos.append(dict(atoms.info))
    if not numbers:
        raise ValueError(f"{path}: holds no structure.")
    arrays = {
        "atomic_numbers": np.concatenate(numbers),
        "positions": np.concatenate(positions),
        "n_atoms": np.array([len(part) for part in numbers]),
        "cells": np.array(cells),
        "pbc": np.array(pbc),
        key: np.array(values),
    }
    return arrays, tuple(infos)


def _number(information: Mapping[str, Any], key: str, where: str) -> float:
    value = information.get(key)
    if value is None or np.ndim(value) != 0:
        names = ", ".join(sorted(map(str, information)))
        raise ValueError(f"{where} has no number {key!r}; it has {names or 'no information'}.")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key!r} is {str(value)[:60]!r}, expected a number.") from None
