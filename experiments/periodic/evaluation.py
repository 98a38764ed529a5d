"""Tests of ``experiments.periodic``: the independent set, own trajectories, charts of what the models saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from rich.progress import Progress

from experiments.periodic.config import Config
from experiments.periodic.experiment import Experiment, Model
from mlipjax import md, tree
from mlipjax.data import Dataset, Example
from mlipjax.files import replace_on_success, write_atomic
from mlipjax.graph import batch_graphs, neighbor_table
from mlipjax.monitoring import fit_charts, q_residual
from mlipjax.oracles import Failure, Labeller, Oracle
from mlipjax.potential import apply
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, error_report, predict
from mlipjax.typing import Array

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

_STRIDE = 10
"""MD steps between frames of the independent set: 10 fs at 1 fs, a quarter of an O-H vibration's decay time."""

_COMPONENTS = 5


class _OracleCalculator(Calculator):
    """ASE calculator around an oracle, for its own dynamics."""

    implemented_properties = ("energy", "forces")  # pyright: ignore[reportAssignmentType]

    def __init__(self, oracle: Oracle) -> None:
        super().__init__()
        self._oracle = oracle

    def calculate(self, atoms=None, properties=("energy",), system_changes=()) -> None:
        """Label the structure."""
        super().calculate(atoms, properties, system_changes)
        current: Any = self.atoms
        labels = self._oracle.label(System.from_ase(current))
        self.results = {"energy": float(labels.energy), "forces": np.asarray(labels.forces)}


def read_frames(file: Path) -> list[Atoms]:
    """All structures of a file that ASE can read."""
    frames: Any = read(file, index=":")
    return frames


def independent_set(
    system: System, oracle: Oracle, labeller: Labeller, config: Config, progress: Progress
) -> list[tuple[System, Labels]]:
    """Frames of a trajectory driven by the oracle itself, so that no model under test has shaped them.

    The trajectory starts at the same structure with other velocities (100 K above, so that it covers more than the
    arms' own trajectories) and is saved in ``test.extxyz``.
    """
    file = config.out / "test.extxyz"
    task = progress.add_task("independent test set", total=config.test_frames)
    if not file.exists():
        atoms = system.to_ase()
        atoms.calc = _OracleCalculator(oracle)
        rng = np.random.default_rng(config.seed + 1)
        kelvin = config.temperature + 100.0
        MaxwellBoltzmannDistribution(atoms, temperature_K=kelvin, rng=rng)
        Stationary(atoms)
        dynamics = Langevin(atoms, units.fs, temperature_K=kelvin, friction=0.01 / units.fs, fixcm=False, rng=rng)
        frames = []
        for _ in range(config.test_frames):
            dynamics.run(_STRIDE)
            results = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
            frames.append(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc, calculator=results))
            progress.update(task, advance=1)
        with replace_on_success(file) as temporary:
            write(temporary, frames, format="extxyz")
    progress.update(task, completed=config.test_frames)
    return [(System.from_ase(atoms), Labels.from_ase(atoms)) for atoms in read_frames(file)]


def evaluate_all(
    experiment: Experiment,
    universal: Model,
    models: dict[str, list[Model]],
    test: list[tuple[System, Labels]],
    training: dict[str, list[System]],
    labeller: Labeller,
    progress: Progress,
) -> dict[str, Any]:
    """Errors of every model on the independent set, of final models on their own trajectories, and the charts."""
    final = {"zero-shot": universal, **{name: rounds[-1] for name, rounds in models.items()}}
    task = progress.add_task("own trajectories", total=len(final))
    own, errors = {}, []
    for name, model in final.items():
        own[name] = own_trajectory(experiment, name, model, labeller)
        errors.append(_row(experiment, name, model, "own trajectory", own[name]["labelled"]))
        progress.update(task, advance=1)
    independent = {"zero-shot": [universal], **models}
    task = progress.add_task("independent test", total=sum(map(len, independent.values())))
    for name, rounds in independent.items():
        for model in rounds:
            errors.append(_row(experiment, name, model, "independent", test))
            progress.update(task, advance=1)
    return {
        "errors": errors,
        "traces": {name: run["trace"] for name, run in own.items()},
        "charts": charts(experiment, universal, models, training, own),
    }


def _row(experiment: Experiment, arm: str, model: Model, test_set: str, frames: list[tuple[System, Labels]]) -> dict:
    dataset = Dataset.from_examples(Example(system, labels, {}) for system, labels in frames)
    batches = LabelledBatches.create(model.potential, dataset, len(dataset), dtype=experiment.config.dtype)
    params = tree.cast(model.params, experiment.config.dtype)
    report = error_report(dataset, predict(experiment.potential, params, batches))
    return {"arm": arm, "labels": model.labels, "test": test_set, **{key: report[key] for key in _KEYS}}


