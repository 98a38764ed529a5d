"""Reading (extended) xyz frame by frame: sizes are counted before they are believed, and every error names its line.

ASE parses each frame; what is done here is what its reader leaves open. It stops at the first empty line and says
nothing of the frames after it, swallows the rest of a line after a quote that is never closed, drops columns without a
name, and knows no deuterium.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlipjax.data.checks import check_count
from mlipjax.files import PACKED
from mlipjax.notices import notice

if TYPE_CHECKING:
    from ase import Atoms

_MAX_LINE = 1 << 24
"""Bytes of the longest line: labels of all atoms may stand in a comment, a gigabyte of zeros may not."""
_MAX_EXPANSION = 100
"""Times its size that a compressed file may unpack to, beyond ``_ALWAYS`` bytes; structures compress some tenfold."""
_ALWAYS = 1 << 26
_CHUNK = 1 << 20
_MAX_COLUMNS = 4096
_ISOTOPES = {"D": 2.014, "T": 3.016}  # u
_HAS_ISOTOPE = re.compile(r"(?<!\S)[DTdt](?!\S)")
_PROPERTIES = re.compile(r"""\bProperties\s*=\s*(?:"([^"]*)"|'([^']*)'|\{([^}]*)\}|(\S+))""")
_PBC = re.compile(r"""(?<!\S)pbc\s*=\s*(?:"([^"]*)"|[\[{']([^\]}']*)[\]}']|([^\s"\[{']+))""")
_FLAGS = re.compile(
    r"\s*(?:T|F|1|0|[Tt]rue|[Ff]alse|TRUE|FALSE)(?:[\s,]+(?:T|F|1|0|[Tt]rue|[Ff]alse|TRUE|FALSE)){2}\s*|[TF]\s*"
)
# possessive (++, *+): what is matched is never tried in another way, so that time is linear in the text
_CLOSED = re.compile(
    r"""(?:[^'"{[\\]++|\\.?|"(?:[^"\\]|\\.)*+"|'(?:[^'\\]|\\.)*+'|\{(?:[^}\\]|\\.)*+\}|\[(?:[^]\\]|\\.)*+\])*+""",
    re.DOTALL,
)
_ELEMENTS = {"species", "symbols", "Z", "numbers"}
_DEFAULT = "species:S:1:pos:R:3"


class Frame(NamedTuple):
    """One frame as it stands in the file: the number of its first line, comment, atom lines and ``VEC`` lines."""

    line: int
    comment: str
    rows: list[str]
    vectors: list[str]


def is_xyz(path: Path) -> bool:
    """Return whether a file's name says xyz, or extended xyz."""
    name = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return name.suffix.lower() in (".xyz", ".extxyz")


def read_xyz(path: Path) -> Iterator[Atoms]:
    """Read the structures of an (extended) xyz file one by one.

    Raises:
        ValueError: naming the line, if the file is not what it should be.
        OSError, EOFError, lzma.LZMAError: if it cannot be read or unpacked.
    """
    for frame in read_frames(path):
        yield _parse(frame)


def read_frames(path: Path) -> Iterator[Frame]:
    """Read the frames of a file as text; the same errors as ``read_xyz``."""
    with _Lines(path) as lines:
        while (header := lines.next_line()) is not None:
            if not header.strip():
                continue
            start = lines.number
            n_atoms = _count(header, start)
            comment = lines.next_line()
            rows = _rows(lines, n_atoms, start)
            if comment is None or len(rows) < n_atoms:
                raise ValueError(f"line {start} says that {n_atoms} atoms follow, the file ends after {len(rows)}.")
            vectors = []
            while (line := lines.next_line()) is not None and line.lstrip().startswith("VEC"):
                vectors.append(line)
            lines.give_back(line)
            yield Frame(start, comment, rows, vectors)


def _rows(lines: _Lines, n_atoms: int, start: int) -> list[str]:
    rows: list[str] = []
    while len(rows) < n_atoms and (row := lines.next_line()) is not None:
        if not row.strip():
            raise ValueError(
                f"line {start} says that {n_atoms} atoms follow, line {lines.number} is empty after {len(rows)}."
            )
        rows.append(row)
    return rows


def _count(header: str, number: int) -> int:
    try:
        n_atoms = int(header) if len(header) < 100 else None
    except ValueError:
        n_atoms = None
    if n_atoms is None:
        raise ValueError(f"line {number} is {_shown(header)}, expected the number of atoms of a frame.")
    check_count(n_atoms, f"line {number}")
    return n_atoms


