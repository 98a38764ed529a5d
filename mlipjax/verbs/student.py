"""Students: potentials made for the elements of labels, and tested beside their teacher."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset, Example, read_atoms
from mlipjax.graph import neighbor_table
from mlipjax.md import SimulationStopped, default_timestep, masses_of
from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.notices import notice
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Model
from mlipjax.probes import AseEvaluator, Evaluator, NativeEvaluator, elastic_constants, phonons
from mlipjax.reading import read_json
from mlipjax.system import System
from mlipjax.train.batches import StructurePrediction
from mlipjax.train.evaluate import predict_dataset
from mlipjax.train.metrics import error_report
from mlipjax.verbs.inputs import ForeignModel, NativeModel, Structures, in_dtype, last_of, open_native
from mlipjax.verbs.neb import neb
from mlipjax.verbs.relax import relax
from mlipjax.verbs.simulate import simulate

SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_irreps": "32x0e + 16x1o + 8x2e", "n_layers": 3, "cutoff": 4.5},
    "medium": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "n_layers": 3, "cutoff": 5.0},
}
"""Settings of NequIP (``models.NequIPConfig``) by name. "small" is the size of the embedded model."""
_SAMPLE = 64
"""Structures of which neighbours and forces are averaged."""


def make_student(student: str | os.PathLike[str], train: Dataset, e0s: Mapping[int, float], seed: int) -> Model:
    """Build a potential with fresh parameters, or open one.

    Messages are divided by the root of the number of neighbours in the data and energies scaled by the root of the mean
    square of forces, so that a fresh network gives numbers of the right size (Batzner et al., Nat. Commun. 13, 2453
    (2022)).

    Args:
        student: a key of ``SIZES``; a JSON file of settings, of NequIP or, with ``"architecture": "mace"``, of MACE; or
            a model.
        train: labelled structures.
        e0s: eV, by atomic number, from which energies are counted.
        seed: of parameters.

    Raises:
        ValueError, FileNotFoundError: if it cannot be read, or does not know an element.
    """
    given = SIZES.get(os.fspath(student))
    if given is None and Path(student).suffix != ".json":
        model = open_native(student).first
        train.check_elements(model.potential.check_elements)
        return model
    settings = read_json(Path(student)) if given is None else dict(given)
    if not isinstance(settings, dict):
        raise ValueError(f"{student}: expected settings by name, such as {json.dumps(SIZES['small'])}.")
    architecture = settings.pop("architecture", "nequip")
    settings = {"cutoff": 5.0, "scale": _force_scale(train), "species": list(train.elements), **settings}
    settings.setdefault("avg_n_neighbors", _neighbors(train, settings["cutoff"]))
    description = {"format": 1, "architecture": architecture, "config": settings}
    heads = settings.get("heads", ["energy"])
    try:
        potential = potential_from_config(
            {**description, "e0s": {head: [float(e0s.get(z, 0.0)) for z in train.elements] for head in heads}}
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"student {student}: {error}") from None
    return Model(potential, jax.device_get(potential.init(jax.random.key(seed))))


def describe_student(student: str | os.PathLike[str]) -> Any:
    """What decides a student, in JSON types: its settings, or its architecture and a fingerprint of its parameters."""
    from mlipjax.finetuning.folder import hash_model

    if os.fspath(student) in SIZES:
        return os.fspath(student)
    if Path(student).suffix == ".json":
        return read_json(Path(student))
    model = open_native(student).first
    return {"model_sha256": hash_model(model), "architecture": potential_to_config(model.potential)["architecture"]}


def _force_scale(train: Dataset) -> float:
    forces = np.concatenate([np.asarray(labels.forces) for labels in train.labels[:_SAMPLE]])
    return float(np.sqrt(np.mean(forces**2))) or 1.0


def _neighbors(train: Dataset, cutoff: float) -> float:
    tables = [neighbor_table(system, cutoff) for system in train.systems[:_SAMPLE]]
    return max(sum(table.n_edges for table in tables) / sum(table.n_atoms for table in tables), 1.0)


FACTORS = (1.0, 1.5, 2.0)
"""Temperatures of the test over the first one of the sampling: of use, of the training, and beyond it."""
_SPEED_STEPS, _SPEED_RUNS = 60, 3
"""Steps of a run, and runs of each model: other programs make a run slower, never faster."""
_FRAMES = 20
"""Of each run that are compared with the teacher: enough that the error of the mean is no news."""


@dataclasses.dataclass(frozen=True)
class Pair:
    """A student and its teacher.

    Attributes:
        student: what was trained.
        teacher: what labelled.
        dtype: of both in every test but probes, which need float64.
        seed: of velocities and noise.
    """

    student: Model
    teacher: NativeModel | ForeignModel
    dtype: str
    seed: int

    def errors(self, dataset: Dataset) -> tuple[dict[str, Any], Sequence[StructurePrediction]]:
        """Errors of the student on labels of the teacher, and its predictions."""
        with in_dtype(self.dtype):
            found = predict_dataset(self.student, dataset, dtype=self.dtype)
        return error_report(dataset, found), found

    def speed(self, system: System) -> dict[str, Any] | None:
        """Time of a step of dynamics of both, in turn, the least of each; a foreign calculator has none here."""
        if isinstance(self.teacher, ForeignModel):
            return None
        options: dict[str, Any] = {"steps": _SPEED_STEPS, "every": _SPEED_STEPS, "velocities": "draw"}
        options |= {"temperature": 300.0, "dtype": self.dtype, "seed": self.seed, "hottest": 1e6, "closest": 0.0}
        found = {"teacher": math.inf, "student": math.inf}
        for _ in range(_SPEED_RUNS):
            for name, model in (("teacher", self.teacher), ("student", self.student)):
                report = simulate(model, system.to_ase(), "nvt", **options).report
                found[name] = min(found[name], report["microseconds_per_atom_step"])
        ratio = found["teacher"] / found["student"]
        return {"n_atoms": system.n_atoms, "microseconds_per_atom_step": found, "ratio": ratio}

    def dynamics(self, system: System, kelvin: float, ps: float, folder: Path, labeller: Labeller) -> dict[str, Any]:
        """Dynamics of the student, and its errors against the teacher on structures that it came to itself."""
        step = default_timestep(system.atomic_numbers, masses_of(system))
        steps = max(_FRAMES, round(1e3 * ps / step))
        file, every = folder / f"{kelvin:g}K.extxyz", steps // _FRAMES
        options: dict[str, Any] = {"temperature": kelvin, "seed": self.seed, "dtype": self.dtype, "velocities": "draw"}
        found: dict[str, Any] = {"temperature_K": kelvin, "ps": 1e-3 * step * steps, "stopped": None}
        try:
            run = simulate(self.student, system.to_ase(), "nvt", steps=steps, every=every, write=file, **options)
            found["mean_temperature_K"] = run.report["temperature_mean_K"][0]
        except SimulationStopped as stopped:
            found |= {"stopped": str(stopped), "ps": 1e-3 * step * stopped.step}
        frames = [System.from_ase(atoms) for atoms in read_atoms(file)] if file.is_file() else []
        labels = labeller.label(frames) if frames else []
        pairs = zip(frames, labels, strict=True)
        dataset = Dataset.from_examples(Example(s, label, {}) for s, label in pairs if not isinstance(label, Failure))
        return found | {"n_frames": len(dataset), "errors": self.errors(dataset)[0] if len(dataset) else None}

    def crystal(self, structure: Structures) -> dict[str, dict[str, Any]]:
        """Lattice, elastic constants and phonons, each model's at its own lattice."""
        atoms = last_of(structure)
        return {name: _crystal(model, atoms) for name, model in self._both()}

    def barrier(self, images: Structures) -> dict[str, dict[str, Any]]:
        """Barriers of a path, its ends relaxed by each model."""
        found = {}
        for name, model in self._both():
            if isinstance(model, ForeignModel):
                notice(f"{model.name} is a foreign calculator, of which no barrier is computed.")
            else:
                band = neb(model, images)
                found[name] = {"barrier_eV": band.barrier_eV, "converged": bool(band.converged)}
        return found

    def _both(self) -> tuple[tuple[str, NativeModel | ForeignModel], ...]:
        return ("teacher", self.teacher), ("student", NativeModel("student", *self.student, 0))


