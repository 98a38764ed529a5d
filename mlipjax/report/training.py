"""The report of one fine-tune (to a property, too) or evaluation: what was done, how good it is, what to do next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure

from mlipjax.report.curves import interactive_curves
from mlipjax.report.errors import parity, training_history
from mlipjax.report.html import Illustration, Interactive, Table, write_report
from mlipjax.report.structures import outstanding
from mlipjax.report.style import arm_styles, new_figure, rounded, styled

QUANTITIES = {
    "energy": ("energy per atom", "eV/atom"),
    "forces": ("force component", "eV/Å"),
    "stress": ("stress component", "eV/Å³"),
}
_ERRORS = (
    ("energy: mean error (meV/atom)", "energy_mean_meV_per_atom"),
    ("energy: std without mean (meV/atom)", "energy_std_meV_per_atom"),
    ("energy: RMSE (meV/atom)", "energy_rmse_meV_per_atom"),
    ("energy: MAE (meV/atom)", "energy_mae_meV_per_atom"),
    ("forces: MAE (meV/Å)", "force_mae_meV_per_A"),
    ("forces: RMSE (meV/Å)", "force_rmse_meV_per_A"),
    ("forces: slope", "force_slope"),
    ("stress: MAE (meV/Å³)", "stress_mae_meV_per_A3"),
    ("Hessian products: MAE (eV/Å²)", "hvp_mae_eV_per_A2"),
    ("Hessian products: relative error", "hvp_relative_error"),
)
_LOSSES = {"train": "train_loss", "validation": "valid_loss", "retained (anchor)": "anchor_loss"}
_HISTORY = {
    "energy MAE (meV/atom)": "energy_mae_meV_per_atom",
    "force MAE (meV/Å)": "force_mae_meV_per_A",
    "stress MAE (meV/Å³)": "stress_mae_meV_per_A3",
    "Hessian product MAE (eV/Å²)": "hvp_mae_eV_per_A2",
}
_JUDGED = (
    ("force MAE", "force_mae_meV_per_A", "meV/Å"),
    ("energy MAE", "energy_mae_meV_per_atom", "meV/atom"),
    ("stress MAE", "stress_mae_meV_per_A3", "meV/Å³"),
)
Content = Illustration | Interactive | Table
Points = Mapping[str, Mapping[str, np.ndarray]]
"""By quantity: ``reference`` and the predictions of each model, (n,)."""


def error_rows(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Main errors with intervals, a column for each report."""
    rows = [
        [label, *(with_interval(report, key) for report in reports.values())]
        for label, key in _ERRORS
        if any(report.get(key) is not None for report in reports.values())
    ]
    sizes = ", ".join(sorted({str(report["n_frames"]) for report in reports.values()}))
    caption = f"Errors on {sizes} structures, with 95 % intervals from drawing structures again. Structures of one "
    return Table(
        ("error", *reports), rows, caption + "trajectory resemble each other: for them intervals are too narrow."
    )


