"""Figures, table and verdict of ``experiments.reactive``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mlipjax.report import Illustration, Table, save_figure, write_report
from mlipjax.report.probe_figures import crystal_order, force_slopes
from mlipjax.report.probes import path_profiles

COLUMNS = (
    "system", "observable", "model", "arm", "labels", "value", "reference", "error", "unit", "n", "remark",
)  # fmt: skip
BRIEF_COLUMNS = ("observable", "model", "value", "ref.", "error", "")


def table_rows(results: dict[str, Any]) -> list[list[Any]]:
    """Models x systems x observables, with errors and label counts."""
    parts = (_formate_rows, _event_rows, _workflow_rows, _growth_rows, _surface_rows)
    return [row for part in parts for row in part(results)]


def brief(results: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Rows of the table by system, for a narrow terminal."""
    tables: dict[str, list[list[str]]] = {}
    for system, observable, model, arm, labels, value, reference, error, unit, _, remark in table_rows(results):
        numbers = ["" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x) for x in (value, reference)]
        off = "" if error is None else f"{error:.3g} {unit}" if isinstance(error, float) else f"{error} {unit}"
        trained = f"{model} {arm}" + (f", {labels} labels" if labels else "")
        # what the numbers are is in the report; what is wrong with them is said here too
        reservation = remark.partition("; ")[2] if numbers[0] or off else remark
        tables.setdefault(system, []).append([observable, trained, *numbers, off, reservation])
    return tables


def _formate_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for row in (results["formate"] or {"rows": []})["rows"]:
        head = ["formate on Cu(110)", None, row["model"], row["arm"], row["labels"]]
        e, n = row["errors"], row["errors"]["n_frames"]
        seed = f"seed {row['seed']}" if row["labels"] else ""
        energy, force = e["energy_std_meV_per_atom"], e["force_mae_meV_per_A"]
        rows.append([head[0], "energy std", *head[2:], None, None, energy, "meV/atom", n, seed])
        rows.append([head[0], "force MAE", *head[2:], None, None, force, "meV/Å", n, seed])
        low, high = row["softening_95"]
        rows.append(
            [head[0], "force slope", *head[2:], row["softening"], 1.0, row["softening"] - 1.0, "", n,
             f"95 % {low:.3f} to {high:.3f}"]
        )  # fmt: skip
    return rows


def _event_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for event in results["events"].values():
        oracle = event["models"][results["oracle"]]
        published = event["published_eV"]
        for model, row in event["models"].items():
            if "failed" in row:
                rows.append(
                    [event["what"], "barrier", model, "zero-shot", 0, None, None, None, "eV", None, row["failed"]]
                )
                continue
            own, fixed = row["own"], row["fixed"]
            truth = published if published is not None else _own(oracle)
            source = "published DFT" if published is not None else "reference: the oracle model"
            source += _reservations(own)
            if fixed is not None:
                level = _own(oracle)
                rows.append(
                    [event["what"], "fixed-path barrier", model, "zero-shot", 0, fixed["barrier_eV"], level,
                     _minus(fixed["barrier_eV"], level), "eV", 1, "on the oracle's path, relative to it"]
                )  # fmt: skip
            error = None if model == results["oracle"] and published is None else _minus(own["barrier_eV"], truth)
            rows.append(
                [event["what"], "barrier", model, "zero-shot", 0, own["barrier_eV"], truth, error, "eV", 1, source]
            )
    return rows


def _workflow_rows(results: dict[str, Any]) -> list[list[Any]]:
    flow = results["workflow"]
    if not flow or "failed" in flow:
        return []
    level = _own(results["events"].get("v-mos2", {"models": {}})["models"].get(results["oracle"], {}))
    rows = []
    for arm, found in flow["arms"].items():
        for seed, row in enumerate(found):
            head, tail = [flow["what"] + " (workflow)"], [results["driver"], arm, row["labels"]]
            if "path_force_rmse_meV_per_A" not in row:
                rows.append([*head, "barrier", *tail, None, None, None, "eV", None, row["failed"]])
                continue
            rows.append(
                [
                    *head,
                    "force RMSE on the path",
                    *tail,
                    None,
                    None,
                    row["path_force_rmse_meV_per_A"],
                    "meV/Å",
                    None,
                    f"seed {seed}",
                ]
            )
            rows.append(
                [*head, "force slope", *tail, row["softening"], 1.0, row["softening"] - 1.0, "", None, "on the path"]
            )
            if "failed" in row:
                rows.append([*head, "barrier", *tail, None, level, None, "eV", None, row["failed"]])
                continue
            fixed, own = row["fixed"]["barrier_eV"], row["own"]
            rows.append(
                [
                    *head,
                    "fixed-path barrier",
                    *tail,
                    fixed,
                    level,
                    _minus(fixed, level),
                    "eV",
                    1,
                    "relative to the oracle",
                ]
            )
            remark = "relative to the oracle" + _reservations(own)
            rows.append(
                [*head, "barrier", *tail, own["barrier_eV"], level, _minus(own["barrier_eV"], level), "eV", 1, remark]
            )
    return rows


