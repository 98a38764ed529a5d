"""Writing extended xyz: trajectories frame by frame, and whole data sets.

Every number is written with as many digits as it takes to read it back bit for bit.
"""

from __future__ import annotations

import contextlib
import lzma
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mlipjax.data.dataset import Dataset, Example
from mlipjax.data.labels import NAMES
from mlipjax.data.weights import without_weights
from mlipjax.elements import symbols
from mlipjax.files import make_folder, naming, replace_on_success
from mlipjax.system import System

_RESERVED = {"Lattice", "Properties", "pbc", "energy", "stress", "forces", "momenta", "masses", "move_mask"}


def format_frame(
    system: System,
    *,
    energy: float | None = None,
    forces: Any = None,
    stress: Any = None,
    arrays: Mapping[str, Any] | None = None,
    free: np.ndarray | None = None,
    info: Mapping[str, Any] | None = None,
) -> str:
    """Return one frame of extended xyz, as ``ase.io.read`` understands it.

    Args:
        system: structure; a cell of zeros is left out, and so are standard masses.
        energy: total energy in eV.
        forces: (n, 3) eV/Å.
        stress: (3, 3) eV/Å^3, tension positive.
        arrays: (n,) or (n, 3) numbers of atoms by name, such as momenta in ASE's unit, amu·Å per Å·sqrt(amu/eV).
        free: (n, 3) coordinates that may move; ``None`` for all.
        info: further information: numbers, strings, booleans, numeric arrays.

    Raises:
        ValueError: if an array does not fit the structure or ``info`` uses a reserved name.
    """
    from ase.io.extxyz import key_val_dict_to_str

    info = dict(info or {})
    if taken := _RESERVED & set(info):
        raise ValueError(f"information named {sorted(taken)} would hide what the format stores; rename it.")
    n_atoms = system.n_atoms
    given = {"pos": system.positions, "forces": forces, **(arrays or {}), "masses": system.masses}
    columns = {name: np.asarray(array) for name, array in given.items() if array is not None}
    for name, array in columns.items():
        shape = (n_atoms,) if name == "masses" or (name in (arrays or {}) and array.ndim == 1) else (n_atoms, 3)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; this structure needs {shape}.")
    header = []
    cell = np.asarray(system.cell)
    if np.any(cell):
        header.append(f'Lattice="{" ".join(_digits(cell))}"')
    if free is not None and np.array_equal(np.any(free, axis=1), np.all(free, axis=1)):
        free = np.all(free, axis=1, keepdims=True)  # whole atoms: ASE reads one FixAtoms
    mask = "" if free is None else f":move_mask:L:{free.shape[1]}"
    kinds = "".join(f":{name}:R:{array.size // n_atoms}" for name, array in columns.items())
    header.append(f"Properties=species:S:1{kinds}{mask}")
    if energy is not None:
        header.append(f"energy={float(energy)!r}")
    if stress is not None:
        header.append(f'stress="{" ".join(_digits(np.asarray(stress).reshape(3, 3)))}"')
    if info:
        header.append(key_val_dict_to_str(info))
    header.append('pbc="{}"'.format(" ".join("FT"[bool(periodic)] for periodic in system.pbc)))
    elements = symbols(np.asarray(system.atomic_numbers))
    numbers = [_digits(array) for array in columns.values()]
    if free is not None:
        numbers.append(["FT"[bool(moves)] for moves in np.asarray(free).ravel()])
    widths = [len(digits) // n_atoms for digits in numbers]
    rows = [
        " ".join([symbol, *(part for d, w in zip(numbers, widths, strict=True) for part in d[w * atom : w * atom + w])])
        for atom, symbol in enumerate(elements)
    ]
    return "\n".join([str(n_atoms), " ".join(header), *rows, ""])


class TrajectoryWriter:
    """Appends frames to an extended xyz file; the file is readable at any moment, also after a kill.

    Each frame reaches the operating system in one write. Opening an existing file first cuts off a frame that
    a killed run left incomplete.

    Example:
        with TrajectoryWriter("md.extxyz") as trajectory:
            trajectory.write(system, energy=energy, forces=forces, info={"step": 100})
    """

    def __init__(self, path: str | os.PathLike[str], *, keep: int | None = None) -> None:
        """Open ``path`` for appending.

        Args:
            path: file; made, with its folder, if absent.
            keep: continue after this many frames and drop later ones (a run resumed from a checkpoint repeats
                them); ``None`` keeps every complete frame.

        Raises:
            ValueError: if the file is not xyz or holds fewer than ``keep`` complete frames.
        """
        self.path = Path(path)
        make_folder(self.path.parent)
        ends = _frame_ends(self.path) if self.path.exists() else []
        self.n_frames = len(ends) if keep is None else keep
        if self.n_frames > len(ends):
            raise ValueError(
                f"{self.path}: holds {len(ends)} complete frames; cannot keep {keep}. Was it changed? Remove it, "
                "and the checkpoint of its run, to start anew."
            )
        self._file: IO[bytes] = open(self.path, "ab", buffering=0)  # noqa: SIM115  (closed by close)
        with naming(self.path):
            self._file.truncate(ends[self.n_frames - 1] if self.n_frames else 0)

    def write(self, system: System, **labels: Any) -> None:
        """Append one frame; arguments and errors as ``format_frame``."""
        frame = format_frame(system, **labels)
        content, end = memoryview(frame.encode()), self._file.seek(0, os.SEEK_END)
        with naming(self.path):
            try:
                while content:  # a raw file may take part of a write only
                    content = content[self._file.write(content) :]
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)  # of a full disk, say: no half frame stays
                raise
        self.n_frames += 1

    def sync(self) -> None:
        """Put what was written on the disk, so that it also survives a power cut."""
        with naming(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Sync and close; closing twice is harmless."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> TrajectoryWriter:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def write_dataset(path: str | os.PathLike[str], dataset: Dataset) -> None:
    """Write a data set as extended xyz (compressed if ``path`` ends in ``.xz``), all of it or nothing.

    ``read_dataset`` gives structures, labels and weights back bit for bit; missing labels stay missing.
    """
    with replace_on_success(path) as temporary:
        compressed = Path(path).suffix == ".xz"
        with lzma.open(temporary, "wb") if compressed else open(temporary, "wb") as file:
            write_examples(file, dataset)


def write_examples(file: IO[bytes], examples: Iterable[Example]) -> int:
    """Write labelled structures to an open file, one by one; return how many."""
    count = 0
    for example in examples:
        file.write(format_example(example).encode())
        count += 1
    return count


def format_example(example: Example) -> str:
    """Return one frame with its labels, and their weights where they are not 1."""
    present, weights = labels_of(example)
    return format_frame(example.system, info={**without_weights(example.info), **weights}, **present)


def labels_of(example: Example) -> tuple[dict[str, Any], dict[str, float]]:
    """Labels that a structure has, by name, and as ``NAME_weight`` their weights where they are not 1."""
    weights = {name: float(getattr(example.labels, f"{name}_weight")) for name in NAMES}
    present = {name: getattr(example.labels, name) for name, weight in weights.items() if weight > 0.0}
    return present, {f"{name}_weight": weights[name] for name in present if weights[name] != 1.0}


def _digits(array: np.ndarray) -> list[str]:
    """Shortest decimal of each number that reads back to the same float."""
    array = np.asarray(array)
    if array.dtype == np.float32:
        return [f"{value:.9g}" for value in array.ravel().tolist()]
    return [repr(value) for value in array.astype(np.float64).ravel().tolist()]


def _frame_ends(path: Path) -> list[int]:
    """Byte offsets at which the complete frames of an xyz file end."""
    ends: list[int] = []
    position = 0
    with open(path, "rb") as file:
        while line := file.readline():
            position += len(line)
            if not line.endswith(b"\n"):
                break
            try:
                n_lines = int(line) + 1
            except ValueError:
                raise ValueError(f"{path}: frame {len(ends)} has no number of atoms; not xyz.") from None
            for _ in range(n_lines):
                line = file.readline()
                position += len(line)
            if not line.endswith(b"\n"):
                break
            ends.append(position)
    return ends
