"""``mlipjax evaluate``: errors of a model on labelled structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.judging import Evaluate
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import element_table, error_table, property_table, uncertainty_tables
from mlipjax.verbs import evaluate
from mlipjax.verbs.inputs import name_of, told_paths


def run(command: Evaluate) -> None:
    """Evaluate and print."""
    console, name = make_console(quiet=command.quiet), command.property or name_of(command.data)
    with Working(console, f"predicting the structures of {name}"):
        report = call(evaluate, command)
    if command.property is None:
        told = {"model": command.model, "head": command.head, "data": told_paths(command.data)}
        _print(console, command, report, name)
    else:
        told = {"model": command.model, "data": command.property}
        file, _, key = command.property.rpartition(":")
        console.print(property_table({f"{key}, {name_of(file)}": report}, report["unit"]))
    write_json(command.json, {**report, **told})
    if left_out := report.get("left_out"):
        raise ValueError(
            f"{name}: errors are those of the other structures; {len(left_out)} without an energy left out."
        )


def _print(console: Console, command: Evaluate, report: Mapping[str, Any], name: str) -> None:
    console.print(error_table({name: report}), element_table(report))
    if apart := report["force_slope_apart"]:
        named = ", ".join(map(str, apart[:8])) + (", ..." if len(apart) > 8 else "")
        console.print(
            f"forces of {len(apart)} of {report['n_force_frames']} structures have a slope of their own (structures "
            f"{named}); without them the slope is {report['force_slope_bulk']:.3f}",
        )
    if (bars := report.get("uncertainty")) is not None:
        console.print(*uncertainty_tables(bars))
    if command.write is not None:
        console.print(f"labels, predictions and errors: {command.write}")
    if command.out is not None:
        console.print(f"figures: {command.out / 'report.html'}")
