"""Molecular dynamics with a model: ensembles, replicas, restart, and charts that are read along."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import jax

from mlipjax import runtime, tree
from mlipjax.defaults import ATMOSPHERE_BAR, BAROSTAT_DAMPING_FS, DAMPING_FS, FRICTION_PER_PS, Precision
from mlipjax.files import plain
from mlipjax.hosts import is_first
from mlipjax.md import (
    NVE,
    Ensemble,
    Limits,
    Start,
    VerletSpec,
    default_limits,
    default_timestep,
    make_ensemble,
    masses_of,
)
from mlipjax.md import run as run_md
from mlipjax.md.driver import OnChunk
from mlipjax.md.make import EnsembleName, ThermostatName
from mlipjax.md.schedule import default_chunk_steps
from mlipjax.monitoring import Monitor
from mlipjax.notices import notice, say_unused
from mlipjax.verbs.dispersion import dispersive
from mlipjax.verbs.error_bars import Uncertainty
from mlipjax.verbs.inputs import (
    ModelLike,
    NativeModel,
    Structures,
    check_known,
    folder_and_file,
    in_dtype,
    open_native,
    told_paths,
)
from mlipjax.verbs.simulation import (
    Simulation,
    Stopwatch,
    Velocities,
    Wanted,
    last_structures,
    read_start,
    summary,
    temperature_of,
)
from mlipjax.verbs.watched import FrameBars, Watching, followed, watch_summary


def simulate(
    model: ModelLike,
    structure: Structures,
    ensemble: EnsembleName = "nvt",
    *,
    steps: int,
    out: str | os.PathLike[str] | None = None,
    write: str | os.PathLike[str] | None = None,
    thermostat: ThermostatName | None = None,
    temperature: float = 300.0,
    velocities: Velocities | None = None,
    pressure: float = ATMOSPHERE_BAR,
    timestep: float | None = None,
    replicas: int = 1,
    every: int = 100,
    repeat: tuple[int, int, int] = (1, 1, 1),
    friction: float = FRICTION_PER_PS,
    damping: float = DAMPING_FS,
    barostat_damping: float = BAROSTAT_DAMPING_FS,
    hottest: float = 5.0,
    closest: float = 0.5,
    monitor: str | os.PathLike[str] | Monitor | None = None,
    on_alarm: str = "stop",
    alarm_index: str = "combined",
    alarm_readings: int = 3,
    monitor_every: int = 50,
    uncertainty: Uncertainty | None = None,
    largest_force_std: float | None = None,
    head: str | None = None,
    dispersion: str | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    seed: int = 0,
    on_chunk: OnChunk | None = None,
) -> Simulation:
    """Simulate a structure; with a folder or file the same call continues a run that was stopped, more steps extend it.

    Args:
        model: what ``mlipjax.load`` takes or returns.
        structure: ``Atoms``, or a file that ASE reads; of several structures the last one. Its masses and fixed atoms
            are honoured, its momenta as ``velocities`` says.
        ensemble: "nve", "nvt", or "npt" (isotropic pressure).
        steps: number of steps from the start.
        out: folder for trajectory.extxyz, what a restart needs, and results.json; a name that ends in .extxyz is
            taken as ``write``.
        write: the trajectory alone, extended xyz with energies, forces and momenta, and beside it what a restart needs;
            replicas are told apart by ``run``.
        thermostat: for nvt "langevin" (default), "nose-hoover" or "csvr"; npt has "nose-hoover".
        temperature: K; for nve that of velocities that are drawn.
        velocities: "file" for the momenta of the structure, or "draw"; by default those of the structure where it has
            some and one copy of the cell is simulated.
        pressure: bar, for npt.
        timestep: fs; by default 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        replicas: number of copies, each with velocities and noise of its own.
        every: steps between frames.
        repeat: how often to repeat the cell along its three vectors.
        friction: 1/ps, for langevin.
        damping: fs, for nose-hoover and csvr.
        barostat_damping: fs, for npt.
        hottest: stop if the temperature exceeds this many times the one asked for.
        closest: stop if two atoms are closer than this part of the sum of their covalent radii.
        monitor: what ``mlipjax.monitor`` returned for this model as ``monitor``, or its file: charts that are read
            along the run.
        on_alarm: "stop" when a replica has been out of control for ``alarm_readings`` readings, with its frame saved
            next to the trajectory, or "ignore" and only count; of charts and of error bars.
        alarm_index: the number of a frame that decides: "q", "t2", "combined" or "worst".
        alarm_readings: readings in a row that make an alarm; one in a hundred is high by chance.
        monitor_every: least number of steps between two readings.
        uncertainty: error bars that ``mlipjax.calibrate`` gave the model: written with every frame (``energy_std``,
            ``energies_std``, ``forces_std``) and read along the run: "llpr", "shallow:MEMBERS" or "committee".
        largest_force_std: eV/Å, of an atom's force, above which it is an alarm; by default the largest on the
            structures of the calibration.
        head: name of the energy head; by default the first.
        dispersion: added to the model, as d3bj:FUNCTIONAL (``mlipjax.dispersion``); refused where the labels of a
            published model contain it already.
        dtype: precision of network and integrator, "float32" or "float64".
        precision: of the network's products (``mlipjax.precision``): "highest", "high" or "default".
        seed: of velocities and noise.
        on_chunk: for progress bars: is told state and ``ChunkInfo`` after every chunk.

    Raises:
        ValueError, FileNotFoundError: if model, structure or options cannot be used.
        SimulationStopped: if a replica became unphysical; the frame is saved next to the trajectory.
        MonitorAlarm: if a replica left what the monitor knows; likewise.
        InUseError: if another process writes the same files.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> run = mlipjax.simulate("universal", molecule("H2O"), "nve", steps=20, temperature=100.0)
        >>> run.report["n_steps"], len(run.atoms), run.atoms[0].get_momenta().shape
        (20, 1, (3, 3))
    """
    folder, trajectory = folder_and_file(out, write, "trajectory.extxyz") if is_first() else (None, None)
    watching = _watching(monitor, on_alarm, alarm_index, alarm_readings, monitor_every, uncertainty)
    with in_dtype(dtype):
        start = read_start(structure, wanted := Wanted(ensemble, thermostat, temperature, velocities, replicas, repeat))
        check_known(opened := open_native(model, head, precision), structure, start.system.atomic_numbers)
        opened = dataclasses.replace(opened, params=tree.cast(opened.params, dtype))
        opened = dispersive(opened, dispersion, start.system.pbc)
        numbers = {"temperature_K": (kelvin := temperature_of(wanted, start)), "pressure_bar": pressure}
        numbers |= {"friction_per_ps": friction, "damping_fs": damping, "barostat_damping_fs": barostat_damping}
        step = timestep
        if step is None:
            step = default_timestep(start.system.atomic_numbers, masses_of(start.system))
        made = make_ensemble(ensemble, thermostat, timestep_fs=step, **numbers)
        _say_unused(made, ensemble, pressure, friction, damping, barostat_damping)
        limits = default_limits(kelvin, start.system.n_atoms, hottest, closest, start.freedom)
        bars = FrameBars.open(model, opened, uncertainty, largest_force_std, dtype)
        found = _Job(opened, start, made, limits, watching, trajectory, bars).run(
            steps, replicas, every, seed, on_chunk
        )
    told = {"structure": told_paths(structure), "ensemble": ensemble, "dispersion": dispersion}
    found.report.update(told, dtype=dtype, precision=precision, seed=seed)
    if folder is not None:
        runtime.write_results(folder / "results.json", found.report)
    return found


def _say_unused(
    made: Ensemble, name: str, pressure: float, friction: float, damping: float, barostat_damping: float
) -> None:
    """Say which settings of other ensembles and thermostats were given."""
    settings = {
        "pressure_bar": {"pressure": (pressure, ATMOSPHERE_BAR)},
        "friction_per_ps": {"friction": (friction, FRICTION_PER_PS)},
        "damping_fs": {"damping": (damping, DAMPING_FS)},
        "barostat_damping_fs": {"barostat_damping": (barostat_damping, BAROSTAT_DAMPING_FS)},
    }
    for field, setting in settings.items():
        if not hasattr(made, field):
            say_unused(f"{name} with this thermostat has no such number", **setting)


def _watching(
    monitor: str | os.PathLike[str] | Monitor | None,
    on_alarm: str,
    alarm_index: str,
    alarm_readings: int,
    monitor_every: int,
    uncertainty: Uncertainty | None,
) -> Watching:
    watching = Watching(monitor, on_alarm, alarm_index, alarm_readings, monitor_every)
    if monitor is None:
        say_unused("no monitor is given (monitor)", alarm_index=(alarm_index, "combined"))
        if uncertainty is None:
            say_unused(
                "no monitor and no error bars are given (monitor, uncertainty)",
                on_alarm=(on_alarm, "stop"),
                alarm_readings=(alarm_readings, 3),
                monitor_every=(monitor_every, 50),
            )
    return watching


@dataclasses.dataclass(frozen=True)
class _Job:
    """One simulation."""

    model: NativeModel
    start: Start
    ensemble: Ensemble
    limits: Limits
    watching: Watching
    trajectory: Path | None
    bars: FrameBars | None

    def run(self, steps: int, replicas: int, every: int, seed: int, on_chunk: OnChunk | None) -> Simulation:
        model, start, system = self.model, self.start, self.start.system
        if self.trajectory is not None and steps < every:
            notice(f"every={every} keeps no frame of {steps} steps; choose fewer steps between frames.")
        spec = VerletSpec.for_systems([system], model.potential.cutoff)
        kelvin, femtoseconds = float(self.ensemble.temperature_K), float(self.ensemble.timestep_fs)
        masses = masses_of(system)
        chunk = default_chunk_steps(system.atomic_numbers, kelvin, femtoseconds, spec.skin, masses)
        watch, spreads, follow = self.watching.start(model.model), None, (clock := Stopwatch(on_chunk))
        if watch is not None:
            follow = followed(watch, follow, self.trajectory, system)
        if self.bars is not None:
            spreads = self.watching.read_bars(self.bars, system)
            follow = followed(spreads, follow, self.trajectory, system)
        if watch is not None or spreads is not None:
            chunk = min(chunk, self.watching.monitor_every)  # they are read between chunks
        result = run_md(
            model.model,
            start,
            self.ensemble,
            steps,
            key=jax.random.key(seed),
            n_replicas=replicas,
            trajectory=self.trajectory,
            frame_every=every,
            checkpoint=None if self.trajectory is None else checkpoint_of(self.trajectory),
            limits=self.limits,
            head=model.head,
            spec=spec,
            chunk_steps=chunk,
            columns=None if self.bars is None else self.bars.columns,
            on_chunk=follow,
        )
        conserved = isinstance(self.ensemble, NVE)
        report = summary(result, system.n_atoms, femtoseconds, conserved=conserved) | {
            "model": model.name,
            "velocities": "drawn" if start.momenta is None else "file",
            "n_fixed_atoms": start.n_fixed,
            "trajectory": None if self.trajectory is None else str(self.trajectory),
            "microseconds_per_atom_step": clock.microseconds,
            "monitor": None if watch is None else watch_summary(watch),
            "uncertainty": None if spreads is None else spreads.summary(),
        }
        return Simulation(last_structures(result.state, start, model), self.trajectory, plain(report))


def checkpoint_of(trajectory: Path) -> Path:
    """Return the file of what a run needs to continue: next to its trajectory."""
    return trajectory.with_name(f"{trajectory.stem}_restart.npz")
