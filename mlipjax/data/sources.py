"""Paths given by a user: one file, some structures of it, several files, a folder.

- a file that exists under the whole name is that file, whatever characters the name holds;
- ``FILE@INDEX`` is a structure of it, ``FILE@START:STOP:STEP`` some of them, counted from 0 as in Python;
- a name with ``*``, ``?`` or ``[`` is every file that matches, in order of the names;
- a folder is every file in it whose name says that it holds structures; of a calculation its result alone: the output
  of a program if there is one, of VASP the most complete, of CP2K a trajectory. Of a folder that holds none, its
  folders are looked into.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlipjax.data.cp2k import is_cp2k_trajectory
from mlipjax.data.formats import output_format
from mlipjax.files import PACKED, first_bytes
from mlipjax.notices import notice

PathLike = str | os.PathLike[str]
Paths = PathLike | Sequence[PathLike]

# numbers that fit into a machine's
_INDEX = re.compile(r"([+-]?\d{1,18})|([+-]?\d{0,18}):([+-]?\d{0,18})(?::([+-]?\d{0,18}))?")
_SUFFIXES = frozenset(
    {".xyz", ".extxyz", ".traj", ".db", ".json", ".cif", ".vasp", ".poscar", ".xsf", ".cfg", ".gen", ".pdb", ".castep",
     ".aselmdb", ".h5", ".hdf5"}
)  # fmt: skip
_ROW = re.compile(rb'\s*\{\s*"\d+"\s*:\s*\{')
# results of a calculation, the most complete first: a folder of one holds the same structures several times
_RESULTS = ("vasprun.xml", "OUTCAR", "XDATCAR", "CONTCAR", "POSCAR")
_BARREN = 2000  # folders without structures that are looked into, of one that is given: whole disks are not searched


@dataclasses.dataclass(frozen=True)
class Source:
    """A file and which of its structures are meant.

    Attributes:
        path: the file.
        index: the structures, of all in the file.
    """

    path: Path
    index: slice = dataclasses.field(default_factory=lambda: slice(None))


def find_sources(paths: Paths) -> tuple[Source, ...]:
    """Return the files that one path or several stand for (see the module), in the order given.

    Raises:
        FileNotFoundError: if one is no file, or a folder or pattern has none.
        ValueError: if nothing is given, or a step is 0.
    """
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    if not given:
        raise ValueError("no file is given.")
    return tuple(source for path in given for source in _expand(os.fspath(path)))


def describe_paths(paths: Paths) -> str:
    """Names of files for a message."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    return ", ".join(os.fspath(path) for path in given)


def _expand(name: str) -> Iterator[Source]:
    if not name or "\0" in name:
        raise FileNotFoundError(f"{name!r}: no such file.")
    whole = _existing(name)
    if whole is not None:
        yield from (Source(file) for file in whole)
        return
    stem, at, text = name.rpartition("@")
    index = _INDEX.fullmatch(text) if at else None
    files = _existing(stem) if index is not None and stem else None
    if files is None or index is None:
        kind = "no file matches it" if glob.has_magic(name) else "no such file"
        raise FileNotFoundError(f"{name}: {kind}.")
    yield from (Source(file, _slice(index, name)) for file in files)


def _existing(name: str) -> list[Path] | None:
    """The files that a name without an index stands for; ``None`` if there are none."""
    path = Path(name)
    try:
        if path.exists() and not path.is_dir():
            return [path]  # also pipes: they can be read once
        is_folder = path.is_dir()
    except OSError:  # a name that is too long, or a folder that may not be looked into
        return None
    if is_folder:
        return _folder(path)
    if not glob.has_magic(name):
        return None
    found = sorted(Path(file) for file in glob.glob(name, recursive=True))
    # of folders that match, the structures in them
    return [part for file in found for part in ([file] if file.is_file() else _in_folder(file))] or None


def _folder(folder: Path) -> list[Path]:
    if folder.resolve().parent == folder.resolve():
        raise ValueError(f"{folder}: this folder is the whole file system; name the files.")
    try:
        chosen = _in_folder(folder)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    if not chosen:
        raise FileNotFoundError(
            f"{folder}: this folder holds no file whose name says that it holds structures (.extxyz, .traj, .db, "
            "vasprun.xml, ...); name the files."
        )
    names = [str(file.relative_to(folder)) for file in chosen]
    if len(names) == 1:
        notice(f"{folder}: of this folder {names[0]} is read.")
    else:
        notice(f"{folder}: {len(names)} files of this folder are read, {names[0]} to {names[-1]}.")
    return chosen


def _in_folder(folder: Path, searched: Iterator[int] | None = None) -> list[Path]:
    """The files of a folder that hold structures, or, if there are none, those of the folders in it."""
    searched = iter(range(_BARREN)) if searched is None else searched
    try:
        entries = sorted(folder.iterdir())
    except PermissionError:  # one of many
        return []
    files = [file for file in entries if file.is_file()]
    names = {file.stem if file.suffix.lower() in PACKED else file.name: file for file in files}
    if found := next((names[result] for result in _RESULTS if result in names), None):
        return [found]
    if trajectories := [file for file in files if is_cp2k_trajectory(file)]:
        return [file for file in trajectories if "-pos-" in file.name]
    outputs = [file for file in files if output_format(file) is not None]
    chosen = outputs or [file for file in files if _holds_structures(file)]
    if not chosen and next(searched, None) is None:
        raise ValueError(f"more than {_BARREN} folders without structures, the last {folder}; name the files.")
    inner = (entry for entry in entries if not chosen and entry.is_dir() and not entry.is_symlink())
    return chosen or [file for entry in inner if not entry.name.startswith(".") for file in _in_folder(entry, searched)]


def _holds_structures(file: Path) -> bool:
    """Tell whether the name of a file says so; of JSON, which may be anything, the first row of an ASE database."""
    if (suffix := _suffix(file)) != ".json":
        return suffix in _SUFFIXES
    return _ROW.match(first_bytes(file, 100)) is not None


def _suffix(file: Path) -> str:
    suffixes = [suffix.lower() for suffix in file.suffixes[-2:]]
    return suffixes[0] if len(suffixes) == 2 and suffixes[1] in PACKED else (suffixes or [""])[-1]


def _slice(match: re.Match[str], name: str) -> slice:
    single, start, stop, step = match.groups()
    if single is not None:
        number = int(single)
        return slice(number, number + 1 if number != -1 else None)
    parts = [int(part) if part else None for part in (start, stop, step)]
    if parts[2] == 0:
        raise ValueError(f"{name}: a step of 0 chooses nothing; give a positive one.")
    return slice(*parts)
