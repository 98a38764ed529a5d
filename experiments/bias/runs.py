"""Own trajectories of ``experiments.bias``: short NPT dynamics with each model from one start frame."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from ase import units
from ase.data import chemical_symbols

from experiments.bias.charts import Watch
from experiments.bias.models import Experiment, Trained
from experiments.lab.s0 import bond_events
from mlipjax import md
from mlipjax.data import read_dataset
from mlipjax.files import write_atomic
from mlipjax.system import System

KELVIN, TIMESTEP_FS = 300.0, 0.5


def own_run(experiment: Experiment, trained: Trained, watch: Watch) -> dict[str, Any]:
    """Simulate with a model as the paper did (NPT, 300 K, 0.5 fs), and read Q, bonds and density off every frame.

    All models start from the first frame of the first arm's held-out group, with the same velocities. A run that
    leaves the limits is an outcome: it ends there and ``stopped`` says why.
    """
    c = experiment.config
    folder = c.out / "own"
    folder.mkdir(parents=True, exist_ok=True)
    file, trajectory = folder / f"{trained.job.name}.json", folder / f"{trained.job.name}.extxyz"
    if file.exists():
        return json.loads(file.read_text())
    start = next(iter(experiment.arms.values())).test.systems[0]
    temperature: list[float] = []
    stopped = None
    try:
        md.run(
            trained.model,
            md.Start(start),
            md.make_ensemble("npt", timestep_fs=TIMESTEP_FS, temperature_K=KELVIN),
            c.md_steps,
            key=jax.random.key(0),
            trajectory=trajectory,
            frame_every=c.md_every,
            checkpoint=folder / f"{trained.job.name}_restart.npz",
            on_chunk=lambda _, info: temperature.extend(np.asarray(info.trace.temperature[0], float).tolist()),
        )
    except md.SimulationStopped as error:
        stopped = str(error)
    frames = read_dataset(trajectory, required=()).systems if trajectory.exists() and trajectory.stat().st_size else ()
    result = {
        "model": trained.job.name,
        "stopped": stopped,
        "time_ps": [(k + 1) * c.md_every * TIMESTEP_FS / 1000.0 for k in range(len(frames))],
        "temperature_K": float(np.mean(temperature[len(temperature) // 2 :])) if temperature else None,
        "density_g_per_cm3": [_density(system) for system in frames],
        "events": bond_events(frames),
        "start_events": {kind: values[0] for kind, values in bond_events([start]).items()},
        "q": {chemical_symbols[z]: q.tolist() for z, q in watch.read(frames).items()} if frames else {},
    }
    write_atomic(file, json.dumps(result))
    return result


def _density(system: System) -> float:
    mass = float(np.sum(system.to_ase().get_masses())) / units.mol  # amu in g
    return mass / (abs(float(np.linalg.det(np.asarray(system.cell)))) * 1e-24)
