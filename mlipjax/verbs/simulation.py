"""Result of a simulation."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.graph import near_origin
from mlipjax.md import ChunkInfo, RunResult, SimState, Start
from mlipjax.md.driver import OnChunk
from mlipjax.md.frames import Way
from mlipjax.system import with_results
from mlipjax.units import BAR
from mlipjax.verbs.inputs import NativeModel

if TYPE_CHECKING:
    from ase import Atoms


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