def own_trajectory(experiment: Experiment, name: str, model: Model, labeller: Labeller) -> dict[str, Any]:
    """Run MD with a model from the common start and label its frames.

    A run that leaves the limits is an outcome, not an error: its trace ends there (``stopped`` says why).
    """
    c = experiment.config
    folder = c.out / "own"
    folder.mkdir(exist_ok=True)
    trajectory, trace_file = folder / f"{name}.extxyz", folder / f"{name}.json"
    if not trace_file.exists():
        for stale in (trajectory, folder / f"{name}.npz"):
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
                experiment.potential,
                tree.cast(model.params, c.dtype),
                experiment.system,
                experiment.ensemble(),
                c.own_frames * c.steps,
                key=jax.random.key(c.seed + 2),
                trajectory=trajectory,
                frame_every=c.steps,
                on_chunk=record,
            )
        except md.SimulationStopped as stop:
            trace["stopped"] = str(stop)
        trace["timestep_fs"] = c.timestep
        write_atomic(trace_file, json.dumps(trace))
    frames = [System.from_ase(atoms) for atoms in read_frames(trajectory)] if trajectory.exists() else []
    if not frames:
        raise RuntimeError(f"{name}: the first frame of the own trajectory was not reached; see {trace_file}")
    outcomes = labeller.label(frames)
    labelled = [(f, o) for f, o in zip(frames, outcomes, strict=True) if not isinstance(o, Failure)]
    return {"trace": json.loads(trace_file.read_text()), "frames": frames, "labelled": labelled}


def charts(
    experiment: Experiment,
    universal: Model,
    models: dict[str, list[Model]],
    training: dict[str, list[System]],
    own: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """PCA map of the arms' training sets in the universal model's features, and Q of own trajectories.

    The map needs features that do not depend on the arm; the Q-residual of a model is taken in its own features,
    against a chart of its own training set, as one would use it to watch that model.
    """
    sets = {name: _mean_features(experiment, universal, frames) for name, frames in training.items()}
    everything = np.concatenate(list(sets.values()))
    center = everything.mean(axis=0)
    _, singular, axes = np.linalg.svd(everything - center, full_matrices=False)
    explained = (singular**2 / np.sum(singular**2))[:2].tolist()
    maps = {name: ((values - center) @ axes[:2].T).tolist() for name, values in sets.items()}
    q, limits = {}, {}
    for name, rounds in models.items():
        q[name], limits[name] = _q_over_time(experiment, rounds[-1], training[name], own[name]["frames"])
    return {"pca": maps, "explained": explained, "q": q, "q_training_99": limits}


def _features(experiment: Experiment, model: Model, frames: list[System]) -> Array:
    """Features of the last layer, (frames, N, F)."""
    potential = model.potential
    params = tree.cast(model.params, experiment.config.dtype)
    tables = [neighbor_table(frame, potential.cutoff) for frame in frames]
    slots = max(table.max_count for table in tables)

    last = potential.feature_slices[-1]
    n = frames[0].n_atoms
    dtype = np.dtype(experiment.config.dtype)
    graphs = [
        batch_graphs([f], potential.cutoff, n_atoms=n, n_neighbors=slots, tables=[t], dtype=dtype)
        for f, t in zip(frames, tables, strict=True)
    ]
    return jnp.stack([apply(experiment.potential, params, graph).features[:, last] for graph in graphs])


def _mean_features(experiment: Experiment, model: Model, frames: list[System]) -> np.ndarray:
    """One vector per frame: the mean feature of each element, side by side."""
    features = np.asarray(_features(experiment, model, frames), np.float64)
    numbers = np.asarray(experiment.system.atomic_numbers)
    return np.concatenate([features[:, numbers == z].mean(axis=1) for z in np.unique(numbers)], axis=1)


def _q_over_time(
    experiment: Experiment, model: Model, training: list[System], frames: list[System]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Mean Q of each element in each frame, and the 99th percentile of the same in the training set."""
    from ase.data import chemical_symbols

    numbers = np.asarray(experiment.system.atomic_numbers)
    elements, row = np.unique(numbers, return_inverse=True)
    seen = _features(experiment, model, training)
    flat = seen.reshape(-1, seen.shape[-1])
    rows = jnp.tile(jnp.asarray(row), len(training))
    chart = fit_charts(flat, rows, jnp.ones(len(flat), flat.dtype), len(elements), _COMPONENTS)

    def mean_q(features: Array) -> np.ndarray:
        q = np.stack([np.asarray(q_residual(chart, frame, jnp.asarray(row)), np.float64) for frame in features])
        return np.stack([q[:, row == k].mean(axis=1) for k in range(len(elements))])

    trained, visited = mean_q(seen), mean_q(_features(experiment, model, frames))
    symbols = [chemical_symbols[z] for z in elements]
    return (
        {symbol: visited[k].tolist() for k, symbol in enumerate(symbols)},
        {symbol: float(np.quantile(trained[k], 0.99)) for k, symbol in enumerate(symbols)},
    )
