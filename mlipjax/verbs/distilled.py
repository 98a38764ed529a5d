"""Tests of a student beside its teacher: errors, speed, dynamics of its own, and what both say of a crystal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.data import Dataset, Example, read_atoms
from mlipjax.md import SimulationStopped, default_timestep, masses_of
from mlipjax.notices import notice
from mlipjax.oracles import Failure, Labeller
from mlipjax.potential import Model
from mlipjax.probes import AseEvaluator, Evaluator, NativeEvaluator, elastic_constants, phonons
from mlipjax.system import System
from mlipjax.train.batches import StructurePrediction
from mlipjax.train.evaluate import predict_dataset
from mlipjax.train.metrics import error_report
from mlipjax.verbs.inputs import ForeignModel, NativeModel, Structures, in_dtype, last_of
from mlipjax.verbs.neb import neb
from mlipjax.verbs.relax import relax
from mlipjax.verbs.simulate import simulate

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
