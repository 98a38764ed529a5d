"""Figures, numbers and verdict of ``experiments.reactive``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.record import Number, counted
from experiments.lab.run import Outcome
from experiments.reactive.table import COLUMNS, brief_tables, own_barrier, table_rows
from mlipjax.report import Illustration, Table
from mlipjax.report.probe_figures import crystal_order, force_slopes
from mlipjax.report.probes import path_profiles


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    text, alarm = verdict(results)
    caption = (
        "Every model on every observable. Errors are value minus reference; where a value stands in the column of "
        "errors alone, it is one. 'published DFT' are numbers from the literature, of other cells and settings; "
        f"elsewhere the reference is {results['oracle']}, a stronger universal model, not DFT. Energy std is the error "
        "without its mean: the frames are of another code, so energies are shifted by the mean over training labels "
        "(zero-shot: over the fewest labels any arm used)."
    )
    return Outcome(
        verdict=text,
        answer=_answer(results),
        numbers=_numbers(results),
        brief=brief_tables(results),
        title="Universal and fine-tuned models on reactions, jumps and growth",
        content={**_figures(results), "table": Table(COLUMNS, table_rows(results), caption)},
        alarm=alarm,
    )


def _formate_mae(results: dict[str, Any]) -> dict[tuple[str, int], tuple[float, int]]:
    """Force MAE (meV/Å) of the model that is fine-tuned, mean over seeds, and their number, by arm and labels."""
    found: dict[tuple[str, int], list[float]] = {}
    for row in (results["formate"] or {"rows": []})["rows"]:
        if row["model"] == results["driver"]:
            found.setdefault((row["arm"], row["labels"]), []).append(row["errors"]["force_mae_meV_per_A"])
    return {key: (float(np.mean(values)), len(values)) for key, values in found.items()}


def _numbers(results: dict[str, Any]) -> dict[str, Number]:
    n = (results["formate"] or {"n_test": 0})["n_test"]
    numbers = {
        f"formate, force MAE, {arm}" + (f", {labels} labels" if labels else ""): Number(mae, "meV/Å", n, seeds)
        for (arm, labels), (mae, seeds) in _formate_mae(results).items()
    }
    for arm, rows in ((results["workflow"] or {}).get("arms") or {}).items():
        barriers = [own for row in rows if (own := own_barrier(row)) is not None]
        value = float(np.mean(barriers)) if barriers else None
        numbers[f"S vacancy, barrier, {arm}"] = Number(value, "eV", 1, len(rows))
    return numbers


def _answer(results: dict[str, Any]) -> str:
    """Say if, on published DFT frames, few labels make a better model than none and than training from scratch."""
    mae = {key: value for key, (value, _) in _formate_mae(results).items()}
    counts = {labels for _, labels in mae if labels}
    if not counts:
        return "not decided"
    better = [mae["one-shot", n] < min(mae["zero-shot", 0], mae["scratch", n]) for n in counts]
    return "supported" if all(better) else "not decided" if any(better) else "contradicted"


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
    """Conclusions that these runs support, with numbers; alarming if fine-tuning did not help."""
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
        mae = _formate_mae(results)
        driver = mae["zero-shot", 0][0]
        for n in sorted({labels for _, labels in mae if labels}):
            mean = {arm: mae[arm, n][0] for arm in ("one-shot", "iterative", "scratch")}
            parts.append(
                f"With {n} labels ({counted(mae['one-shot', n][1], 'seed')}) {results['driver']} goes from "
                f"{driver:.0f} to {mean['one-shot']:.0f} one-shot, {mean['iterative']:.0f} iterative; from scratch "
                f"{mean['scratch']:.0f}."
            )
            alarm |= min(mean["one-shot"], mean["iterative"]) > driver
    for event in results["events"].values():
        barriers = ", ".join(f"{m} {own_barrier(row):.2f}" for m, row in event["models"].items() if row.get("own"))
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