def element_rows(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Force errors of every element, columns for each report."""
    symbols = list(dict.fromkeys(symbol for report in reports.values() for symbol in report["per_element"]))
    rows = []
    for symbol in symbols:
        found = [report["per_element"].get(symbol, {}) for report in reports.values()]
        cells = [one.get(key) for one in found for key in ("force_mae_meV_per_A", "force_slope")]
        rows.append([symbol, found[-1].get("n_atoms"), found[-1].get("force_reference_mean_norm_meV_per_A"), *cells])
    columns = [f"{name}: {what}" for name in reports for what in ("MAE", "slope")]
    caption = "Force errors by element, meV/Å. A slope below 1 means forces that are too small."
    return Table(("element", "atoms", "mean |F|", *columns), rows, caption)


def history_figure(records: Sequence[Mapping[str, Any]], best: int) -> Figure | None:
    """Losses and validation errors of every epoch; ``None`` without records."""
    if not records:
        return None
    return training_history(
        [record["epoch"] for record in records],
        _known(records, _LOSSES),
        _known(records, _HISTORY),
        best=best if best > 0 else None,
    )


def _curves(records: Sequence[Mapping[str, Any]]) -> Interactive | None:
    """The same, to be pointed at, an axis for each unit."""
    panels = {"loss": _known(records, _LOSSES)}
    panels |= {name: {"validation": values} for name, values in _known(records, _HISTORY).items()}
    epochs = [record["epoch"] for record in records]
    caption = "The same numbers: a value under the pointer, a range by the tools, a curve hidden by its name."
    return interactive_curves(epochs, panels, x_label="epoch", caption=caption, title="Training, to be pointed at")


def _known(records: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Series that all records have."""
    found = {name: [record.get(key) for record in records] for name, key in names.items()}
    return {name: np.array(values, np.float64) for name, values in found.items() if None not in values}


def write_finetune_report(
    folder: Path,
    report: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    points: Points,
    apart: Sequence[tuple[Atoms, np.ndarray]] = (),
) -> None:
    """Write ``report.html`` and its figures into the folder of a fine-tune.

    Args:
        folder: of the run.
        report: its ``report.json``.
        records: its epochs, as in ``metrics.jsonl``.
        points: reference and predictions (``before``, ``after``) on the validation data; may be empty.
        apart: structures of these, and for each the errors after training of the forces on its atoms (n,) in eV/Å.
    """
    content: list[Content] = []
    best, n_valid = report["best_epoch"], report["n_valid"]
    if (history := history_figure(records, best)) is not None:
        caption = "Losses (a) and errors on the validation structures (b), epoch by epoch; the dashed line is the "
        content.append(Illustration(history, caption + "epoch that was kept.", "Training", "history"))
        if (curves := _curves(records)) is not None:
            content.append(curves)
    both = {name: report[name] for name in ("before", "after")}
    content += [error_rows(both), element_rows(both)]
    content += parities(points, f"the {n_valid} validation structures, before and after fine-tuning")
    content += worst(apart)
    retained = report.get("retained") or {}
    if retained.get("after") is not None:
        kept = error_rows({name: retained[name] for name in ("before", "after")})
        content.append(Table(kept.columns, kept.rows, f"What was kept of the model before: {retained['anchor']}."))
    content.append(Table(("setting", "value", "why"), report["strategy"], "Settings of the strategy, and why."))
    given = [[name, str(value)] for name, value in report["settings"].items() if value not in (None, (), [])]
    content.append(Table(("option", "value"), given, f"All options. Data: {report['split']}."))
    content.append(_findings(report["findings"]))
    content.append(_next_steps(folder, n_valid))
    verdict, alarm = finetune_verdict(report)
    title = f"Fine-tune in {folder.resolve().name}"
    write_report(folder / "report.html", title=title, verdict=verdict, alarm=alarm, content=content,
                 versions=report["versions"])  # fmt: skip


def finetune_verdict(report: Mapping[str, Any]) -> tuple[str, bool]:
    """Verdict on a fine-tune for a hurried reader, and whether it is bad news."""
    before, after, n_valid = report["before"], report["after"], report["n_valid"]
    changes, worse = [], False
    for words, key, unit in _JUDGED:
        if before.get(key) is not None and after.get(key) is not None:
            changes.append(f"{words} {rounded(before[key])} → {rounded(after[key])} {unit}")
            worse = worse or after[key] > before[key]
    parts = [f"On {n_valid} validation structures: {', '.join(changes)}."]
    best = report["best_epoch"]
    parts.append(f"The model of epoch {best} of {report['epochs_run']} was kept." if best else "No epoch was better.")
    if worse:
        parts.append("Some error grew: look at the curves before you use this model.")
    if few := n_valid < _FEW:
        parts.append(f"{n_valid} structures are few to choose an epoch by: treat these errors as rough.")
    if warnings := sum(finding["severity"] == "warning" for finding in report["findings"]):
        parts.append(f"The doctor gave {warnings} warning{'s' * (warnings > 1)}, below.")
    return " ".join(parts), bool(worse or few or warnings)


_FEW = 5
"""Validation structures below which the choice of an epoch is a matter of luck."""


def write_evaluation_report(
    folder: Path,
    report: Mapping[str, Any],
    points: Points,
    *,
    model: str,
    data: str,
    command: str,
    apart: Sequence[tuple[Atoms, np.ndarray]] = (),
) -> None:
    """Write ``report.html`` and figures of an evaluation into a folder.

    Args:
        folder: to write to.
        report: errors, as of ``train.error_report``.
        points: reference and predictions; may be empty.
        model: its name.
        data: name of the structures.
        command: line that was given.
        apart: structures, and for each the errors of the forces on its atoms (n,) in eV/Å.
    """
    name = "errors"
    content: list[Content] = [error_rows({name: report}), element_rows({name: report})]
    content += parities(points, f"{report['n_frames']} structures of {os.path.basename(data)}")
    content += worst(apart)
    shown = [
        f"{words} {rounded(report[key])} {unit}" for words, key, unit in _JUDGED[:2] if report.get(key) is not None
    ]
    verdict = f"{model} on {report['n_frames']} structures of {data}: {', '.join(shown) or 'no energies, no forces'}."
    title = f"{model} on {os.path.basename(data)}"
    write_report(folder / "report.html", title=title, verdict=verdict, content=content,
                 versions=report["versions"], command=command)  # fmt: skip


def worst(apart: Sequence[tuple[Atoms, np.ndarray]]) -> list[Content]:
    """Structures with the largest force errors, as pictures and to be turned."""
    if not apart:
        return []
    title = "Structures with the largest force errors"
    frames, errors = [atoms for atoms, _ in apart], [1000.0 * error for _, error in apart]
    figure, viewer = outstanding(
        frames,
        [np.sqrt(np.mean(error**2)) for error in errors],
        quantity="force error (meV/Å, rms over atoms)",
        title=title,
        colors=(errors, "force error (meV/Å)"),
        names=[f"structure {atoms.info.get('structure', number)}" for number, atoms in enumerate(frames)],
    )
    caption = "Colours are errors of the forces on atoms; above each structure is the root of their mean square, meV/Å."
    caption += " Numbers are those of structures in the data, from 0."
    return [Illustration(figure, caption, title, "largest_errors"), *viewer]


def parities(points: Points, what: str) -> list[Illustration]:
    """A parity plot with its caption for each quantity that has points; ``what`` says of which structures."""
    found = []
    for name, values in points.items():
        (quantity, unit), reference = QUANTITIES[name], values["reference"]
        predictions = {model: own for model, own in values.items() if model != "reference"}
        figure = parity(reference, predictions, quantity=quantity, unit=unit)
        relative = " Energies are relative to isolated atoms." if name == "energy" else ""
        caption = f"{len(reference)} points of {what}.{relative}"
        found.append(Illustration(figure, caption, f"Predicted and reference {quantity}", f"parity_{name}"))
    return found


def _findings(findings: Sequence[Mapping[str, Any]]) -> Table:
    rows = [[one["severity"], one["check"], one["message"], one.get("where", ""), one["remedy"]] for one in findings]
    caption = "What the doctor found before training." if rows else "The doctor found nothing to complain about."
    return Table(("severity", "check", "found", "where", "what to do"), rows, caption)


def _next_steps(folder: Path, n_valid: int) -> Table:
    model = folder
    rows = [
        ["errors on structures that had no part in this", f"mlipjax evaluate --model {model} --data TEST.extxyz"],
        [
            "does it know what you simulate?",
            f"mlipjax monitor --model {model} --reference TRAIN.extxyz --data MD.extxyz",
        ],
        ["relax a structure", f"mlipjax relax --model {model} --structure S.cif --cell full"],
        ["simulate", f"mlipjax simulate --model {model} --structure S.cif --steps 10000 --out MD"],
    ]
    if n_valid < _FEW:
        rows.insert(0, ["more validation structures", "label more, or give --valid FILE or a larger --valid-fraction"])
    return Table(("what to do next", "how"), rows, "The folder of the run is a model.")


def with_interval(report: Mapping[str, Any], key: str) -> str:
    """A number of a report with its interval, if it has one."""
    value, interval = report.get(key), (report.get("confidence_95") or {}).get(key)
    if value is None:
        return "–"
    shown = f"{value:.4g}"
    return shown if interval is None else f"{shown} [{interval[0]:.4g}, {interval[1]:.4g}]"


@styled
def property_history(records: Sequence[Mapping[str, Any]], best: int) -> Figure:
    """Draw the training loss (a) and the validation error (b) of every task against optimiser steps.

    Args:
        records: lines of ``metrics.jsonl``.
        best: step whose parameters were kept.
    """
    steps = np.array([record["step"] for record in records])
    names = list(dict.fromkeys(name for record in records for name in record["tasks"]))
    figure = new_figure(height=2.5)
    panels = figure.subplots(1, 2)
    for panel, part in zip(panels, ("train", "valid"), strict=True):
        for name, style in arm_styles(names).items():
            # of a task its first number: the loss, or the mean absolute error
            numbers = (record["tasks"].get(name, {}).get(part, {}).values() for record in records)
            values = np.array([next(iter(own), np.nan) for own in numbers], np.float64)
            if np.isfinite(values).any():
                panel.plot(steps, values, color=style.color, marker=style.marker, markersize=3, label=style.label)
        panel.axvline(best, color="#333333", linewidth=0.8, linestyle=(0, (3, 2)), label="kept")
        panel.set(yscale="log", xlabel="optimiser step")
        panel.legend(loc="best", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)
    panels[0].set_ylabel("training loss")
    panels[1].set_ylabel("validation error (unit of the task)")
    return figure


def write_property_report(
    folder: Path, report: Mapping[str, Any], records: Sequence[Mapping[str, Any]], points: Points
) -> None:
    """Write ``report.html`` and its figures into the folder of a fine-tune to a property.

    Args:
        folder: of the run.
        report: its ``report.json``.
        records: its intervals, as in ``metrics.jsonl``.
        points: ``property``: values and predictions (``after``) of the validation structures; may be empty.
    """
    name, unit, valid = report["property"]["name"], report["property"]["unit"], report["valid"]
    content: list[Illustration | Table] = []
    if records:
        figure = property_history(records, report["best_step"])
        caption = "Training loss and validation error of every task; the dashed line is the step that was kept."
        content.append(Illustration(figure, caption, "Training", "history"))
    if "property" in points:
        found = points["property"]
        figure = parity(found["reference"], {"validation": found["after"]}, quantity=name, unit=unit or "no unit")
        caption = f"{len(found['reference'])} validation structures."
        content.append(Illustration(figure, caption, f"Predicted and given {name}", "parity_property"))
    sets = {"validation": valid, **report["tests"]}
    rows = [
        [key, one["n"], *(with_interval(one, error) for error in ("mean", "mae", "rmse"))] for key, one in sets.items()
    ]
    caption = f"Errors of {name} in {unit or 'its own unit'}, with 95 % intervals from drawing structures again."
    content.append(Table(("structures", "n", "mean error", "MAE", "RMSE"), rows, caption))
    tasks = [[task, note] for task, note in report["tasks"].items()]
    content.append(Table(("task", "what"), tasks, "Tasks of the run."))
    content.append(Table(("setting", "value", "why"), report["strategy"], "Settings of the strategy, and why."))
    given = {**report["settings"], **report["options"]}
    options = [[key, str(value)] for key, value in given.items() if value not in (None, (), [])]
    content.append(Table(("option", "value"), options, "All options."))
    check = f"mlipjax evaluate --model {folder} --property TEST.extxyz:{name}"
    content.append(Table(("what to do next", "how"), [["errors on other structures", check]], "The folder is a model."))
    verdict = (
        f"{name} on {valid['n']} validation structures: MAE {valid['mae']:.4g}, RMSE {valid['rmse']:.4g} {unit}. The "
        f"model of step {report['best_step']} of {report['steps']} was kept."
    )
    write_report(folder / "report.html", title=f"Fine-tune to {name} in {folder.resolve().name}", verdict=verdict,
                 content=content, versions=report["versions"])  # fmt: skip
