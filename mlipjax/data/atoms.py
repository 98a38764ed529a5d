"""The one door for atomic structures from files: anything that ASE reads, validated, as ``ase.Atoms``.

What else a file says (constraints, momenta, masses, labels, information) stays on the ``Atoms``; it is the caller who
honours it, or says that it does not. Which files a path stands for, and which of their structures, ``sources`` says.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlipjax.data._limits import TooLong, bounded
from mlipjax.data.checks import check_system, first_bad
from mlipjax.data.containers import KINDS as CONTAINERS
from mlipjax.data.containers import read_container
from mlipjax.data.cp2k import is_cp2k_trajectory, read_cp2k_output, read_cp2k_trajectory
from mlipjax.data.formats import CP2K_OUTPUT, file_format
from mlipjax.data.sources import Paths, Source, describe_paths, find_sources
from mlipjax.data.xyz_frames import is_xyz, read_xyz
from mlipjax.files import PACKED
from mlipjax.notices import Notice, notice

if TYPE_CHECKING:
    from ase import Atoms

# memory and processor time for a structure: so much, and more with the size of its file
_BYTES, _SECONDS = 1 << 30, 4.0
_BYTES_PER_BYTE, _SECONDS_PER_BYTE = 20, 2e-5
_UNPACKED = 20  # bytes in a byte of a compressed file
_FREE = ("xyz", "extxyz", "traj", "json", "db", "bundletrajectory", "netcdftrajectory")
"""Formats without units of their own: they hold whatever was written."""
_DATABASES = (".db", ".json")
_DROPPED = {
    "castep-cell": re.compile(r"^.*mixture\s*[:=(].*$", re.IGNORECASE | re.MULTILINE),
    "res": re.compile(
        r"^[A-Z][a-z]?\w*[ \t]+\d+(?:[ \t]+[-+.\d]+){3}[ \t]+(?!1?1(?:\.0*)?\s)\d*\.?\d+\s", re.MULTILINE
    ),
}
"""Lines that say of a site that it is occupied in part, in formats whose reader in ASE drops that."""
_FULL = 1e-3  # how far an occupancy may be from 1


class Located(NamedTuple):
    """A structure, and where it stands: its file, its number among all structures of the file, both in words."""

    path: Path
    index: int
    atoms: Atoms
    where: str


def iread_atoms(path: Paths) -> Iterator[Atoms]:
    """Read structures one by one; no label is looked for.

    Args:
        path: extended xyz (also ``.gz``, ``.xz``), ASE database (``.db``) or any other format ASE reads; a slice
            ``FILE@START:STOP:STEP``, a pattern, a folder, or several of these (see ``sources``).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming file and structure, if the file cannot be parsed or a structure is none (see ``checks``).
    """
    return (found.atoms for found in iread_located(path))


def iread_located(path: Paths) -> Iterator[Located]:
    """Read structures one by one with their places; arguments and errors as ``iread_atoms``."""
    for source in find_sources(path):
        yield from read_source(source)


def read_source(source: Source, length: float = 1.0) -> Iterator[Located]:
    """Read the structures of one file that are meant; errors as ``iread_atoms``.

    Args:
        source: file and structures.
        length: Å of the file's unit of positions and cell.
    """
    for index, atoms in _chosen(source):
        if length != 1.0:
            atoms.set_cell(length * atoms.cell.array)
            atoms.positions *= length
        where = f"{source.path}, structure {index}"
        check_structure(atoms, where)
        yield Located(source.path, index, atoms, where)


def check_free_units(path: Path) -> None:
    """Refuse to convert what ASE has converted.

    Raises:
        ValueError: for a file of a format whose units are fixed.
    """
    trajectory = is_cp2k_trajectory(path)
    if path.suffix.lower() in (*_DATABASES, *CONTAINERS) or (is_xyz(path) and not trajectory):
        return
    try:
        kind = "cp2k-trajectory" if trajectory else file_format(path)
    except Exception:  # the reader says what is wrong with the file
        return
    if kind not in _FREE:
        raise ValueError(f"{path}: labels of this format ({kind}) are read in eV and Å; give no units for it.")


def read_atoms(path: Paths) -> list[Atoms]:
    """Read all structures, at least one; arguments and errors as ``iread_atoms``."""
    frames = list(iread_atoms(path))
    if not frames:
        raise ValueError(f"{describe_paths(path)}: no structure in this file.")
    return frames


def read_last_atoms(path: Paths) -> Atoms:
    """Read the last structure, and say so if there are several; arguments and errors as ``iread_atoms``."""
    count, last = 0, None
    for found in iread_located(path):
        count, last = count + 1, found
    if last is None:
        raise ValueError(f"{describe_paths(path)}: no structure in this file.")
    if count > 1:
        name = describe_paths(path)
        notice(f"{name} holds {count} structures; the last one is taken ({last.path}@N takes the one numbered N).")
    say_electrons(last.atoms)
    return last.atoms


def _chosen(source: Source) -> Iterator[tuple[int, Atoms]]:
    """The structures that are meant, with their numbers in the file."""
    frames = enumerate(_frames(source.path))
    index = source.index
    if all(part is None or part >= 0 for part in (index.start, index.stop, index.step)):
        chosen: Iterable[tuple[int, Atoms]] = itertools.islice(frames, index.start, index.stop, index.step)
    else:
        chosen = list(frames)[index]
    found = False
    for found in chosen:
        yield found
    if not found and index != slice(None):
        raise ValueError(f"{source.path}: none of its structures is among those asked for ({_shown(index)}).")


def _shown(index: slice) -> str:
    parts = ["" if part is None else str(part) for part in (index.start, index.stop, index.step)]
    return f"@{':'.join(parts if parts[2] else parts[:2])}"


def _frames(path: Path) -> Iterator[Atoms]:
    """All structures of a file as they are parsed.

    A parser may raise anything on a malformed file, end the process, or ask for all memory: all that is one
    ``ValueError`` here.
    """
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"{path}: the file is empty.")
    number = 0
    try:
        size = path.stat().st_size * (_UNPACKED if path.suffix.lower() in PACKED else 1)
        frames = iter(_reader(path))
        while True:
            with bounded(_BYTES + _BYTES_PER_BYTE * size, _SECONDS + _SECONDS_PER_BYTE * size), _quiet(path):
                atoms = next(frames, None)
            if atoms is None:
                return
            yield atoms
            number += 1
    except (KeyboardInterrupt, GeneratorExit, FileNotFoundError, PermissionError):
        raise
    except MemoryError:
        message = "a number in it asks for more memory than a file of this size can need"
        raise ValueError(f"{path}: cannot be read: structure {number}: {message}.") from None
    except BaseException as error:  # also SystemExit
        raise ValueError(f"{path}: cannot be read: structure {number}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    from ase.io.formats import UnknownFileTypeError

    text = " ".join(str(error).split())
    text = text if len(text) <= 500 else f"{text[:497]}..."
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, TooLong):
        return f"a number in it asks for more time than a file of this size can need ({text})"
    if isinstance(error, KeyError):
        if (symbol := text.strip("'\".").rpartition(" ")[2]) in ("D", "T"):
            cure = f"write H, or use extended xyz, where {symbol!r} has its own mass"
            return f"{symbol!r} is no element in this format; {cure}"
        return f"{text} is not known, as an element or to ASE's reader of this format"
    if isinstance(error, UnknownFileTypeError):
        return f"its name and content tell no format that ASE knows ({text})"
    own = isinstance(error, ValueError) and text
    return text if own else f"{type(error).__name__}: {text}".rstrip(": ")


@contextlib.contextmanager
def _quiet(path: Path) -> Iterator[None]:
    """Keep what ASE says to its developers from its users, and numpy of odd numbers, which are looked at later.

    What ASE says of a file, it says without the file's name.
    """
    with warnings.catch_warnings(record=True) as said:
        for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning, RuntimeWarning):
            warnings.simplefilter("ignore", category)
        yield
    for one in said:
        text = one.message if issubclass(one.category, Notice) else f"{path}: {one.message}"
        warnings.warn_explicit(text, one.category, one.filename, one.lineno)


def _reader(path: Path) -> Iterator[Atoms]:
    from ase.io import iread

    if path.suffix.lower() in _DATABASES:
        return _database(path)
    if path.suffix.lower() in CONTAINERS:
        return read_container(path)
    if is_cp2k_trajectory(path):
        return read_cp2k_trajectory(path)
    kind = "xyz" if is_xyz(path) else file_format(path)
    if kind == CP2K_OUTPUT:
        return read_cp2k_output(path)
    if kind in ("xyz", "extxyz"):
        return read_xyz(path)
    if kind in _DROPPED and (found := _DROPPED[kind].search(path.read_text(encoding="utf-8", errors="replace"))):
        _refuse_occupancy(f"{path}: {' '.join(found.group().split())}")
    # runs of FHI-aims that were cut short hold structures, too
    more = {"non_convergence_ok": True} if kind == "aims-output" else {}
    return iread(os.path.abspath(path), index=":", format=kind, do_not_split_by_at_sign=True, **more)


def _database(path: Path) -> Iterator[Atoms]:
    from ase.db import connect

    kind = "extract_from_name" if path.suffix.lower() != ".json" else "json"
    for row in connect(os.path.abspath(path), type=kind).select():
        atoms = row.toatoms()
        atoms.info.update(row.data, **row.key_value_pairs)
        yield atoms


def check_structure(atoms: Atoms, where: str) -> None:
    """Refuse what no calculation can start from.

    Args:
        atoms: structure.
        where: file and structure, for the message.

    Raises:
        ValueError: as ``check_system``; if momenta or masses are no finite numbers, or a site is occupied partly.
    """
    check_system(
        np.asarray(atoms.numbers),
        np.asarray(atoms.positions),
        np.asarray(atoms.cell.array, np.float64),
        np.asarray(atoms.pbc, bool),
        where,
    )
    _check_motion(atoms, where)
    _check_occupancy(atoms, where)


def _check_motion(atoms: Atoms, where: str) -> None:
    for name, shape in (("momenta", (len(atoms), 3)), ("masses", (len(atoms),))):
        if name not in atoms.arrays:
            continue
        values = atoms.arrays[name]
        if values.dtype.kind not in "fiub" or values.shape != shape:
            raise ValueError(
                f"{where}: {name} are {values.dtype} of shape {values.shape}, expected numbers of {shape}."
            )
        if not np.isfinite(values).all():
            raise ValueError(f"{where}: {name} are not finite ({first_bad(name, values)}).")
    if "masses" in atoms.arrays and (atoms.arrays["masses"] <= 0.0).any():
        atom = int(np.argmin(atoms.arrays["masses"]))
        raise ValueError(f"{where}: atom {atom} has the mass {atoms.arrays['masses'][atom]:g} u; masses are positive.")


def _check_occupancy(atoms: Atoms, where: str) -> None:
    """Sites that hold an element in part, as CIF, PDB and muSTEM files may say."""
    column = atoms.arrays.get("occupancy", atoms.arrays.get("occupancies"))
    if column is not None and np.issubdtype(np.asarray(column).dtype, np.number) and np.ndim(column) == 1:
        partly = np.flatnonzero((column > _FULL) & (column < 1.0 - _FULL))
        if len(partly):
            _refuse_occupancy(f"{where}: atom {partly[0]} ({atoms.symbols[partly[0]]} {column[partly[0]]:g})")
    sites = atoms.info.get("occupancy")
    if isinstance(sites, Mapping):
        for site, species in sites.items():
            if isinstance(species, Mapping) and _is_partial(species):
                parts = " ".join(f"{symbol} {value}" for symbol, value in species.items())
                _refuse_occupancy(f"{where}: site {site} ({parts})")


def _is_partial(species: Mapping[Any, Any]) -> bool:
    try:  # "." and "?" are the default of a CIF file, 1
        values = [1.0 if value in (".", "?") else float(value) for value in species.values()]
    except (TypeError, ValueError):
        return True
    return len(values) != 1 or not abs(values[0] - 1.0) <= _FULL


def _refuse_occupancy(site: str) -> None:
    raise ValueError(
        f"{site} is occupied in part; an atom is there or not. Give an ordered supercell of this structure."
    )


_USUAL = {"charge": 0.0, "total_charge": 0.0, "spin": 1.0, "total_spin": 1.0, "multiplicity": 1.0}
_MOMENT = 0.1  # Bohr magnetons


def say_electrons(atoms: Atoms) -> None:
    """Say what a structure holds of its electrons, as a model's energies are those without it."""
    for key, usual in _USUAL.items():
        value = atoms.info.get(key, usual)
        if isinstance(value, (int, float, np.number)) and value not in (usual, 0):
            notice(f"structures name a {key} other than {usual:g}; models here do not take it into account.")
    results = {} if atoms.calc is None else atoms.calc.results
    moments = numbers(results.get("magmoms", atoms.arrays.get("initial_magmoms")))
    if np.abs(moments).max(initial=0.0) > _MOMENT:
        notice("structures carry magnetic moments; models here do not take them into account.")


def numbers(value: Any) -> np.ndarray:
    """Array of the numbers that are there; an empty one if there is nothing, or something else."""
    try:
        return np.asarray(() if value is None else value, np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)
