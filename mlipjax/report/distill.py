"""The report of a distillation, as HTML and PNG: how far the student is from its teacher, how fast, and how stable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from mlipjax.report.html import Table, write_report
from mlipjax.report.style import rounded
from mlipjax.report.training import Content, element_rows, error_rows, parities, worst

_FAR = 1.5
"""Errors in dynamics of its own over those on test structures from which a student is where it was not trained."""


def write_distill_report(
    folder: Path,
    report: Mapping[str, Any],
    points: Mapping[str, np.ndarray],
    apart: Sequence[tuple[Atoms, np.ndarray]] = (),
) -> None:
    """Write ``report.html`` and its figures into the folder of a distillation.

    Args:
        folder: of the run.
        report: its ``report.json``.
        points: (2, n) labels of the teacher and predictions of the student on test structures, by quantity.
        apart: these structures, and for each the errors of the forces on its atoms (n,) in eV/Å.
    """
    test, name = report["test"], "student"
    shown = {quantity: {"reference": pair[0], name: pair[1]} for quantity, pair in points.items()}
    content: list[Content] = [error_rows({name: test}), element_rows({name: test}), _dynamics(report)]
    content += _speed(report) + _beside(report["crystal"], "The crystal, at rest in each model.")
    content += _beside(report["barrier"], "The path, its ends relaxed by each model.")
    content += parities(shown, f"{test['n_frames']} test structures, by the teacher and by the student")
    content += worst(apart)
    given = [[key, str(value)] for key, value in report["sampling"].items() if value not in (None, (), [])]
    content.append(Table(("option", "value"), given, f"Structures and tests. Data: {report['split']}."))
    content.append(_next_steps(folder))
    verdict, alarm = distill_verdict(report)
    title = f"A student of {report['teacher']}"
    write_report(folder / "report.html", title=title, verdict=verdict, alarm=alarm, content=content,
                 versions=report["versions"])  # fmt: skip


def distill_verdict(report: Mapping[str, Any]) -> tuple[str, bool]:
    """Verdict on a student for a hurried reader, and whether it is bad news."""
    test, training = report["test"], report["training"]
    parts = [
        f"{report['n_labelled']} structures labelled, {training['steps']} optimiser steps in "
        f"{training['seconds'] / 60.0:.1f} min. Against the teacher on {test['n_frames']} test structures: force RMSE "
        f"{rounded(test['force_rmse_meV_per_A'])} meV/Å, energy RMSE {rounded(test['energy_rmse_meV_per_atom'])} "
        "meV/atom."
    ]
    if (speed := report["speed"]) is not None:
        parts.append(f"A step of dynamics of {speed['n_atoms']} atoms is {speed['ratio']:.1f} times as fast.")
    stopped = [run for run in report["dynamics"] if run["stopped"] is not None]
    far = [run for run in report["dynamics"] if _factor(run, test) > _FAR]
    for run in stopped:
        parts.append(f"At {run['temperature_K']:g} K its dynamics became unphysical after {run['ps']:.2g} ps.")
    for run in far:
        parts.append(
            f"At {run['temperature_K']:g} K its errors grow {_factor(run, test):.1f}-fold in dynamics of its own: "
            "label structures from there (a second distillation with this student as driver)."
        )
    if not stopped and not far:
        kelvin = ", ".join(f"{run['temperature_K']:g}" for run in report["dynamics"])
        most = max(_factor(run, test) for run in report["dynamics"])
        parts.append(
            f"Its dynamics at {kelvin} K ran to the end; force errors there are at most {most:.2f} times those on test "
            "structures."
        )
    return " ".join(parts), bool(stopped or far)


def _factor(run: Mapping[str, Any], test: Mapping[str, Any]) -> float:
    errors = run["errors"]
    return 0.0 if errors is None else errors["force_rmse_meV_per_A"] / test["force_rmse_meV_per_A"]


def _dynamics(report: Mapping[str, Any]) -> Table:
    rows = []
    for run in report["dynamics"]:
        errors = run["errors"] or {}
        keys = ("force_rmse_meV_per_A", "force_mae_meV_per_A", "energy_std_meV_per_atom")
        reached = "to the end" if run["stopped"] is None else run["stopped"]
        mean = run.get("mean_temperature_K")
        rows.append([run["temperature_K"], run["ps"], reached, mean, run["n_frames"], *map(errors.get, keys)])
    columns = ("K asked for", "ps", "ran", "mean K", "frames", "force RMSE", "force MAE", "energy std")
    caption = "Dynamics of the student (Langevin), and its errors against labels of the teacher on the frames that it "
    return Table(columns, rows, caption + "came to: meV/Å and meV/atom.")


def _speed(report: Mapping[str, Any]) -> list[Content]:
    if (speed := report["speed"]) is None:
        return []
    rows = [[name, microseconds] for name, microseconds in speed["microseconds_per_atom_step"].items()]
    caption = f"A step of dynamics of {speed['n_atoms']} atoms, neighbours included: the least of "
    return [
        Table(
            ("model", "µs per atom and step"),
            rows,
            caption + f"three runs each, in turn; {speed['ratio']:.1f} times as fast.",
        )
    ]


def _beside(found: Mapping[str, Mapping[str, Any]] | None, caption: str) -> list[Content]:
    """A column for each model."""
    if not found:
        return []
    names = list(dict.fromkeys(name for numbers in found.values() for name in numbers))
    rows = [[name, *(_number(numbers.get(name)) for numbers in found.values())] for name in names]
    return [Table(("quantity", *found), rows, caption)]


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return ", ".join(f"{one:.4g}" for one in value)
    return value if not isinstance(value, bool) else "yes" if value else "no"


def _next_steps(folder: Path) -> Table:
    student, data = folder / "student", folder / "labelled"
    rows = [
        ["simulate", f"mlipjax simulate --model {student} --structure S.cif --steps 10000 --out MD"],
        ["does it know what you simulate?", f"mlipjax monitor --model {student} --reference {data} --data MD.extxyz"],
        ["another student of the same labels", f"mlipjax finetune --model {student} --strategy scratch --train {data}"],
        ["training, epoch by epoch", str(student / "report.html")],
    ]
    return Table(("what to do next", "how"), rows, "The student is a model, the labels are a data set.")