def _crystal(model: NativeModel | ForeignModel, atoms: Any) -> dict[str, Any]:
    at_rest = relax(model, atoms, cell="full", fmax=1e-3, dtype="float64")
    system, lengths = System.from_ase(at_rest.atoms), at_rest.atoms.cell.lengths()
    found: dict[str, Any] = {
        "relaxed": bool(at_rest.converged),
        "a, b, c (Å)": lengths.tolist(),
        "volume (Å³/atom)": at_rest.atoms.cell.volume / len(atoms),
    }
    with in_dtype("float64"):
        evaluate: Evaluator
        evaluate = AseEvaluator(model.calculator) if isinstance(model, ForeignModel) else NativeEvaluator(model.first)
        for name, probe in (("elastic constants", _elastic), ("phonons", _phonons)):
            try:
                found |= probe(evaluate, system)
            except ValueError as error:
                notice(f"{name} of {model.name}: {error}")
    return found


def _elastic(evaluate: Evaluator, system: System) -> dict[str, Any]:
    result = elastic_constants(evaluate, system)
    c = result.best_GPa
    return {
        "C11, C22, C33 (GPa)": np.diag(c)[:3].tolist(),
        "C12, C13, C23 (GPa)": [c[0, 1], c[0, 2], c[1, 2]],
        "C44, C55, C66 (GPa)": np.diag(c)[3:].tolist(),
        "bulk modulus (GPa)": result.bulk_modulus_GPa,
    }


def _phonons(evaluate: Evaluator, system: System) -> dict[str, Any]:
    result = phonons(evaluate, system)
    return {
        "highest phonon (THz)": float(result.mesh_THz.max()),
        "mean phonon (THz)": float(result.mesh_THz.mean()),
        "imaginary modes": result.n_imaginary,
    }
