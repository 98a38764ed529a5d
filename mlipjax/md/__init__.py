"""Molecular dynamics: ensembles, compiled chunks of steps, and a driver that records, restarts and stops."""

from mlipjax.elements import atomic_masses
from mlipjax.graph import VerletSpec
from mlipjax.md.chunk import ChunkInfo, Frames, chunk
from mlipjax.md.driver import RunResult, run
from mlipjax.md.dynamics import Dynamics, maxwell_boltzmann
from mlipjax.md.ensembles import CSVR, NVE, Ensemble, Langevin
from mlipjax.md.freedom import Freedom
from mlipjax.md.gate import Limits, default_limits
from mlipjax.md.make import make_ensemble
from mlipjax.md.nose_hoover import IsotropicNPT, NoseHoover
from mlipjax.md.observables import (
    default_timestep,
    degrees_of_freedom,
    kinetic_energy,
    masses_of,
    pressure,
    temperature,
)
from mlipjax.md.start import Start
from mlipjax.md.state import SimState, init, rebuild, refresh
from mlipjax.md.stopped import SimulationStopped

__all__ = [
    "CSVR",
    "NVE",
    "ChunkInfo",
    "Dynamics",
    "Ensemble",
    "Frames",
    "Freedom",
    "IsotropicNPT",
    "Langevin",
    "Limits",
    "NoseHoover",
    "RunResult",
    "SimState",
    "SimulationStopped",
    "Start",
    "VerletSpec",
    "atomic_masses",
    "chunk",
    "default_limits",
    "default_timestep",
    "degrees_of_freedom",
    "init",
    "kinetic_energy",
    "make_ensemble",
    "masses_of",
    "maxwell_boltzmann",
    "pressure",
    "rebuild",
    "refresh",
    "run",
    "temperature",
]
