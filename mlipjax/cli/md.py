"""``mlipjax md``: molecular dynamics with a model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.heads import choose_head
from mlipjax.cli.md_start import read_start, temperature_of
from mlipjax.cli.md_watch import make_watch, show_and_watch, watch_line, watch_summary
from mlipjax.cli.options.md import MD
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import make_bar
from mlipjax.md import (
    ChunkInfo,
    RunResult,
    SimState,
    VerletSpec,
    default_limits,
    default_timestep,
    make_ensemble,
    masses_of,
)
from mlipjax.md import run as run_md
from mlipjax.md.schedule import default_chunk_steps
from mlipjax.models import load
from mlipjax.units import BAR


def run(command: MD) -> None:
    """Simulate and print averages.

    Raises:
        ValueError, FileNotFoundError: if model, structure or options cannot be used.
        SimulationStopped: if a replica became unphysical; the frame is saved next to the trajectory.
        MonitorAlarm: if a replica left what the monitor knows; the frame is saved next to the trajectory.
    """
    dtype = runtime.select_dtype(command.dtype)
    start = read_start(command)
    system = start.system
    potential, params = load(command.model)
    potential.check_elements(system.atomic_numbers)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
    watch = None if command.monitor is None else make_watch(command, command.monitor, potential, params)
    masses = masses_of(system)
    timestep = default_timestep(system.atomic_numbers, masses) if command.timestep is None else command.timestep
    temperature = temperature_of(command, start)
    ensemble = make_ensemble(
        command.ensemble,
        command.thermostat,
        timestep_fs=timestep,
        temperature_K=temperature,
        pressure_bar=command.pressure,
        friction_per_ps=command.friction,
        damping_fs=command.damping,
        barostat_damping_fs=command.barostat_damping,
    )
    spec = VerletSpec.for_systems([system], potential.cutoff)
    chunk = default_chunk_steps(system.atomic_numbers, temperature, timestep, spec.skin, masses)
    console = make_console()
    display = MDDisplay(console, command.steps, system.n_atoms)
    with display.progress:
        result = run_md(
            potential,
            params,
            system,
            ensemble,
            command.steps,
            key=jax.random.key(command.seed),
            n_replicas=command.replicas,
            trajectory=command.out,
            frame_every=command.every,
            checkpoint=checkpoint_of(command.out),
            limits=default_limits(temperature, system.n_atoms, command.hottest, command.closest, start.freedom),
            head=choose_head(potential, command.head),
            momenta=start.momenta,
            freedom=start.freedom,
            spec=spec,
            # charts are read between chunks
            chunk_steps=chunk if watch is None else min(chunk, command.monitor_every),
            on_chunk=display.chunk if watch is None else show_and_watch(display.chunk, watch, command.out, system),
        )
    report = summary(result, system.n_atoms, timestep, conserved=command.ensemble == "nve") | {
        "model": command.model,
        "structure": command.structure,
        "velocities": "drawn" if start.momenta is None else "file",
        "n_fixed_atoms": start.n_fixed,
        "trajectory": command.out,
        "ensemble": command.ensemble,
        "dtype": command.dtype,
        "seed": command.seed,
        "microseconds_per_atom_step": display.microseconds,
        "monitor": None if watch is None else watch_summary(watch),
    }
    _print(console, report)
    write_json(command.json, report)


def checkpoint_of(trajectory: Path) -> Path:
    """Where a run keeps what it needs to continue: next to its trajectory."""
    return trajectory.with_name(f"{trajectory.stem}_restart.npz")


def summary(result: RunResult, n_atoms: int, timestep_fs: float, *, conserved: bool = True) -> dict[str, Any]:
    """Averages over the whole run, one number per replica, in the units named by the keys.

    Args:
        result: of the run.
        n_atoms: in each replica.
        timestep_fs: fs.
        conserved: whether the ensemble conserves the total energy; a thermostat changes it, and its slope is no error.
    """
    averages = result.statistics.averages()
    drift = averages["energy_slope"] / n_atoms * 1e6 / timestep_fs
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
        "energy_drift_meV_per_atom_per_ps": drift if conserved else None,
        "min_distance_A": averages["min_distance"],
    }


class MDDisplay:
    """A progress bar with temperature and potential energy of the first replica; to be used within ``progress``."""

    def __init__(self, console: Console, n_steps: int, n_atoms: int) -> None:
        self.n_atoms = n_atoms
        self.microseconds: float | None = None
        self._mark: tuple[float, int] | None = None
        self.progress = make_bar(console, "MD", "steps {task.fields[state]}")
        self.task = self.progress.add_task("steps", total=n_steps, state="(compiling)")

    def chunk(self, state: SimState, info: ChunkInfo) -> None:
        """Move the bar, and time the steps after the first chunk (which includes compilation)."""
        step, now = int(state.step), time.perf_counter()
        if self._mark is None:
            self._mark = now, step
        elif step > self._mark[1]:
            atom_steps = (step - self._mark[1]) * self.n_atoms * state.n_replicas
            self.microseconds = (now - self._mark[0]) / atom_steps * 1e6
        kelvin = float(info.trace.temperature[0, -1])
        energy = float(info.trace.potential_energy[0, -1]) / self.n_atoms
        self.progress.update(self.task, completed=step, state=f"{kelvin:.0f} K, {energy:.4f} eV/atom")


def _print(console: Console, report: dict[str, Any]) -> None:
    if report["resumed_from"] == report["n_steps"]:
        console.print(f"{report['trajectory']}: done already; ask for more steps to extend it.")
    rows = ("temperature_mean_K", "temperature_std_K", "pressure_mean_bar", "energy_drift_meV_per_atom_per_ps")
    for name in (*rows, "min_distance_A"):
        if report[name] is None:
            continue
        values = ", ".join(f"{value:.4g}" for value in report[name])
        console.print(f"{name}: {values}")
    if report["monitor"] is not None:
        console.print(watch_line(report["monitor"]))
    speed = report["microseconds_per_atom_step"]
    timing = "" if speed is None else f", {speed:.1f} µs per atom and step"
    console.print(
        f"{report['trajectory']}: {report['n_frames']} frames of {report['n_replicas']} x {report['n_atoms']} atoms, "
        f"{report['n_steps']} steps of {report['timestep_fs']:g} fs{timing}",
    )
