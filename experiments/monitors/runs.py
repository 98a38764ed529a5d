"""Trajectories of ``experiments.monitors``, lead times, and the time that reading charts takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.io import read

from experiments.monitors.config import Config
from mlipjax import md, monitoring
from mlipjax.data import Dataset, Example, read_dataset, read_last_atoms, write_dataset
from mlipjax.graph import batch_graphs
from mlipjax.potential import Model
from mlipjax.system import System

STAGE_STEPS = 100
STAGE_FRAMES = 4

HEATING_K = 150.0
"""Each stage is so much hotter than the one before."""

COMPRESSION = 0.99
"""Each stage has a cell so much shorter than the one before: after 14 stages two thirds of the volume are left."""


def equilibrium(config: Config, model: Model, name: str, seed: int, n_runs: int) -> Dataset:
    """Runs at constant volume and temperature, without their first seventh; taken up where they stopped."""
    file = config.out / f"{name}.extxyz"
    md.run(
        model,
        md.Start(System.from_ase(read_last_atoms(config.structure))),
        ensemble(config, config.temperature),
        config.steps,
        key=jax.random.key(seed),
        n_replicas=n_runs,
        trajectory=file,
        frame_every=config.every,
        checkpoint=config.out / f"{name}.npz",
    )
    frames = read_dataset(file)
    return frames.subset(i for i, info in enumerate(frames.infos) if info["step"] > config.steps // 7)


def departures(config: Config, model: Model) -> Dataset:
    """Trajectories that leave equilibrium, heated or compressed stage by stage; one that collapses ends there."""
    file = config.out / "departures.extxyz"
    if not file.exists():
        examples = []
        for run in range(2 * config.departures):
            kind = "heated" if run < config.departures else "compressed"
            examples += _departure(config, model, kind, run)
        write_dataset(file, Dataset.from_examples(examples))
    return read_dataset(file)


def _departure(config: Config, model: Model, kind: str, run: int) -> list[Example]:
    system = _start(config, run)
    # one size of tables for all stages, so that nothing is compiled twice
    ends = [system, _scaled(system, COMPRESSION**config.stages)] if kind == "compressed" else [system]
    spec = md.VerletSpec.for_systems(ends, model.potential.cutoff)
    examples: list[Example] = []
    for stage in range(config.stages):
        kelvin = config.temperature + HEATING_K * stage * (kind == "heated")
        if kind == "compressed":
            system = _scaled(system, COMPRESSION)
        file = config.out / f"stage_{run}.extxyz"
        file.unlink(missing_ok=True)
        try:
            md.run(
                model,
                md.Start(system),
                ensemble(config, kelvin),
                STAGE_STEPS,
                key=jax.random.key(1000 * (config.seed + 1) + 100 * run + stage),
                trajectory=file,
                frame_every=STAGE_STEPS // STAGE_FRAMES,
                chunk_steps=STAGE_STEPS // STAGE_FRAMES,
                spec=spec,
            )
            stopped = False
        except md.SimulationStopped:
            stopped = True
        found = read_dataset(file) if file.exists() and file.stat().st_size else Dataset((), (), ())
        for example in found:
            fs = config.timestep * STAGE_STEPS / STAGE_FRAMES * (len(examples) + 1)
            examples.append(Example(example.system, example.labels, {"run": f"{kind} {run}", "time_fs": fs}))
        file.unlink(missing_ok=True)
        if stopped:
            break
        system = found.systems[-1]
    return examples


def _start(config: Config, run: int) -> System:
    """Last frame of a held-out run."""
    frames: Any = read(config.out / "held_out.extxyz", index=f"-{config.held_out_runs}:")
    atoms: Atoms = frames[run % config.held_out_runs]
    return System.from_ase(atoms)


def _scaled(system: System, factor: float) -> System:
    return System(system.positions * factor, system.atomic_numbers, system.cell * factor, system.pbc)


def ensemble(config: Config, kelvin: float) -> Any:
    """Langevin dynamics."""
    return md.make_ensemble("nvt", timestep_fs=config.timestep, temperature_K=kelvin)


def lead_time(alarm: np.ndarray, bad: np.ndarray, interval: float) -> float | None:
    """Time in fs from the first lasting alarm to the first bad frame; positive is early.

    An alarm lasts if the next frame has one too. ``None`` without a bad frame; minus the time left if it never lasts.
    """
    if not bad.any():
        return None
    lasting = np.flatnonzero(alarm & np.append(alarm[1:], alarm[-1]))
    first = lasting[0] if len(lasting) else len(alarm)
    return float(interval * (int(np.argmax(bad)) - first))


def overhead(config: Config, model: Model, fitted: monitoring.Monitor) -> dict[str, float]:
    """Processor time that reading the charts adds: once per chunk through ``Watch``, and in every step."""
    return {
        **_overhead_of_watch(config, model, fitted),
        **_overhead_of_steps(config, model, fitted),
    }


def _overhead_of_watch(config: Config, model: Model, fitted: monitoring.Monitor) -> dict[str, float]:
    """MD with and without a watch in turns, and the watch's own time measured inside."""
    system, key = _start(config, 0), jax.random.key(0)
    spent, calls = 0.0, 0
    watch = monitoring.Watch(fitted, model)

    def timed(state: Any, info: Any) -> None:
        nonlocal spent, calls
        started = time.process_time()
        before = len(watch.steps)
        watch(state, info)
        spent, calls = spent + time.process_time() - started, calls + len(watch.steps) - before

    def simulate(callback: Callable[[Any, Any], None] | None, n_steps: int) -> float:
        started = time.process_time()
        md.run(model, md.Start(system), ensemble(config, config.temperature), n_steps, on_chunk=callback, key=key)
        return time.process_time() - started

    for callback in (None, timed):
        simulate(callback, 100)
    spent, calls = 0.0, 0
    turns = [(simulate(None, config.timing_steps), simulate(timed, config.timing_steps)) for _ in range(3)]
    plain, watched = np.median(turns, axis=0).tolist()
    per_step = plain / config.timing_steps
    return {
        "md_ms_per_step": 1e3 * per_step,
        "watch_ms_per_reading": 1e3 * spent / calls,
        "steps_per_reading": 3 * config.timing_steps / calls,
        "watch_overhead_percent_inside": 100.0 * spent / 3 / plain,
        "watch_overhead_percent_of_runs": 100.0 * (watched / plain - 1.0),
    }