def _growth_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = []
    for model, row in (results["growth"] or {"models": {}})["models"].items():
        head = ["growth of Na from its melt", "d(solid fraction)/dt", model, "zero-shot", 0]
        if "failed" in row:
            rows.append([*head, None, None, None, "1/ps", None, row["failed"]])
        else:
            n = results["growth"]["n_atoms"]
            rows.append(
                [
                    *head,
                    row["rate_per_ps"],
                    None,
                    None,
                    "1/ps",
                    n,
                    f"± {row['rate_error']:.2g}: {row['verdict'].split(':')[0]}",
                ]
            )
    return rows


def _surface_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = []
    hot = results.get("surface") or {"models": {}}
    for model, row in hot["models"].items():
        head = [f"formate on Cu(110) at {hot['temperature_K']:.0f} K"]
        tail = [model, "zero-shot", 0]
        if "failed" in row:
            rows.append([*head, "dynamics", *tail, None, None, None, "", None, row["failed"]])
            continue
        count = sum(row["events"].values())
        rows.append([*head, "bond events", *tail, float(count), None, None, "", 1, row["events_verdict"]])
        rows.append([*head, "spectrum", *tail, None, None, None, "", 1, row["spectrum_verdict"]])
        rows.append([*head, "diffusion", *tail, None, None, None, "", 1, row["diffusion_verdict"]])
    return rows


def _own(row: dict[str, Any]) -> float | None:
    return row["own"]["barrier_eV"] if row.get("own") else None


def _reservations(own: dict[str, Any]) -> str:
    """What speaks against a self-consistent barrier."""
    text = "" if own["converged"] else f"; NOT converged ({own['left_eV_per_A']:.2f} eV/Å left)"
    return text if own["climbed"] else text + "; no image climbed: interpolated"


def _minus(value: float, reference: float | None) -> float | None:
    return None if reference is None else value - reference


def write(folder: Path, results: dict[str, Any], command: str) -> None:
    """Write figures and ``report.html``."""
    figures = _figures(results)
    for name, illustration in figures.items():
        save_figure(illustration.figure, folder / f"{name}.png")  # pyright: ignore[reportArgumentType]
    text, alarm = verdict(results)
    caption = (
        "Every model on every observable. Errors are value minus reference; where a value stands in the column of "
        "errors alone, it is one. 'published DFT' are numbers from the literature, of other cells and settings; "
        f"elsewhere the reference is {results['oracle']}, a stronger universal model, not DFT. Energy std is the error "
        "without its mean: the frames are of another code, so energies are shifted by the mean over training labels "
        "(zero-shot: over the fewest labels any arm used)."
    )
    write_report(
        folder / "report.html",
        title="Universal and fine-tuned models on reactions, jumps and growth",
        verdict=text,
        content=[*figures.values(), Table(COLUMNS, table_rows(results), caption)],
        versions=results["versions"],
        command=command,
        alarm=alarm,
    )


