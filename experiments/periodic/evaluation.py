"""Tests of ``experiments.periodic``: the independent set, own trajectories, errors, charts of what the models saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ase.data import chemical_symbols
from ase.io import write

from experiments.lab.charts import Chart, mean_features, principal_map
from experiments.lab.driven import oracle_frames
from experiments.lab.errors import force_squares
from experiments.periodic.arms import ARMS, Experiment, frames_of, models_of, open_experiment
from experiments.periodic.config import Config
from mlipjax import md
from mlipjax.data import Dataset, Example, read_atoms, read_dataset, write_dataset
from mlipjax.files import make_folder, replace_on_success
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Model
from mlipjax.representation import node_features
from mlipjax.system import System
from mlipjax.train import error_report
from mlipjax.train.evaluate import predict_dataset

_KEYS = (
    "n_frames",
    "energy_mean_meV_per_atom",
    "energy_std_meV_per_atom",
    "energy_rmse_meV_per_atom",
    "force_mae_meV_per_A",
    "force_rmse_meV_per_A",
    "force_slope",
    "confidence_95",
)

SQUARES = "force_squares_meV2_per_A2"
"""Mean squared errors of the forces of every frame: what comparisons of two models draw from."""

_STRIDE = 10
"""MD steps between frames of the independent set: 10 fs at 1 fs, a quarter of an O-H vibration's decay time."""


def run_oracle(config: Config) -> dict[str, Any]:
    """Frames of a trajectory driven by the oracle itself, so that no model under test has shaped them.

    The trajectory starts at the same structure with other velocities (100 K above, so that it covers more than the
    arms' own trajectories) and is saved in ``test.extxyz``.
    """
    experiment = open_experiment(config)
    kelvin = config.temperature + 100.0
    frames = oracle_frames(
        experiment.oracle, experiment.system, kelvin, config.test_frames, every=_STRIDE, seed=config.seed + 1
    )
    with replace_on_success(_independent(config)) as temporary:
        write(temporary, frames, format="extxyz")
    return {"n_frames": len(frames)}


def run_own(config: Config, name: str) -> dict[str, Any]:
    """MD with the final model of an arm from the common start; its frames are labelled and saved.

    A run that leaves the limits is an outcome, not an error: its trace ends there (``stopped`` says why).
    """
    experiment, model = open_experiment(config), models_of(config, name)[-1]
    folder = config.out / "own"
    make_folder(folder)
    trajectory = _simulate(config, experiment, model, folder / f"{name}.extxyz")
    frames = _own_frames(config, name)
    if not frames:
        raise RuntimeError(f"the first frame of the own trajectory was not reached: {trajectory['stopped']}")
    with Labeller(experiment.oracle, folder / f"{name}.db", n_workers=1) as labeller:
        outcomes = labeller.label(frames)
    pairs = zip(frames, outcomes, strict=True)
    labelled = [Example(frame, labels, {}) for frame, labels in pairs if not isinstance(labels, Failure)]
    write_dataset(folder / f"{name}-labelled.extxyz", Dataset.from_examples(labelled))
    return {"trace": trajectory, "failed": len(frames) - len(labelled)}


def _simulate(config: Config, experiment: Experiment, model: Model, file: Path) -> dict[str, Any]:
    """Temperature and energy of every step, and what stopped the run."""
    for stale in (file, file.with_suffix(".npz")):
        stale.unlink(missing_ok=True)
    trace: dict[str, Any] = {"temperature_K": [], "energy_eV_per_atom": [], "stopped": None}
    reference = model.potential.reference_energy(np.asarray(experiment.system.atomic_numbers))

    def record(state: Any, info: Any) -> None:
        done = int(info.n_done[0])
        trace["temperature_K"] += np.asarray(info.trace.temperature[0], float)[:done].tolist()
        energy = np.asarray(info.trace.potential_energy[0], float)[:done] + reference
        trace["energy_eV_per_atom"] += (energy / experiment.system.n_atoms).tolist()

    try:
        md.run(
            model,
            md.Start(experiment.system),
            md.make_ensemble(config.ensemble, timestep_fs=config.timestep, temperature_K=config.temperature),
            config.own_frames * config.steps,
            key=jax.random.key(config.seed + 2),
            trajectory=file,
            frame_every=config.steps,
            on_chunk=record,
        )
    except md.SimulationStopped as stop:
        trace["stopped"] = str(stop)
    return {**trace, "timestep_fs": config.timestep}


def errors_of(config: Config, name: str) -> dict[str, Any]:
    """Errors of every model of an arm on the independent set, and of the final one on its own trajectory."""
    models = models_of(config, name)
    independent, own = read_dataset(_independent(config)), read_dataset(config.out / "own" / f"{name}-labelled.extxyz")
    rounds = [_errors(config, model, independent) for model in models]
    return {"independent": rounds, "own trajectory": _errors(config, models[-1], own)}


def _errors(config: Config, model: Model, frames: Dataset) -> dict[str, Any]:
    found = predict_dataset(model, frames, dtype=config.dtype)
    report = error_report(frames, found)
    return {**{key: report[key] for key in _KEYS}, SQUARES: force_squares(frames, found)}


def charts(config: Config) -> dict[str, Any]:
    """PCA map of the arms' training sets in the universal model's features, and Q of own trajectories.

    The map needs features that do not depend on the arm; the Q-residual of a model is taken in its own features,
    against a chart of its own training set, as one would use it to watch that model.
    """

    def features(model: Model, frames: list[System]) -> np.ndarray:
        return node_features(model, frames, dtype=config.dtype)

    (universal,) = models_of(config, "zero-shot")
    training = {arm: frames_of(config, arm) for arm in ARMS}
    sets = {arm: mean_features(features(universal, frames), frames) for arm, frames in training.items()}
    maps, explained = principal_map(sets)
    q, limits = {}, {}
    for arm, trained_on in training.items():
        model, frames = models_of(config, arm)[-1], _own_frames(config, arm)
        seen = features(model, trained_on)
        chart = Chart.fit(seen, trained_on)
        visited = chart.read(features(model, frames), frames)
        q[arm] = {chemical_symbols[z]: values.tolist() for z, values in visited.items()}
        trained = chart.read(seen, trained_on)
        limits[arm] = {chemical_symbols[z]: float(np.quantile(values, 0.99)) for z, values in trained.items()}
    pca = {arm: values.tolist() for arm, values in maps.items()}
    return {"pca": pca, "explained": explained, "q": q, "q_training_99": limits}


def _independent(config: Config) -> Path:
    return config.out / "test.extxyz"


def _own_frames(config: Config, name: str) -> list[System]:
    trajectory = config.out / "own" / f"{name}.extxyz"
    return [System.from_ase(atoms) for atoms in read_atoms(trajectory)] if trajectory.exists() else []
