"""Structures and labels in files of CP2K, of which ASE reads none: text outputs, and trajectories with their forces.

A text output holds the positions that a run starts from, and its first energy, forces and stress; a run of several
steps writes the others into files of their own, ``PROJECT-pos-1.xyz`` (Å, energies in Hartree), ``PROJECT-frc-1.xyz``
(Hartree/Bohr) and ``PROJECT-1.cell`` (Å). CP2K's stresses are positive under compression.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.checks import check_count
from mlipjax.data.xyz_frames import read_xyz
from mlipjax.files import PACKED, first_bytes
from mlipjax.notices import notice
from mlipjax.system import with_results

if TYPE_CHECKING:
    from ase import Atoms

_NAME = re.compile(r"(.+)-(pos|frc|vel)-(\d+)\.xyz(?:\.(?:gz|xz|bz2))?")
_COMMENT = re.compile(rb"\s*i = *\d+,.* E = *\S+")
_MAX_LINE = 1 << 16

_NUMBER = r"(?:\s+|(?<=\d)(?=-))(-?\d+\.\d*(?:E[+-]?\d+)?)"
_POSITION = re.compile(rf"\s*\d+\s+\d+\s+[A-Za-z]\S*\s+(\d+){3 * _NUMBER}")
_FORCE = re.compile(rf"\s*(?:FORCES\|\s+\d+|\d+\s+\d+\s+[A-Za-z]\S*){3 * _NUMBER}")
_STRESS = re.compile(rf"\s*(?:STRESS\|)?\s*[xyzXYZ]{3 * _NUMBER}")
_STRESS_TITLE = re.compile(r"stress tensor \[(\w+)\]\s*$", re.IGNORECASE)
_FORCE_TITLE = re.compile(r"\s*(?:ATOMIC FORCES in|FORCES\| Atomic forces) \[(\S+)\]\s*$")
_ENERGY = re.compile(r"\s*ENERGY\| Total FORCE_EVAL .*energy [\[(](\S+)[\])]:?\s+(\S+)\s*$")
_ENVIRONMENTS = re.compile(r"\s*GLOBAL\| Force Environment number\s+(\d+)")
_VECTOR = re.compile(rf"\s*CELL\| Vector [abc] \[(angstrom|bohr)\]:?{3 * _NUMBER}\s+\|[abc]\| ={_NUMBER}")
_ANGLE = re.compile(rf"\s*CELL\| Angle .*\[degree\]:?{_NUMBER}")
_PERIODIC = re.compile(r"\b(?:CELL\| Periodicity|PERIODIC)\s+(\w+)")
_CELL_CHANGES = re.compile(r"^\s*(?:RUN_TYPE\s+CELL_OPT|ENSEMBLE\s+NP)", re.MULTILINE)
_ROUNDED = 2e-3  # Å; of lattice vectors that are printed with three digits


def is_cp2k_trajectory(path: Path) -> bool:
    """Return whether a file is one of CP2K's trajectories, by its name and the comment of its first frame."""
    if _NAME.fullmatch(path.name) is None:
        return False
    lines = first_bytes(path, 2000).split(b"\n", 2)
    return len(lines) > 1 and _COMMENT.match(lines[1]) is not None


def read_cp2k_trajectory(path: Path) -> Iterator[Atoms]:
    """Read the structures of a trajectory one by one, with cells and forces from the files beside it.

    Raises:
        ValueError: if it holds no positions, the cell of one is nowhere, or its forces are those of other atoms.
        OSError: if a file cannot be read.
    """
    from ase.units import Bohr, Hartree

    project, kind, run = _NAME.fullmatch(path.name).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if kind.lower() != "pos":
        content = {"frc": "forces", "vel": "velocities"}[kind.lower()]
        raise ValueError(f"this file of CP2K holds {content}, no positions; give {project}-pos-{run}.xyz beside it.")
    cells, periodic = _cells(path, project, run)
    beside = _sibling(path, f"{project}-frc-{run}.xyz")
    forces = iter(()) if beside is None else read_xyz(beside)
    frame = next(forces, None)
    for atoms in read_xyz(path):
        step, energy = _step(atoms), atoms.info.pop("E", None)
        if not isinstance(energy, np.floating):
            raise ValueError("a frame has no energy in its comment (E = ...), as the first one has.")
        try:
            atoms.set_cell(cells[step])
        except KeyError:
            raise ValueError(f"the cell of step {step} is not in {project}-{run}.cell.") from None
        atoms.pbc = periodic
        labels: dict[str, Any] = {"energy": float(energy) * Hartree}
        # either file may have been written less often
        while frame is not None and _step(frame) < step:
            frame = next(forces, None)
        if frame is not None and _step(frame) == step:
            if not np.array_equal(frame.numbers, atoms.numbers):
                raise ValueError(f"the forces of step {step} in {project}-frc-{run}.xyz are those of other atoms.")
            labels["forces"] = frame.positions * (Hartree / Bohr)
            frame = next(forces, None)
        yield with_results(atoms, **labels)


