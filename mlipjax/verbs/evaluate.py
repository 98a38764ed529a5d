"""Errors of a model on labelled structures, or of its property on structures with a number each."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

from mlipjax import runtime, tree
from mlipjax.data import Dataset
from mlipjax.data.products import products_in
from mlipjax.data.properties import open_properties, parse_property, targets
from mlipjax.data.write import check_name, write_atoms
from mlipjax.defaults import Precision
from mlipjax.doctor import suspect_labels
from mlipjax.graph import coincidences
from mlipjax.hosts import is_first, refuse_several
from mlipjax.monitoring import Monitor
from mlipjax.notices import notice
from mlipjax.potential import Model
from mlipjax.probes.evaluator import AseEvaluator
from mlipjax.system import System, with_results
from mlipjax.train.batches import StructurePrediction, predict_property, property_batches
from mlipjax.train.evaluate import predict_dataset
from mlipjax.train.metrics import error_report, force_errors, parity_points, property_report
from mlipjax.train.products import add_products, product_errors
from mlipjax.uncertainty import Computed, Spread
from mlipjax.verbs.dispersion import open_dispersion, say_level, with_dispersion
from mlipjax.verbs.error_bars import ErrorBars, Uncertainty, put_spread
from mlipjax.verbs.inputs import (
    ForeignModel,
    ModelLike,
    NativeModel,
    Structures,
    in_dtype,
    is_nothing,
    name_of,
    open_model,
    open_native,
    told_paths,
)
from mlipjax.verbs.read import LabelNames, read

_NAMED = 5
"""Structures without an energy that are named one by one."""


def evaluate(
    model: ModelLike,
    data: Structures = (),
    *,
    property: str | None = None,
    head: str | None = None,
    dtype: str = "float32",
    precision: Precision = "highest",
    batch_size: int = 8,
    max_slots: int | None = None,
    uncertainty: Uncertainty | None = None,
    monitor: str | os.PathLike[str] | Monitor | None = None,
    dispersion: str | None = None,
    write: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] | None = None,
    **labels: Unpack[LabelNames],
) -> dict[str, Any]:
    """Compare a model's energies, forces and stresses with labels.

    Args:
        model: what ``mlipjax.load`` takes or returns, or ``ase:module:factory``.
        data: labelled structures: what ``mlipjax.read`` takes or returns.
        property: structures and a number for each instead, as FILE:KEY, for a model that predicts it.
        head: name of the energy head; by default the first.
        dtype: precision of the network, "float32" or "float64"; energies and statistics are float64 in both.
        precision: of the network's products (``mlipjax.precision``): "highest", "high" or "default".
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
        uncertainty: also compare error bars with errors: "llpr", "shallow", "shallow:MEMBERS" or "committee" of a model
            that ``mlipjax.calibrate`` has given them, or an estimator.
        monitor: charts of the model (a ``Monitor`` or monitor.npz), to compare them with error bars.
        dispersion: added to the model, as d3bj:FUNCTIONAL (``mlipjax.dispersion``); refused where the labels of a
            published model contain it already.
        write: also write every structure with labels, predictions and errors to this file (extended xyz).
        out: also write report.html with parity plots, and results.json, to this folder.
        labels: names and units of the labels in files, as for ``mlipjax.read``.

    Returns:
        Errors with 95 % intervals, JSON types (``train.metrics.error_report``). Structures in which atoms coincide
        have no energy; they are left out, and are the ``left_out`` of the report: number and reason.

    Raises:
        ValueError, FileNotFoundError: if model or data cannot be used.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> labelled = mlipjax.predict("universal", [molecule("H2O"), molecule("CH4")])
        >>> mlipjax.evaluate("universal", labelled)["force_mae_meV_per_A"] < 0.01
        True
    """
    if is_nothing(data) == (property is None):
        raise ValueError(
            'give either data="FILE" (energies and forces) or property="FILE:KEY" (a number per structure).'
        )
    if property is not None:
        _refuse_beside_property(head, write or out or dispersion)
        return _property_errors(open_native(model, None, precision), property, dtype, batch_size, max_slots)
    if write is not None:
        check_name(write)
    dataset, name = _labelled(data, **labels), name_of(data)
    opened = open_model(model, head, precision)
    more = open_dispersion(dispersion, opened)
    bars = ErrorBars.open(model, opened, uncertainty, monitor)
    if isinstance(opened, NativeModel):
        dataset.check_elements(opened.potential.check_elements)
    say_level(opened.name, dataset)
    left_out = _without_energy(dataset, name)
    kept = [index for index in range(len(dataset)) if index not in left_out]
    dataset = dataset.subset(kept) if left_out else dataset
    dtype, found, zero = _predictions(opened, dataset, dtype, batch_size, max_slots)
    found = with_dispersion(found, dataset.systems, more)
    for finding in suspect_labels(name, dataset, found):
        warnings.warn(str(finding), stacklevel=2)
    report: dict[str, Any] = {**error_report(dataset, found), "dtype": dtype}
    report |= {"left_out": left_out} if left_out else {}
    if isinstance(opened, NativeModel) and more is None:
        report = _beside_products(report, opened.first, dataset, dtype, max_slots)
    report["force_slope_apart"] = [kept[place] for place in report["force_slope_apart"]]
    spreads = None
    if bars is not None:
        with in_dtype(dtype):
            spreads, report["uncertainty"] = bars.judge(dataset, found, Computed(0, dtype, batch_size, max_slots))
    if write is not None and is_first():
        write_atoms(write, beside_labels(dataset, found, opened.name, spreads))
    if out is not None and is_first():
        told = {**report, "model": opened.name, "data": told_paths(data)}
        _illustrate(Path(out), told, parity_points(dataset, found, zero), name, force_errors(dataset, found))
    return report


def _labelled(data: Structures, **labels: Unpack[LabelNames]) -> Dataset:
    dataset = read(data, **labels)
    if not any(dataset.count_labels().values()) and not len(products_in(dataset)):
        raise ValueError(
            f"{name_of(data)}: no structure has an energy, forces or a stress to compare with; to predict, none is "
            "needed."
        )
    return dataset


def _refuse_beside_property(head: str | None, others: Any) -> None:
    if head is not None:
        raise ValueError(f"head={head!r} chooses an energy head; a property has a head of its own.")
    if others is not None:
        raise ValueError("predictions, figures and dispersion are of energies and forces (data), not of a property.")


def _beside_products(
    report: dict[str, Any], model: Model, dataset: Dataset, dtype: str, max_slots: int | None
) -> dict[str, Any]:
    """The report with errors of Hessian products, if structures have any; they hold no dispersion."""
    if not len(products := products_in(dataset)):
        return report
    with in_dtype(dtype):
        return add_products(report, product_errors(model, products, dtype=dtype, max_slots=max_slots))


def _without_energy(dataset: Dataset, name: str) -> dict[int, str]:
    """Say why some structures, by their numbers, have no energy, and that they are left out."""
    broken = coincidences(dataset.systems)
    if not broken:
        return {}
    named = "; ".join(f"{dataset.where(index)}: {why}" for index, why in list(broken.items())[:_NAMED])
    more = f" ({len(broken) - _NAMED} more)" if len(broken) > _NAMED else ""
    message = f"{name}: {len(broken)} of its structures have no energy and were left out: {named}{more}"
    if len(broken) == len(dataset):
        raise ValueError(message)
    notice(message)
    return broken


def _predictions(
    opened: NativeModel | ForeignModel, dataset: Dataset, dtype: str, batch_size: int, max_slots: int | None
) -> tuple[str, Sequence[StructurePrediction], Callable[[System], float]]:
    """Precision, predictions, and the energies of isolated atoms that figures leave out."""
    if isinstance(opened, ForeignModel):
        return "float64", _foreign_predictions(opened, dataset), lambda system: 0.0
    potential, _ = first = opened.first
    with in_dtype(dtype):
        found = predict_dataset(first, dataset, dtype=dtype, batch_size=batch_size, max_slots=max_slots)
    return dtype, found, lambda system: potential.reference_energy(system.atomic_numbers)


def _foreign_predictions(model: ForeignModel, dataset: Dataset) -> list[StructurePrediction]:
    """Those of a foreign calculator; its stresses count only if it gives them for every labelled structure.

    Raises:
        ValueError: if the data have stress labels and the calculator gives no stress.
    """
    refuse_several("a foreign calculator")
    results = AseEvaluator(model.calculator)(dataset.systems)
    for index, (result, labels) in enumerate(zip(results, dataset.labels, strict=True)):
        if result.stress is None and labels.stress_weight > 0:
            raise ValueError(f"structure {index} has a stress label, but {model.name} gives no stress for it.")
    none = np.zeros((3, 3))  # where there is no label to compare it with
    return [StructurePrediction(r.energy, r.forces, none if r.stress is None else r.stress) for r in results]


def _property_errors(
    opened: NativeModel, given: str, dtype: str, batch_size: int, max_slots: int | None
) -> dict[str, Any]:
    refuse_several("the evaluation of a property")
    file, key = parse_property(given)
    unit = opened.potential.property_head(key).unit
    data = open_properties(file, key)
    with in_dtype(dtype):
        batches = property_batches(opened.potential, data, batch_size, dtype=dtype, max_slots=max_slots)
        found = predict_property(opened.potential, tree.cast(opened.params, dtype), batches, key)
    return {**property_report(targets(data, key), found), "property": key, "unit": unit, "dtype": dtype}


def _illustrate(
    folder: Path,
    report: Mapping[str, Any],
    points: Mapping[str, np.ndarray],
    data: str,
    apart: Sequence[tuple[Atoms, np.ndarray]],
) -> None:
    from mlipjax.report.training import write_evaluation_report

    model = report["model"]
    shown = {name: {"reference": pair[0], model: pair[1]} for name, pair in points.items()}
    full = {**report, "versions": runtime.versions()}
    line = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    write_evaluation_report(folder, full, shown, model=model, data=data, command=line, apart=apart)
    runtime.write_results(folder / "results.json", report)


def beside_labels(
    dataset: Dataset,
    predictions: Sequence[StructurePrediction],
    model: str,
    spreads: Sequence[Spread] | None = None,
) -> Iterator[Atoms]:
    """Yield every structure with predictions as its results, and labels and errors beside them.

    Results are ``energy`` (eV), ``forces`` (eV/Å) and, of periodic structures, ``stress`` (eV/Å^3). As far as there are
    labels, ``info`` has ``reference_energy``, ``reference_stress`` (3, 3), ``energy_error_meV_per_atom``,
    ``force_mae_meV_per_A``, ``force_largest_error_meV_per_A`` (norm, of one atom), ``stress_mae_meV_per_A3`` and the
    ``model``; the array ``reference_forces`` holds the labels of forces. What the file said besides stays in ``info``.

    Args:
        dataset: structures and labels.
        predictions: of a model, in the same order.
        model: its name.
        spreads: standard deviations, as ``predict`` gives them.
    """
    for index, ((system, labels, info), found) in enumerate(zip(dataset, predictions, strict=True)):
        atoms = system.to_ase()
        atoms.info = {**info, "model": model}
        results: dict[str, Any] = {"energy": found.energy, "forces": np.asarray(found.forces)}
        if any(system.pbc) and atoms.cell.rank == 3:
            results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
        with_results(atoms, **results)
        if spreads is not None:
            put_spread(atoms, spreads[index])
        if labels.energy_weight > 0:
            error = found.energy - float(labels.energy)
            atoms.info["reference_energy"] = float(labels.energy)
            atoms.info["energy_error_meV_per_atom"] = 1e3 * error / len(atoms)
        if labels.forces_weight > 0:
            reference = np.asarray(labels.forces, np.float64)
            atoms.arrays["reference_forces"] = reference
            atoms.info["force_mae_meV_per_A"] = 1e3 * float(np.abs(found.forces - reference).mean())
            worst = np.linalg.norm(found.forces - reference, axis=1).max()
            atoms.info["force_largest_error_meV_per_A"] = 1e3 * float(worst)
        if labels.stress_weight > 0:
            reference = np.asarray(labels.stress, np.float64)
            atoms.info["reference_stress"] = reference
            atoms.info["stress_mae_meV_per_A3"] = 1e3 * float(np.abs(found.stress - reference).mean())
        yield atoms
