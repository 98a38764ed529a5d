"""``mlipjax evaluate``: errors of a model on labelled structures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.output import write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.error_tables import element_table, error_table
from mlipjax.data import Dataset, read_dataset
from mlipjax.data.write import check_name, write_atoms
from mlipjax.models import load
from mlipjax.models.foreign import is_foreign
from mlipjax.probes.evaluator import load_evaluator
from mlipjax.system import System
from mlipjax.train import MAX_SLOTS, error_report
from mlipjax.train.evaluate import predict_dataset
from mlipjax.train.parity import parity_points
from mlipjax.train.predict import StructurePrediction
from mlipjax.verbs.beside import beside_labels


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Compare a model's energies, forces and stresses with labels.

    Attributes:
        model: name, .nqx file or saved folder; ase:module:factory for a foreign calculator.
        data: labelled structures (extended xyz, OUTCAR, vasprun.xml, ASE database or whatever else ASE reads; or a
            folder of mlipjax convert --data).
        property: structures and a number for each instead, as FILE:KEY, for a model that predicts it.
        dtype: precision of the network.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; lower it if memory runs out.
        write: also write every structure with labels, predictions and errors to this file (extended xyz).
        out: also write report.html with parity plots, and results.json, to this folder.
        json: also write the report to this file.
    """

    model: str
    data: Path | None = None
    property: str | None = None
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 8
    max_slots: int = MAX_SLOTS
    write: Path | None = None
    out: Path | None = None
    json: Path | None = None


def run(command: Evaluate) -> None:
    """Evaluate and print.

    Raises:
        ValueError, FileNotFoundError: if model or data cannot be used.
    """
    if (command.data is None) == (command.property is None):
        raise ValueError(
            "give either --data FILE (energies and forces) or --property FILE:KEY (a number per structure)."
        )
    runtime.select_dtype(command.dtype)
    if command.property is not None:
        from mlipjax.cli.properties import evaluate_property

        if command.write is not None or command.out is not None:
            raise ValueError("--write and --out are for --data, not for --property.")
        sizes = command.batch_size, command.max_slots
        report = evaluate_property(command.model, command.property, command.dtype, *sizes, Console())
        write_json(command.json, {**report, "model": command.model, "data": command.property})
        return
    _evaluate(command, command.data)  # pyright: ignore[reportArgumentType]


def _evaluate(command: Evaluate, data: Path) -> None:
    if command.write is not None:
        check_name(command.write)
    dataset = read_dataset(data, required=())
    if not any(dataset.count_labels().values()):
        raise ValueError(
            f"{data}: no structure has an energy, forces or a stress to compare with; mlipjax predict needs no labels."
        )
    console = Console()
    with Working(console, f"predicting {len(dataset)} structures of {data.name}"):
        dtype, found, zero = _predict(command, dataset)
        report = {**error_report(dataset, found), "dtype": dtype}
    console.print(error_table({data.name: report}), element_table(report))
    if command.write is not None:
        write_atoms(command.write, beside_labels(dataset, found, command.model))
        console.print(f"labels, predictions and errors: {command.write}", soft_wrap=True, markup=False)
    if command.out is not None:
        _report(command, data, report, parity_points(dataset, found, zero))
        console.print(f"figures: {command.out / 'report.html'}", soft_wrap=True, markup=False)
    write_json(command.json, {**report, "model": command.model, "data": data})


def _predict(
    command: Evaluate, dataset: Dataset
) -> tuple[str, Sequence[StructurePrediction], Callable[[System], float]]:
    """Precision, predictions, and the energies of isolated atoms that figures leave out."""
    if is_foreign(command.model):
        return "float64", _foreign_predictions(command.model, dataset), lambda system: 0.0
    potential, params = load(command.model)
    options: Any = {"batch_size": command.batch_size, "max_slots": command.max_slots}
    found = predict_dataset(potential, params, dataset, dtype=command.dtype, **options)
    return command.dtype, found, lambda system: potential.reference_energy(system.atomic_numbers)


def _foreign_predictions(model: str, dataset: Dataset) -> list[StructurePrediction]:
    """Those of a foreign calculator; its stresses count only if it gives them for every labelled structure.

    Raises:
        ValueError: if the data have stress labels and the calculator gives no stress.
    """
    results = load_evaluator(model)(dataset.systems)
    for index, (result, labels) in enumerate(zip(results, dataset.labels, strict=True)):
        if result.stress is None and labels.stress_weight > 0:
            raise ValueError(f"structure {index} has a stress label, but {model} gives no stress for it.")
    none = np.zeros((3, 3))  # where there is no label to compare it with
    return [StructurePrediction(r.energy, r.forces, none if r.stress is None else r.stress) for r in results]


def _report(command: Evaluate, data: Path, report: dict[str, Any], points: dict[str, np.ndarray]) -> None:
    from mlipjax.report.training import write_evaluation_report

    folder: Path = command.out  # pyright: ignore[reportAssignmentType]
    shown = {name: {"reference": pair[0], command.model: pair[1]} for name, pair in points.items()}
    full = {**report, "versions": runtime.versions()}
    given = " ".join(["mlipjax", *sys.argv[1:]])
    write_evaluation_report(folder, full, shown, model=command.model, data=str(data), command=given)
    write_json(folder / "results.json", {**report, "model": command.model, "data": data})