class _Lines:
    """Lines of a text file, maybe compressed, as text and with bounds; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.number = 0
        opener = PACKED.get(path.suffix.lower())
        if opener is not None:
            _check_expansion(path, opener)
        self._file: IO[bytes] = (opener or open)(path, "rb")
        self._pending: str | None = None

    def next_line(self) -> str | None:
        """Return a line without its end, ``None`` at the end of the file."""
        if self._pending is not None:
            line, self._pending = self._pending, None
            self.number += 1
            return line
        content = self._file.readline(_MAX_LINE)
        if not content:
            return None
        self.number += 1
        if len(content) == _MAX_LINE:
            raise ValueError(f"line {self.number} is longer than {_MAX_LINE} bytes.")
        if b"\0" in content:
            raise ValueError(f"line {self.number} holds zero bytes, so this is not text.")
        try:
            text = content.decode()
        except UnicodeDecodeError:
            text = content.decode("latin-1")
        return text.rstrip("\r\n")

    def give_back(self, line: str | None) -> None:
        """Let the next call return this line again."""
        if line is not None:
            self.number -= 1
            self._pending = line

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()


def _check_expansion(path: Path, opener: Any) -> None:
    """Unpack once and count, before anything is parsed."""
    bound, total = max(_ALWAYS, _MAX_EXPANSION * os.path.getsize(path)), 0
    with opener(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            total += len(chunk)
            if total > bound:
                raise ValueError(
                    f"it unpacks to more than {_MAX_EXPANSION} times its size; unpack it by hand if it is sound."
                )


def _parse(frame: Frame) -> Atoms:
    from ase.io.extxyz import read_xyz as read

    columns = [] if frame.vectors else _columns(frame)
    rows, masses = _without_isotopes(frame.rows, columns)
    if columns:
        _check_rows(rows, columns, frame.line + 2)
    text = "\n".join([str(len(rows)), frame.comment, *rows, *frame.vectors, ""])
    try:
        atoms = next(read(io.StringIO(text), index=0))
    except KeyError as error:
        row = _row_with(rows, str(error.args[0]) if error.args else "")
        where = "" if row is None else f" (line {frame.line + 2 + row})"
        raise ValueError(f"{_shown(str(error.args[0]))} is no element{where}; expected a symbol such as Cu.") from None
    except Exception as error:  # ASE's parser raises almost anything
        raise ValueError(f"the frame at line {frame.line}: {type(error).__name__}: {error}") from error
    if "mass" in atoms.arrays and "masses" not in atoms.arrays:  # the name that other programs give this column
        atoms.set_array("masses", atoms.arrays.pop("mass"), float, ())
    if masses is not None and "masses" not in atoms.arrays:
        atoms.set_array("masses", np.where(masses > 0.0, masses, atoms.get_masses()), float, ())
    return atoms


def _columns(frame: Frame) -> list[tuple[str, str]]:
    """Name and type of each column, as the comment or the format says.

    Raises:
        ValueError: if the comment ends within a quote, or ``Properties`` is not what it should be.
    """
    quote = _open_quote(frame.comment)
    if quote is not None and "=" in frame.comment:
        raise ValueError(f"line {frame.line + 1} opens a quote ({quote}) and never closes it.")
    periodic = _PBC.search(frame.comment)
    if periodic is not None and not _FLAGS.fullmatch(periodic.group(1) or periodic.group(2) or periodic.group(3)):
        raise ValueError(f'line {frame.line + 1}: {_shown(periodic.group())}, expected three of T and F: pbc="T T F".')
    found = _PROPERTIES.search(frame.comment)
    text = _DEFAULT if found is None else next(group for group in found.groups() if group is not None)
    fields = text.strip().split(":")
    columns: list[tuple[str, str]] = []
    for name, kind, width in zip(fields[::3], fields[1::3], fields[2::3], strict=False):
        if not (width.isascii() and width.isdigit() and 0 < int(width) <= _MAX_COLUMNS and len(width) < 6):
            columns = []
            break
        columns += [(name, kind)] * int(width)
    if len(fields) % 3 or not columns or len(columns) > _MAX_COLUMNS or not {c[1] for c in columns} <= set("RISL"):
        raise ValueError(
            f"line {frame.line + 1}: Properties is {_shown(text)}, expected name:type:width triples with types R, I, "
            f"S, L, such as {_DEFAULT}."
        )
    names = [name for name, _ in columns]
    if max(names.count("pos"), names.count("positions")) != 3 or not _ELEMENTS & set(names):
        raise ValueError(f"line {frame.line + 1}: Properties is {_shown(text)}, expected species:S:1 and pos:R:3.")
    return columns


def _open_quote(text: str) -> str | None:
    """The quote or bracket that is never closed, as ASE reads them."""
    end = _CLOSED.match(text).end()  # pyright: ignore[reportOptionalMemberAccess]  (it matches nothing, too)
    return text[end] if end < len(text) else None


def _check_rows(rows: list[str], columns: list[tuple[str, str]], first: int) -> None:
    """Every atom has a value for every column; what has no name is not used."""
    expected = len(columns)
    widest = 0
    for index, row in enumerate(rows):
        found = len(row.split())
        widest = max(widest, found)
        if found < expected:
            names = ", ".join(dict.fromkeys(name for name, _ in columns))
            raise ValueError(f"line {first + index} holds {found} values, expected {expected} ({names}).")
    if widest > expected:
        notice(f"columns after the first {expected} have no name in the file's Properties; they are not used.")


def _without_isotopes(rows: list[str], columns: list[tuple[str, str]]) -> tuple[list[str], np.ndarray | None]:
    """Write D and T as H; return also (n,) masses in u, 0 where the file names no isotope."""
    place = next((index for index, (name, _) in enumerate(columns) if name in ("species", "symbols")), None)
    if place is None or _HAS_ISOTOPE.search("\n".join(rows)) is None:
        return rows, None
    masses = np.zeros(len(rows))
    changed = list(rows)
    for index, row in enumerate(rows):
        values = row.split()
        if len(values) > place and (mass := _ISOTOPES.get(values[place].capitalize())) is not None:
            masses[index] = mass
            changed[index] = " ".join([*values[:place], "H", *values[place + 1 :]])
    return changed, masses if masses.any() else None


def _row_with(rows: list[str], word: str) -> int | None:
    return next((i for i, row in enumerate(rows) if word in (value.capitalize() for value in row.split())), None)


def _shown(text: str) -> str:
    """A piece of a file for a message: short, and in characters that any terminal prints."""
    return ascii(text if len(text) <= 60 else text[:57] + "...")