def _step(frame: Atoms) -> int:
    step = frame.info.get("i")
    if not isinstance(step, np.integer):
        raise ValueError("a frame has no step in its comment (i = ...), as the first one has.")
    return int(step)


def read_cp2k_output(path: Path) -> Iterator[Atoms]:
    """Read the structures of a text output, each with what was computed for it.

    Raises:
        ValueError: if it has several force environments, or a structure without a cell or with an incomplete table.
        OSError: if the file cannot be read.
    """
    later = 0
    for found in _structures(path):
        later += found.more
        yield with_results(found.atoms, **found.labels)
    if later:
        notice(
            f"{path}: the positions of {later} later steps are not in CP2K's text output; those it wrote as "
            "PROJECT-pos-1.xyz have them, and forces with PROJECT-frc-1.xyz beside them."
        )


def unconverged_in_cp2k(path: Path) -> Iterator[int]:
    """Yield the numbers of the structures of a text output whose electrons did not converge."""
    return (number for number, found in enumerate(_structures(path)) if not found.converged)


@dataclasses.dataclass
class _Found:
    """A structure of a text output, as it is filled line by line.

    Attributes:
        atoms: the structure.
        labels: energy, forces and stress, in eV and Å.
        converged: whether its electrons did.
        more: energies after its own, of steps whose positions stand elsewhere.
    """

    atoms: Atoms
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    converged: bool = True
    more: int = 0

    def add(self, name: str, rows: list[list[float]], unit: float) -> None:
        """Keep a table, if it belongs to this structure."""
        if "energy" not in self.labels or self.more or name in self.labels:
            return
        expected = {"forces": len(self.atoms), "stress": 3}[name]
        if len(rows) != expected:
            raise ValueError(f"a table of {name} has {len(rows)} rows, expected {expected}; was the file cut short?")
        self.labels[name] = np.array(rows) * unit


def _structures(path: Path) -> Iterator[_Found]:
    """The structures of a text output."""
    from ase.units import Bohr

    cell = _Cell()
    found: _Found | None = None
    lines = _lines(path)
    for line in lines:
        if "ATOMIC COORDINATES IN" in line:
            if found is not None:
                yield found
            found = _Found(_structure(_table(lines, _POSITION), Bohr if "bohr" in line.lower() else 1.0, cell))
        elif found is None or line.startswith(" CELL|"):
            cell.read(line)
        elif (energy := _ENERGY.match(line)) is not None:
            found.more += "energy" in found.labels
            found.labels.setdefault("energy", float(energy[2]) * _unit(energy[1]))
        elif (title := _FORCE_TITLE.match(line)) is not None:
            found.add("forces", _table(lines, _FORCE), _unit(title[1], "hartree/bohr"))
        elif (title := _STRESS_TITLE.search(line)) is not None and "Eigen" not in line:
            found.add("stress", _table(lines, _STRESS), -_unit(title[1]))
        elif "SCF run NOT converged" in line and "energy" not in found.labels:
            found.converged = False
    if found is not None:
        yield found


class _Cell:
    """The cell that a text output names last."""

    def __init__(self) -> None:
        self._vectors: list[list[float]] = []
        self._lengths: list[float] = []
        self._angles: list[float] = []
        self.periodic: tuple[bool, ...] = (True, True, True)

    def read(self, line: str) -> None:
        """Read a line that may be about the cell.

        Raises:
            ValueError: if the calculation is one of several systems, whose energies are not those of one structure.
        """
        from ase.units import Bohr

        if (count := _ENVIRONMENTS.match(line)) is not None and int(count[1]) != 1:
            raise ValueError(f"{count[1]} force environments; outputs of one are read.")
        if (vector := _VECTOR.match(line)) is not None:
            unit = Bohr if vector[1] == "bohr" else 1.0
            *row, length = (float(number) * unit for number in vector.groups()[1:])
            self._vectors, self._lengths = [*self._vectors[-2:], row], [*self._lengths[-2:], length]
        elif (angle := _ANGLE.match(line)) is not None:
            self._angles = [*self._angles[-2:], float(angle[1])]
        elif (periodic := _PERIODIC.match(line)) is not None:
            self.periodic = _flags(periodic[1])

    def matrix(self) -> np.ndarray:
        """Return the lattice vectors (3, 3) in Å: they are printed with three digits, lengths and angles with six.

        Raises:
            ValueError: if no cell was named.
        """
        from ase.geometry import cellpar_to_cell

        if len(self._vectors) < 3:
            raise ValueError("the cell (CELL| Vector a, b, c) is not printed before the positions.")
        printed = np.array(self._vectors)
        if len(self._angles) < 3:
            return printed
        exact = cellpar_to_cell([*self._lengths, *self._angles])
        if np.abs(exact - printed).max() > _ROUNDED:  # not along the axes: the same shape, turned
            left, _, right = np.linalg.svd(exact.T @ printed)
            exact = exact @ (left @ right)
        return exact if np.abs(exact - printed).max() <= _ROUNDED else printed


