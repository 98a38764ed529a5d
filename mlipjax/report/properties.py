"""The report of a fine-tune to a property, as HTML and PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mlipjax.report.errors import parity
from mlipjax.report.html import Illustration, Table, write_report
from mlipjax.report.style import arm_styles, new_figure, styled
from mlipjax.report.training import Points, with_interval


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
