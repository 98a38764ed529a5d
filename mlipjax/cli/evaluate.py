"""``mlipjax evaluate``: errors of a model on labelled structures."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlipjax import runtime
from mlipjax.cli.error_tables import element_table, error_table
from mlipjax.cli.heads import load_head
from mlipjax.cli.options.evaluate import Evaluate
from mlipjax.cli.options.labels import plain_paths, set_name
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.data import Dataset
from mlipjax.data.write import check_name, write_atoms
from mlipjax.graph import coincidences
from mlipjax.models.foreign import is_foreign
from mlipjax.probes.evaluator import load_evaluator
from mlipjax.system import System
from mlipjax.train import error_report
from mlipjax.train.evaluate import predict_dataset
from mlipjax.train.parity import parity_points
from mlipjax.train.predict import StructurePrediction
from mlipjax.verbs.beside import beside_labels

_NAMED = 5
"""Structures without an energy that are named one by one."""


def run(command: Evaluate) -> None:
    """Evaluate and print.

    Raises:
        ValueError, FileNotFoundError: if model or data cannot be used.
    """
    if bool(command.data) == (command.property is not None):
        raise ValueError(
            "give either --data FILE (energies and forces) or --property FILE:KEY (a number per structure)."
        )
    runtime.select_dtype(command.dtype)
    if command.property is not None:
        from mlipjax.cli.properties import evaluate_property

        if command.head is not None:
            raise ValueError(f"--head {command.head} chooses an energy head; a --property has a head of its own.")
        if command.write is not None or command.out is not None:
            raise ValueError("--write and --out are for --data, not for --property.")
        sizes = command.batch_size, command.max_slots
        report = evaluate_property(command.model, command.property, command.dtype, *sizes, make_console())
        write_json(command.json, {**report, "model": command.model, "data": command.property})
        return
    _evaluate(command)


def _evaluate(command: Evaluate) -> None:
    if command.write is not None:
        check_name(command.write)
    data = command.data
    dataset = command.labels.read(data, required=())
    if not any(dataset.count_labels().values()):
        raise ValueError(
            f"{set_name(data)}: no structure has an energy, forces or a stress to compare with; mlipjax predict needs "
            "no labels."
        )
    if broken := coincidences(dataset.systems):
        dataset = dataset.subset([index for index in range(len(dataset)) if index not in broken])
    if len(dataset):
        _compare(command, dataset, broken)
    if broken:
        named = "; ".join(f"structure {index}: {why}" for index, why in list(broken.items())[:_NAMED])
        more = f" ({len(broken) - _NAMED} more)" if len(broken) > _NAMED else ""
        raise ValueError(
            f"{set_name(data)}: {len(broken)} of its structures have no energy and were left out: {named}{more}"
        )


def _compare(command: Evaluate, dataset: Dataset, broken: Mapping[int, str]) -> None:
    console, name = make_console(), set_name(command.data)
    with Working(console, f"predicting {len(dataset)} structures of {name}"):
        dtype, found, zero = _predict(command, dataset)
        report = {**error_report(dataset, found), "dtype": dtype}
    console.print(error_table({name: report}), element_table(report))
    if apart := report["force_slope_apart"]:
        named = ", ".join(map(str, apart[:8])) + (", ..." if len(apart) > 8 else "")
        console.print(
            f"forces of {len(apart)} of {report['n_force_frames']} structures have a slope of their own (structures "
            f"{named}); without them the slope is {report['force_slope_bulk']:.3f}",
        )
    if command.write is not None:
        write_atoms(command.write, beside_labels(dataset, found, command.model))
        console.print(f"labels, predictions and errors: {command.write}")
    if command.out is not None:
        _report(command, report, parity_points(dataset, found, zero))
        console.print(f"figures: {command.out / 'report.html'}")
    left_out = {"left_out": dict(broken)} if broken else {}
    told = {"model": command.model, "head": command.head, "data": plain_paths(command.data)}
    write_json(command.json, {**report, **left_out, **told})


def _predict(
    command: Evaluate, dataset: Dataset
) -> tuple[str, Sequence[StructurePrediction], Callable[[System], float]]:
    """Precision, predictions, and the energies of isolated atoms that figures leave out."""
    if is_foreign(command.model):
        if command.head is not None:
            raise ValueError(
                f"--head {command.head}: {command.model} is a foreign calculator, which has no heads here."
            )
        return "float64", _foreign_predictions(command.model, dataset), lambda system: 0.0
    potential, params = load_head(command.model, command.head)
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


def _report(command: Evaluate, report: dict[str, Any], points: dict[str, np.ndarray]) -> None:
    from mlipjax.report.training import write_evaluation_report

    folder: Path = command.out  # pyright: ignore[reportAssignmentType]
    shown = {name: {"reference": pair[0], command.model: pair[1]} for name, pair in points.items()}
    full = {**report, "versions": runtime.versions()}
    given = " ".join(["mlipjax", *sys.argv[1:]])
    write_evaluation_report(folder, full, shown, model=command.model, data=set_name(command.data), command=given)
    write_json(folder / "results.json", {**report, "model": command.model, "data": plain_paths(command.data)})