def _figures(results: dict[str, Any]) -> dict[str, Illustration]:
    figures = {}
    for name, event in results["events"].items():
        profiles = {
            model: (row["own"]["distance_A"], row["own"]["profile_eV"])
            for model, row in event["models"].items()
            if row.get("own")
        }
        if profiles:
            known = event["published_eV"]
            note = f" Published DFT barrier: {known:.2f} eV." if known is not None else ""
            open_ = [model for model, row in event["models"].items() if row.get("own") and not row["own"]["converged"]]
            note += f" Not converged to 0.1 eV/Å: {', '.join(open_)}." if open_ else ""
            figure = path_profiles(profiles, x_label="distance along the path (Å)", y_label="energy (eV)")
            figures[f"path-{name}"] = Illustration(
                figure, f"{event['what']}: the own path of every model.{note}", event["what"]
            )
    if results["formate"]:
        rows = [row for row in results["formate"]["rows"] if row["seed"] == 0]
        slopes = {_title(row): (row["softening"], *row["softening_95"]) for row in rows}
        errors = {_title(row): row["errors"]["force_mae_meV_per_A"] for row in rows}
        caption = (
            f"Slope of predicted on DFT forces (a; bars: 95 % bootstrap over frames) and force error (b) on "
            f"{results['formate']['n_test']} held-out frames of formate on Cu(110), before and after fine-tuning "
            f"(first seed); held out: {', '.join(results['formate']['test_groups'])} of 400 frame numbers each."
        )
        figures["formate"] = Illustration(
            force_slopes(slopes, errors), caption, "Softening and force errors, formate on Cu(110)"
        )
    if results["growth"]:
        rows = {m: row for m, row in results["growth"]["models"].items() if "failed" not in row}
        if rows:
            times, solid, mean = (
                {m: row[key] for m, row in rows.items()} for key in ("times_ps", "solid_fraction", "mean")
            )
            what = results["growth"]
            caption = (
                f"Crystalline part of {what['n_atoms']} sodium atoms, half of them molten at the start, at "
                f"{what['temperature_K']:.0f} K."
            )
            figures["growth"] = Illustration(crystal_order(times, solid, mean), caption, "Growth from the melt")
    return figures


def _title(row: dict[str, Any]) -> str:
    return f"{row['model']} {row['arm']}" + (f" {row['labels']}" if row["labels"] else "")


def verdict(results: dict[str, Any]) -> tuple[str, bool]:
    """What these runs support, with numbers; alarming if fine-tuning did not help."""
    parts, alarm = [], False
    if results["formate"]:
        rows = results["formate"]["rows"]
        zero = [row for row in rows if row["arm"] == "zero-shot"]
        best = min(zero, key=lambda row: row["errors"]["force_mae_meV_per_A"])
        slopes = ", ".join(f"{row['model']} {row['softening']:.2f}" for row in zero)
        parts.append(
            f"Formate on Cu(110), {results['formate']['n_test']} held-out DFT frames: zero-shot slopes of forces "
            f"{slopes} (1 is right); the best zero-shot force MAE is {best['errors']['force_mae_meV_per_A']:.0f} meV/Å "
            f"({best['model']})."
        )
        driver = next(row for row in zero if row["model"] == results["driver"])["errors"]["force_mae_meV_per_A"]
        for n in sorted({row["labels"] for row in rows if row["labels"]}):
            mean = {
                arm: float(
                    np.mean([r["errors"]["force_mae_meV_per_A"] for r in rows if (r["arm"], r["labels"]) == (arm, n)])
                )
                for arm in ("one-shot", "iterative", "scratch")
            }
            seeds = len({r["seed"] for r in rows if r["labels"] == n})
            parts.append(
                f"With {n} labels ({seeds} seed{'s' if seeds > 1 else ''}) {results['driver']} goes from "
                f"{driver:.0f} to {mean['one-shot']:.0f} one-shot, {mean['iterative']:.0f} iterative; from scratch "
                f"{mean['scratch']:.0f}."
            )
            alarm |= min(mean["one-shot"], mean["iterative"]) > driver
    for event in results["events"].values():
        barriers = ", ".join(f"{m} {_own(row):.2f}" for m, row in event["models"].items() if row.get("own"))
        known = "" if event["published_eV"] is None else f", published DFT {event['published_eV']:.2f}"
        parts.append(f"{event['what']}: barriers {barriers}{known} eV.")
    parts.append(_workflow_sentence(results))
    parts.append("Short runs and few labels: read the columns n and remark before comparing models.")
    return " ".join(part for part in parts if part), alarm


def _workflow_sentence(results: dict[str, Any]) -> str:
    flow = results["workflow"]
    if not flow or "failed" in flow:
        return ""
    told = []
    for arm, rows in flow["arms"].items():
        errors = [row["path_force_rmse_meV_per_A"] for row in rows if "path_force_rmse_meV_per_A" in row]
        if errors:
            told.append(f"{arm} {np.mean(errors):.0f}")
    return (
        f"S vacancy by the workflow, {flow['labels']} labels, force RMSE on the oracle's path: {', '.join(told)} meV/Å."
    )
