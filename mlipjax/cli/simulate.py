"""``mlipjax simulate``, also called ``mlipjax md``: molecular dynamics with a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.structures import Simulate
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import make_bar
from mlipjax.md import ChunkInfo, SimState
from mlipjax.verbs import simulate


def run(command: Simulate) -> None:
    """Simulate and print averages."""
    if command.out is None and command.write is None:
        raise ValueError("give --out FOLDER, or --write FILE for the trajectory alone.")
    console = make_console(quiet=command.quiet)
    display = MDDisplay(console, command.steps)
    with display.progress:
        report = call(simulate, command, on_chunk=display.chunk).report
    _print(console, report)
    write_json(command.json, report)


class MDDisplay:
    """A progress bar with temperature and potential energy of the first replica; to be used within ``progress``."""

    def __init__(self, console: Console, n_steps: int) -> None:
        self.progress = make_bar(console, "MD", "steps {task.fields[state]}")
        self.task = self.progress.add_task("steps", total=n_steps, state="(compiling)")

    def chunk(self, state: SimState, info: ChunkInfo) -> None:
        """Move the bar."""
        kelvin = float(info.trace.temperature[0, -1])
        energy = float(info.trace.potential_energy[0, -1]) / state.atomic_numbers.shape[0]
        self.progress.update(self.task, completed=int(state.step), state=f"{kelvin:.0f} K, {energy:.4f} eV/atom")


def _print(console: Console, report: dict[str, Any]) -> None:
    if report["resumed_from"] == report["n_steps"]:
        console.print(f"{report['trajectory']}: done already; ask for more steps to extend it.")
    rows = ("temperature_mean_K", "temperature_std_K", "pressure_mean_bar", "energy_drift_meV_per_atom_per_ps")
    for name in (*rows, "min_distance_A"):
        if report[name] is None:
            continue
        values = ", ".join("-" if value is None else f"{value:.4g}" for value in report[name])
        console.print(f"{name}: {values}")
    if report["monitor"] is not None:
        console.print(watch_line(report["monitor"]))
    if (bars := report["uncertainty"]) is not None and bars["n_readings"]:
        limit = "" if bars["limit_eV_per_A"] is None else f", limit {bars['limit_eV_per_A']:.3g}"
        largest = max(np.inf if value is None else value for value in bars["largest_eV_per_A"])
        console.print(f"{bars['method']}: largest error bar of an atom's force {largest:.3g} eV/Å{limit}")
    speed = report["microseconds_per_atom_step"]
    timing = "" if speed is None else f", {speed:.1f} µs per atom and step"
    console.print(
        f"{report['trajectory']}: {report['n_frames']} frames of {report['n_replicas']} x {report['n_atoms']} atoms, "
        f"{report['n_steps']} steps of {report['timestep_fs']:g} fs{timing}",
    )


def watch_line(found: dict[str, Any]) -> str:
    """One line of what the charts said: the verdict that ``mlipjax monitor`` would give of these readings."""
    if found["verdict"] is None:
        return "monitor: the charts were not read in this run"
    values = np.array([np.nan if value is None else value for value in found["largest"]])
    largest = int(np.argmax(np.nan_to_num(values, nan=np.inf)))
    ratio = values[largest] / found["limit"]
    return f"monitor: {found['verdict']} ({found['index']}); largest {ratio:.3g} times the limit, in replica {largest}"
