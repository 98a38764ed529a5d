"""A folder that LAMMPS runs as it is: data, input, and the script that starts it with a model."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
from ase import Atoms

from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS
from mlipjax.engines.run import EngineRun, prepare
from mlipjax.files import make_folder, write_atomic
from mlipjax.notices import say_unused

_SEEDS = 2**31 - 2
"""Seeds of LAMMPS lie between 1 and this."""

DATA, INPUT, SCRIPT = "start.data", "in.lammps", "run.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LammpsRun(EngineRun):
    """Settings of a run with LAMMPS; thermostat and barostat are Nosé-Hoover chains.

    Attributes:
        pressure: bar, for npt, which scales all three lattice vectors alike.
        barostat_damping: fs.
    """

    ensembles: ClassVar[tuple[str, ...]] = ("nve", "nvt", "npt")

    pressure: float = ATMOSPHERE_BAR
    barostat_damping: float = BAROSTAT_DAMPING_FS

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("finite", math.isfinite, "pressure")
        self._check("positive", lambda value: 0.0 < value < math.inf, "barostat_damping")


def write_lammps_run(folder: str | Path, model: str, atoms: Atoms, run: LammpsRun | None = None) -> Path:
    """Write a folder in which ``python run.py`` runs as it is; return the path of the script.

    Args:
        folder: made if absent.
        model: as ``mlipjax.load`` takes it; a path is written in full.
        atoms: start structure; its periodicity and masses are kept, isotopes as atom types of their own.
        run: settings.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: for a structure without a cell, with constraints or with a
            tilt that LAMMPS does not take, or a model that cannot be loaded or does not know an element.
        OSError: if the folder cannot be written.
    """
    run = LammpsRun() if run is None else run
    if run.ensemble != "npt":
        usual, why = LammpsRun(), f"the ensemble is {run.ensemble}"
        barostat = (run.barostat_damping, usual.barostat_damping)
        say_unused(why, pressure=(run.pressure, usual.pressure), barostat_damping=barostat)
    path, atoms = prepare(model, atoms, run.head)
    kinds = kinds_of(atoms)
    symbols = [symbol for symbol, _ in kinds]
    data = data_text(atoms, kinds)
    folder = Path(folder)
    make_folder(folder)
    write_atomic(folder / DATA, data)
    write_atomic(folder / INPUT, input_text(atoms, symbols, run, _CALLBACK))
    write_atomic(folder / SCRIPT, _script(path, symbols, run))
    return folder / SCRIPT


_CALLBACK = """\
# no forces, but neighbours for commands that ask for them, such as compute rdf
pair_style      zero 5.0
pair_coeff      * *

# the model; before every other fix, as they act in this order
fix             mlipjax all external pf/callback 1 1
"""


def kinds_of(atoms: Atoms) -> list[tuple[str, float]]:
    """Symbols and masses (amu) of LAMMPS' atom types, in the order in which they appear; isotopes are types."""
    return list(dict.fromkeys(zip(atoms.get_chemical_symbols(), atoms.get_masses(), strict=True)))


def data_text(atoms: Atoms, kinds: list[tuple[str, float]]) -> str:
    """LAMMPS' data file of a structure whose cell is lower triangular, with these atom types."""
    (ax, _, _), (bx, by, _), (cx, cy, cz) = atoms.cell.array
    tilts = {"xy": (bx, 1), "xz": (cx, 2), "yz": (cy, 2)}
    for name, (tilt, axis) in tilts.items():
        if abs(tilt) > 1e-9 and not atoms.pbc[axis]:
            raise ValueError(
                f"lattice vector {'abc'[axis]} is tilted ({name} is {tilt:.3g} Å) and not periodic, which LAMMPS does "
                "not take; make it orthogonal to the others."
            )
    # a box that is open along an axis must hold the atoms, wherever they are
    lows, highs = np.zeros(3), np.array([ax, by, cz])
    lows = np.where(atoms.pbc, lows, np.minimum(lows, atoms.positions.min(axis=0)))
    highs = np.where(atoms.pbc, highs, np.maximum(highs, atoms.positions.max(axis=0)))
    types = [1 + kinds.index(kind) for kind in zip(atoms.get_chemical_symbols(), atoms.get_masses(), strict=True)]
    lines = [
        "written by mlipjax; lengths in Å, masses in amu",
        "",
        f"{len(atoms)} atoms",
        f"{len(kinds)} atom types",
        *(f"{low:.15g} {high:.15g} {axis}lo {axis}hi" for axis, low, high in zip("xyz", lows, highs, strict=True)),
        f"{bx:.15g} {cx:.15g} {cy:.15g} xy xz yz",
        "",
        "Masses",
        "",
        *(f"{number} {mass:.10g} # {symbol}" for number, (symbol, mass) in enumerate(kinds, 1)),
        "",
        "Atoms # atomic",
        "",
    ]
    for number, (kind, (x, y, z)) in enumerate(zip(types, atoms.positions, strict=True), 1):
        lines.append(f"{number} {kind} {x:.15g} {y:.15g} {z:.15g}")
    return "\n".join(lines) + "\n"


def input_text(atoms: Atoms, symbols: list[str], run: LammpsRun, forces: str) -> str:
    """LAMMPS' input up to the command ``run``, with the lines that bring the forces."""
    temperature, pressure = (f"{value:g} {value:g}" for value in (run.temperature, run.pressure))
    thermostat = f" temp {temperature} {run.damping / 1000.0:g}" if run.ensemble != "nve" else ""
    barostat = f" iso {pressure} {run.barostat_damping / 1000.0:g}" if run.ensemble == "npt" else ""
    return f"""\
units           metal
atom_style      atomic
atom_modify     map yes
boundary        {" ".join("p" if periodic else "m" for periodic in atoms.pbc)}
box             tilt large
read_data       {DATA}

{forces}
velocity        all create {run.temperature:g} {1 + run.seed % _SEEDS} mom yes rot no dist gaussian
fix             ensemble all {run.ensemble}{thermostat}{barostat}
timestep        {run.timestep_for(atoms) / 1000.0:g}

thermo          {run.every}
thermo_style    custom step time temp pe etotal econserve press vol density
thermo_modify   format float %.8g
dump            frames all custom {run.every} frames.lammpstrj id type element x y z ix iy iz
dump_modify     frames element {" ".join(symbols)} sort id
"""


def _script(model: str, symbols: list[str], run: LammpsRun) -> str:
    return f'''\
"""Runs {INPUT} with the forces of a model."""

import os
from pathlib import Path

from mlipjax.engines.lammps import attach, start
from mlipjax.runtime import setup_allocator

os.chdir(Path(__file__).resolve().parent)
setup_allocator()
lmp = start()
lmp.file("{INPUT}")
attach(lmp, {model!r}, {symbols!r}, head={run.head!r}, dtype={run.dtype!r})
lmp.command("run {run.steps}")
lmp.command("write_data end.data")
'''
