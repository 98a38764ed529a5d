"""``mlipjax monitor``: whether a model knows structures like these, by charts of its own features."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.judging import Monitor
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Working
from mlipjax.cli.tables import Table
from mlipjax.monitoring.judgement import Judgement
from mlipjax.verbs import monitor
from mlipjax.verbs.inputs import name_of, told_paths


def run(command: Monitor) -> None:
    """Fit, read and print."""
    console = make_console(quiet=command.quiet)
    with Working(console, f"reading the charts for {name_of(command.data)}"):
        found = call(monitor, command)
    report = found.report
    print_report(console, report, found.verdict, index=command.index, name=name_of(command.data))
    if command.out is not None:
        console.print(f"charts: {command.out / 'monitor.npz'}; frames furthest out: {command.out / 'report.html'}")
    told = {"reference": told_paths(command.reference), "data": told_paths(command.data)}
    write_json(command.json, {**report, "model": command.model, **told})


_MEANING = {
    "q": "mean Q / limit of the atom's element",
    "t2": "mean T² / limit of the atom's element",
    "combined": "sum of both",
    "worst": "largest sum of an atom",
}
_SHOWN = 10
"""Alarms that are printed one by one."""


def print_report(console: Console, report: dict[str, Any], verdict: Judgement, *, index: str, name: str) -> None:
    """Print tables, alarms and verdict.

    Args:
        console: where to.
        report: of ``verbs.Monitored``.
        verdict: on the frames by ``index``.
        index: the number of a frame that decides.
        name: of the data.
    """
    _print_elements(console, report)
    _print_indices(console, report, name)

    chosen = report["indices"][index]
    if chosen["guaranteed_level"] > report["level"]:
        console.print(
            f"the {chosen['n_calibration']} calibration frames are worth {chosen['n_calibration_effective']} "
            f"independent ones, which guarantee a level of {chosen['guaranteed_level']:.2g}, not {report['level']:g}: "
            "the limit is an estimate. Longer reference runs give a guaranteed one."
        )
    if verdict.promise:
        console.print(f"{verdict.promise}.")
    frames = report["frames"][index]
    # the furthest out first; what is not a number before all
    alarms = sorted(report["alarms"][index].tolist(), key=lambda frame: -np.nan_to_num(frames[frame], nan=np.inf))
    for frame in alarms[:_SHOWN]:
        console.print(_frame_line(report, index, frame))
    if len(alarms) > _SHOWN:
        console.print(f"... and {len(alarms) - _SHOWN} more, less far out")
    advice = "" if verdict.in_control else " Do not trust the model on such frames; label some and fine-tune."
    worst = report["worst"]
    console.print(
        f"Worst: frame {worst['frame']}, atom {worst['atom']} ({worst['element']}), {_number(worst['times_limit'])} "
        f"times the limit. {verdict.words} ({index}).{advice}"
    )


def _frame_line(report: dict[str, Any], index: str, frame: int) -> str:
    """A frame above the limit: how far, and by which atom."""
    value, limit = report["frames"][index][frame], report["indices"][index]["limit"]
    return (
        f"frame {frame}: {value / limit:.3g} times the limit ({index} {value:.3g}), most by "
        f"{report['worst_element'][frame]} {report['worst_atom'][frame]} "
        f"({100 * report['worst_atom_share'][frame]:.0f} % of the frame's index)"
    )


def _print_elements(console: Console, report: dict[str, Any]) -> None:
    rows, limits = [], []
    for symbol, row in report["per_element"].items():
        q, t2 = row["q_limit"], row["t2_limit"]
        explained = "-" if row["explained_variance"] is None else f"{100 * row['explained_variance']:.0f}"
        numbers = (row["q_mean"], q["conformal"], row["t2_mean"], t2["conformal"], row["worst_max"])
        rows.append([symbol, *map(_number, numbers)])
        others = (q["jackson_mudholkar"], q["box"], t2["f"], t2["beta"])
        limits.append([symbol, str(row["n_atoms_fit"]), str(row["rank"]), explained, *map(_number, others)])
    headings = ("Q mean", "Q limit", "T² mean", "T² limit", "worst atom")
    console.print(Table(("element", *headings), rows, "frames judged by the charts of each element"))
    headings = ("atoms fit", "PCs", "variance %", "Q: JM", "Q: Box", "T²: F", "T²: Beta")
    console.print(Table(("element", *headings), limits, "charts, and parametric limits to compare with"))


def _print_indices(console: Console, report: dict[str, Any], name: str) -> None:
    title = f"{name}: {report['n_frames']} frames, {report['n_runs']} runs"
    headings = ("limit", "mean", "max", "max / limit", "alarms", "alarms %", "n effective")
    rows = [
        [
            index,
            _number(row["limit"]),
            _number(row["mean"]),
            _number(row["max"]),
            _number(row["max"] / row["limit"]),
            str(row["n_alarms"]),
            f"{100 * row['alarm_fraction']:.1f}",
            _number(row["n_effective"]),
        ]
        for index, row in report["indices"].items()
    ]
    console.print(Table(("index", *headings), rows, title))
    headings = ("level", "calibration n", "effective n")
    rows = [
        [
            index,
            _MEANING[index],
            f"{row['guaranteed_level']:.2g}",
            str(row["n_calibration"]),
            str(row["n_calibration_effective"]),
        ]
        for index, row in report["indices"].items()
    ]
    console.print(Table(("index", "meaning", *headings), rows, "where the limits come from", name_columns=2))


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3g}"
