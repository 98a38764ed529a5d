"""Start and result of a simulation: masses, constraints and momenta, what is said about them, and averages."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlipjax.graph import near_origin
from mlipjax.md import ChunkInfo, RunResult, SimState, Start
from mlipjax.md.driver import OnChunk
from mlipjax.md.frames import Way
from mlipjax.md.make import EnsembleName, ThermostatName
from mlipjax.notices import notice
from mlipjax.system import with_results
from mlipjax.units import BAR
from mlipjax.verbs.inputs import NativeModel, Structures, described, last_of, repeated

if TYPE_CHECKING:
    from ase import Atoms

Velocities = Literal["file", "draw"]
"""Sources of velocities: the structure's momenta, or a Maxwell-Boltzmann distribution."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """The options that decide how a run starts; words as in ``verbs.simulate``."""

    ensemble: EnsembleName
    thermostat: ThermostatName | None
    temperature: float
    velocities: Velocities | None
    replicas: int
    repeat: tuple[int, int, int]

    @property
    def noisy(self) -> bool:
        """Tell whether replicas with the same start part from each other."""
        return self.ensemble == "nvt" and self.thermostat in (None, "langevin", "csvr")


def read_start(structure: Structures, wanted: Wanted) -> Start:
    """Take a structure with its masses and constraints, and its momenta where they are to be used.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if there is no structure, it cannot be repeated, or what it says cannot be honoured.
    """
    name = described(structure)
    start = start_of(repeated(last_of(structure), wanted.repeat), name)
    if _uses_momenta(name, wanted, start):
        _say_momenta(name, wanted, start)
        return start
    return dataclasses.replace(start, momenta=None)


def start_of(atoms: Atoms, name: str) -> Start:
    """Take a structure with masses, constraints and momenta; the first two are said.

    Raises:
        ValueError: naming the structure, if what it says cannot be honoured.
    """
    try:
        start = Start.from_ase(atoms)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if start.n_fixed:
        notice(
            f"{name}: {start.n_fixed} of {len(atoms)} atoms are fixed there and stay where they are; the temperature "
            "counts what moves."
        )
    if start.system.masses is not None:
        notice(f"{name}: the masses given there are used.")
    return start


def temperature_of(wanted: Wanted, start: Start) -> float:
    """K around which limits are set: the one asked for; at constant energy that of the given momenta."""
    given = start.temperature_K
    return wanted.temperature if given is None or wanted.ensemble != "nve" else given


def _uses_momenta(name: str, wanted: Wanted, start: Start) -> bool:
    """Return whether the run starts with the given momenta; what is given and not used is said."""
    if start.momenta is None:
        if wanted.velocities == "file":
            raise ValueError(f'{name}: no momenta in this file; choose velocities="draw", or leave that out.')
        return False
    if wanted.velocities == "file" and wanted.replicas > 1 and not wanted.noisy:
        raise ValueError(
            f"{wanted.replicas} replicas that start with the same momenta would all do the same; choose replicas=1, "
            'velocities="draw", or a thermostat with noise (langevin, csvr).'
        )
    if wanted.velocities is not None:
        return wanted.velocities == "file"
    copies = wanted.replicas > 1 or tuple(wanted.repeat) != (1, 1, 1)
    if copies:
        notice(
            f"{name}: its momenta are not used, as copies would move alike; velocities are drawn "
            '(velocities="file" uses them).'
        )
    return not copies


def _say_momenta(name: str, wanted: Wanted, start: Start) -> None:
    lost = " without the motion of the centre of mass or of fixed atoms" if start.lost_momentum else ""
    aim = "" if wanted.ensemble != "nve" else "; the temperature asked for is not used"
    notice(
        f"{name}: the run starts with the momenta given there{lost} ({start.temperature_K:.0f} K{aim}); "
        'velocities="draw" draws them anew.'
    )


@dataclasses.dataclass(frozen=True)
class Simulation:
    """A run as it stands after its last step.

    Attributes:
        atoms: the last structure of each replica, with momenta, energy and forces.
        trajectory: file of the frames, if they were kept.
        report: averages over the whole run, one number per replica, and settings; JSON types, keys say the units.
    """

    atoms: list[Atoms]
    trajectory: Path | None
    report: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The report."""
        return self.report


_SWINGS_FS = 500.0
"""Duration of ten vibrations of 20 THz: with them the total energy of an integrator swings, which is no drift."""


class Stopwatch:
    """Passes on what another listener is told, and times the steps after the first chunk, which compiles."""

    def __init__(self, listener: OnChunk | None) -> None:
        self.listener = listener
        self.microseconds: float | None = None
        self._mark: tuple[float, int] | None = None

    def __call__(self, state: SimState, info: ChunkInfo) -> None:
        """Take note of a chunk."""
        step, now = int(state.step), time.perf_counter()
        if self._mark is None:
            self._mark = now, step
        elif step > self._mark[1]:
            atom_steps = (step - self._mark[1]) * state.atomic_numbers.shape[0] * state.n_replicas
            self.microseconds = (now - self._mark[0]) / atom_steps * 1e6
        if self.listener is not None:
            self.listener(state, info)


def summary(result: RunResult, n_atoms: int, timestep_fs: float, *, conserved: bool = True) -> dict[str, Any]:
    """Averages over the whole run, one number per replica, in the units named by the keys.

    Args:
        result: of the run.
        n_atoms: in each replica.
        timestep_fs: fs.
        conserved: whether the ensemble conserves the total energy; a thermostat changes it, and its slope is no error.
            Nor is that of a run shorter than ``_SWINGS_FS``.
    """
    averages = result.statistics.averages()
    drift = averages["energy_slope"] / n_atoms * 1e6 / timestep_fs
    duration = result.statistics.n_steps * timestep_fs
    return {
        "n_atoms": n_atoms,
        "n_steps": int(result.state.step),
        "n_replicas": result.state.n_replicas,
        "timestep_fs": timestep_fs,
        "n_frames": result.n_frames,
        "n_repeated_chunks": result.n_repeats,
        "resumed_from": result.resumed_from,
        "temperature_mean_K": averages["temperature_mean"],
        "temperature_std_K": averages["temperature_std"],
        "potential_energy_mean_eV": averages["potential_energy_mean"],
        "pressure_mean_bar": averages["pressure_mean"] / BAR,
        "energy_drift_meV_per_atom_per_ps": drift if conserved and duration >= _SWINGS_FS else None,
        "min_distance_A": averages["min_distance"],
    }


def last_structures(state: SimState, start: Start, model: NativeModel) -> list[Atoms]:
    """The structures of all replicas, with positions that nothing brought back into the cell."""
    way = Way(np.asarray(state.images), near_origin(start.system), start.freedom)
    reference = model.potential.reference_energy(start.system.atomic_numbers, model.head)
    found = []
    for replica in range(state.n_replicas):
        d = state.dynamics
        position, cell, momenta, forces = (
            np.asarray(part[replica], np.float64) for part in (d.position, d.cell, d.momentum, d.force)
        )
        system = dataclasses.replace(start.system, positions=way.positions(replica, position, cell), cell=cell)
        atoms = system.to_ase()
        atoms.set_momenta(momenta)
        atoms.info = {"run": replica, "step": int(state.step)}
        found.append(with_results(atoms, energy=float(d.energy[replica]) + reference, forces=forces))
    return found
