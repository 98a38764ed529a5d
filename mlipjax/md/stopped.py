"""The error that ends a simulation, with the reason in words and the frame on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from mlipjax.data import TrajectoryWriter
from mlipjax.elements import covalent_radii, listed
from mlipjax.graph import neighbor_table
from mlipjax.md.chunk import Frames
from mlipjax.md.dynamics import Dynamics
from mlipjax.md.frames import write_frames
from mlipjax.md.gate import Limits
from mlipjax.md.job import Job
from mlipjax.md.observables import temperature
from mlipjax.md.state import SimState
from mlipjax.system import System


class SimulationStopped(RuntimeError):
    """A replica left what a simulation can be trusted with.

    Attributes:
        system: the offending frame.
        replica: which one.
        step: number of steps it did.
        path: file that holds the frame; ``None`` if the run had no trajectory to put it next to.
    """

    def __init__(self, message: str, system: System, replica: int, step: int, path: Path | None) -> None:
        super().__init__(message)
        self.system = system
        self.replica = replica
        self.step = step
        self.path = path


def stopped(job: Job, state: SimState, replica: int, step: int) -> SimulationStopped:
    """Save the frame a replica was held at, and return the error that says why.

    Args:
        job: whose limits it broke; the frame goes next to its trajectory, as ``NAME_stopped.extxyz``.
        state: after the chunk.
        replica: index of the replica.
        step: steps it did.
    """
    like, trajectory, time_fs = job.start.system, job.trajectory, step * float(job.ensemble.timestep_fs)
    one = jax.device_get(jax.tree.map(lambda leaf: leaf[replica : replica + 1], state.dynamics.set(rng=None)))
    way = job.way(state)
    way = replace(way, images=way.images[replica : replica + 1])
    system = replace(like, positions=way.positions(0, one.position[0], one.cell[0]), cell=one.cell[0])
    kelvin = float(temperature(one.momentum[0], one.mass[0], state.dynamics.degrees))
    reason = _reason(system, one, kelvin, job.limits)
    path = None if trajectory is None else trajectory.with_name(f"{trajectory.stem}_stopped.extxyz")
    if path is not None:
        path.unlink(missing_ok=True)
        frames = Frames(
            *(leaf[:, None] for leaf in (one.position, one.momentum, one.cell, one.force, one.energy, one.stress))
        )
        stamp = {"run": replica, "step": step, "time_fs": time_fs, "reason": reason}
        with TrajectoryWriter(path) as writer:
            reference = job.model.potential.reference_energy(np.asarray(like.atomic_numbers), job.head)
            write_frames(writer, frames, like, reference, [stamp], way)
    where = "" if path is None else f" The frame is in {path}."
    message = (
        f"replica {replica} stopped after {step} steps ({time_fs:g} fs): {reason}.{where} The potential is "
        "used outside its domain, or the time step is too long: look at the frame, then fine-tune or shorten the step."
    )
    return SimulationStopped(message, system, replica, step, path)


def _reason(system: System, one: Dynamics, kelvin: float, limits: Limits) -> str:
    quantities = {"positions": one.position, "forces": one.force, "the energy": one.energy, "velocities": one.momentum}
    broken = [name for name, value in quantities.items() if not np.all(np.isfinite(value))]
    if broken:
        return f"{' and '.join(broken)} not finite"
    ratio, distance, pair = _closest(system)
    if ratio < limits.contact_ratio:
        return (
            f"atoms {pair} are {distance:.3f} Å apart, {ratio:.2f} of the sum of their covalent radii "
            f"(limit {float(limits.contact_ratio):g})"
        )
    if kelvin > limits.temperature_K:
        return f"the temperature is {kelvin:.0f} K (limit {float(limits.temperature_K):.0f} K)"
    return "atoms move further than half the skin of the neighbour table in one step"


def _closest(system: System) -> tuple[float, float, str]:
    """Smallest ratio of a distance to the sum of the covalent radii, the distance, and the names of the two atoms."""
    numbers = np.asarray(system.atomic_numbers)
    radii = covalent_radii(numbers)
    table = neighbor_table(system, 2.0 * float(radii.max()), closest=0.0)
    vectors = (
        np.asarray(system.positions, np.float64)[table.neighbors] - np.asarray(system.positions, np.float64)[:, None]
    )
    vectors = vectors + table.shifts @ np.asarray(system.cell, np.float64)
    distance = np.where(table.mask, np.linalg.norm(vectors, axis=-1), np.inf)
    ratio = distance / (radii[:, None] + radii[table.neighbors])
    i, k = np.unravel_index(np.argmin(ratio), ratio.shape)
    names = [f"{listed([numbers[atom]])} {atom}" for atom in (i, table.neighbors[i, k])]
    return float(ratio[i, k]), float(distance[i, k]), " and ".join(names)