def _overhead_of_steps(config: Config, model: Model, fitted: monitoring.Monitor) -> dict[str, float]:
    """Energy and forces in a scan, with and without charts read from the features that come with them."""
    system = _start(config, 0)
    graph = batch_graphs([system], model.potential.cutoff, n_atoms=system.n_atoms, dtype=np.dtype("float32"))
    rows, columns = fitted.rows(graph.atomic_numbers), monitoring.feature_columns(model.potential, fitted.layers)

    def steps(watched: bool) -> Callable[..., Any]:
        def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Any]:
            positions, charts = carry
            now = graph.replace(positions=positions)  # pyright: ignore[reportAttributeAccessIssue]
            prediction = model.potential.apply(model.params, now)
            read = (
                monitoring.read(charts, prediction.features[:, columns], rows, now).frame
                if watched
                else prediction.energy
            )
            return (positions + 1e-4 * prediction.forces, charts), read

        return jax.jit(lambda positions, charts: jax.lax.scan(step, (positions, charts), length=50))

    charts = jax.tree.map(jnp.asarray, fitted.charts)
    functions = {watched: steps(watched) for watched in (False, True)}
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(8):
        for watched, function in functions.items():
            started = time.process_time()
            jax.block_until_ready(function(graph.positions, charts))
            times[watched].append(time.process_time() - started)
    plain, watched = (float(np.median(times[key][1:])) for key in (False, True))  # the first one compiles
    return {"step_ms": 20.0 * plain, "step_overhead_percent": 100.0 * (watched / plain - 1.0)}