def _structure(rows: list[list[float]], unit: float, cell: _Cell) -> Atoms:
    from ase import Atoms

    check_count(len(rows), "a table of positions")
    table = np.array(rows)
    return Atoms(table[:, 0].astype(int), table[:, 1:] * unit, cell=cell.matrix(), pbc=cell.periodic)


def _table(lines: Iterator[str], row: re.Pattern[str]) -> list[list[float]]:
    """The numbers of a table: rows that follow each other, after at most four lines of title."""
    found: list[list[float]] = []
    for number, line in enumerate(lines):
        match = row.match(line)
        if match is not None:
            found.append([float(value) for value in match.groups()])
        elif found or number >= 4:
            break
    return found


def _unit(name: str, atomic: str = "hartree") -> float:
    """A unit that an output names, in eV and Å; ``atomic`` is what it calls a.u."""
    from ase import units

    known = {
        "hartree": units.Hartree,
        "ev": 1.0,
        "hartree/bohr": units.Hartree / units.Bohr,
        "ev/angstrom": 1.0,
        "gpa": units.GPa,
        "kbar": 1e8 * units.Pascal,
        "bar": 1e5 * units.Pascal,
    }
    name = atomic if name == "a.u." else name
    if name.lower() not in known:
        raise ValueError(f"a table in {name}; read are hartree, hartree/bohr, eV, eV/angstrom, GPa, kbar and bar.")
    return known[name.lower()]


def _flags(word: str) -> tuple[bool, ...]:
    """Periodic directions: their letters, or NONE."""
    return tuple(axis in word.upper() for axis in "XYZ")


def _cells(path: Path, project: str, run: str) -> tuple[Mapping[int, np.ndarray], tuple[bool, ...]]:
    """Lattice vectors (3, 3) in Å by step, and the periodic directions, from the files beside a trajectory.

    Raises:
        ValueError: if none of them has a cell for it.
    """
    constant, periodic = None, (True, True, True)
    if (restart := _sibling(path, f"{project}-{run}.restart")) is not None:
        constant, periodic = _restart("".join(_lines(restart)))
    if (table := _sibling(path, f"{project}-{run}.cell")) is not None:
        rows = [line.split() for line in _lines(table) if not line.lstrip().startswith("#")]
        return {int(row[0]): np.array(row[2:11], float).reshape(3, 3) for row in rows if len(row) >= 11}, periodic
    if constant is None:
        raise ValueError(
            f"the cell of this trajectory of CP2K stands in {project}-{run}.cell (MOTION/PRINT/CELL writes it), or, "
            f"if it is the same in all steps, in {project}-{run}.restart; put one of them beside it."
        )
    return defaultdict(lambda: constant), periodic


def _restart(text: str) -> tuple[np.ndarray | None, tuple[bool, ...]]:
    """Lattice vectors (3, 3) in Å that a restart file holds, none if the run changes them; periodic directions."""
    section = next(iter(re.findall(r"&CELL\s*\n(.*?)&END CELL\b", text, re.DOTALL)), "")
    rows = [row.split() for row in re.findall(r"^\s*[ABC]\s+(\S.*)$", section, re.MULTILINE)]
    periodic = _PERIODIC.search(section)
    fixed = len(rows) == 3 and not _CELL_CHANGES.search(text)
    return np.array(rows, float) if fixed else None, _flags(periodic[1] if periodic else "XYZ")


def _sibling(path: Path, name: str) -> Path | None:
    """A file in the folder of another one, maybe packed; ``None`` if it is not there."""
    found = (path.with_name(name + ending) for ending in ("", *PACKED))
    return next((file for file in found if file.is_file()), None)


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text, maybe packed; the end of a longer one is a line of its own."""
    with PACKED.get(path.suffix.lower(), open)(path, "rb") as file:
        while line := file.readline(_MAX_LINE):
            yield line.decode("latin-1")
