"""Tests of ``experiments.periodic``: the independent set, own trajectories, charts of what the models saw."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import chemical_symbols
from ase.io import write
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from rich.progress import Progress

from experiments.lab.charts import Chart, features_of, mean_features, principal_map
from experiments.periodic.config import Config
from experiments.periodic.experiment import Experiment, Seen
from mlipjax import md
from mlipjax.data import Dataset, Example, read_atoms
from mlipjax.files import replace_on_success, write_atomic
from mlipjax.oracles import Failure, Labeller, Oracle
from mlipjax.system import Labels, System
from mlipjax.train import evaluate

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
    return [(System.from_ase(atoms), Labels.from_ase(atoms)) for atoms in read_atoms(file)]


def evaluate_all(
    experiment: Experiment,
    universal: Seen,
    models: dict[str, list[Seen]],
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


def _row(experiment: Experiment, arm: str, model: Seen, test_set: str, frames: list[tuple[System, Labels]]) -> dict:
    dataset = Dataset.from_examples(Example(system, labels, {}) for system, labels in frames)
    report = evaluate(model.model, dataset, dtype=experiment.config.dtype)
    return {"arm": arm, "labels": model.labels, "test": test_set, **{key: report[key] for key in _KEYS}}


def own_trajectory(experiment: Experiment, name: str, model: Seen, labeller: Labeller) -> dict[str, Any]:
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
        reference = model.model.potential.reference_energy(np.asarray(experiment.system.atomic_numbers))

        def record(state: Any, info: Any) -> None:
            done = int(info.n_done[0])
            trace["temperature_K"] += np.asarray(info.trace.temperature[0], float)[:done].tolist()
            energy = np.asarray(info.trace.potential_energy[0], float)[:done] + reference
            trace["energy_eV_per_atom"] += (energy / experiment.system.n_atoms).tolist()

        try:
            md.run(
                model.model.cast(c.dtype),
                md.Start(experiment.system),
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
    frames = [System.from_ase(atoms) for atoms in read_atoms(trajectory)] if trajectory.exists() else []
    if not frames:
        raise RuntimeError(f"{name}: the first frame of the own trajectory was not reached; see {trace_file}")
    outcomes = labeller.label(frames)
    labelled = [(f, o) for f, o in zip(frames, outcomes, strict=True) if not isinstance(o, Failure)]
    return {"trace": json.loads(trace_file.read_text()), "frames": frames, "labelled": labelled}


def charts(
    experiment: Experiment,
    universal: Seen,
    models: dict[str, list[Seen]],
    training: dict[str, list[System]],
    own: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """PCA map of the arms' training sets in the universal model's features, and Q of own trajectories.

    The map needs features that do not depend on the arm; the Q-residual of a model is taken in its own features,
    against a chart of its own training set, as one would use it to watch that model.
    """

    def features(model: Seen, frames: list[System]) -> np.ndarray:
        return features_of(model.model, frames, experiment.config.dtype)

    sets = {name: mean_features(features(universal, frames), frames) for name, frames in training.items()}
    maps, explained = principal_map(sets)
    q, limits = {}, {}
    for name, rounds in models.items():
        seen, frames = features(rounds[-1], training[name]), own[name]["frames"]
        chart = Chart.fit(seen, training[name])
        visited = chart.read(features(rounds[-1], frames), frames)
        q[name] = {chemical_symbols[z]: values.tolist() for z, values in visited.items()}
        trained = chart.read(seen, training[name])
        limits[name] = {chemical_symbols[z]: float(np.quantile(values, 0.99)) for z, values in trained.items()}
    pca = {name: values.tolist() for name, values in maps.items()}
    return {"pca": pca, "explained": explained, "q": q, "q_training_99": limits}
