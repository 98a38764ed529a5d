"""Figures, table and verdict of ``experiments.reactive``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.lab.display import Table as Brief
from experiments.lab.record import Number, counted
from experiments.lab.run import Outcome
from mlipjax.report import Illustration, Table
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


def brief_tables(results: dict[str, Any]) -> list[Brief]:
    """The table by system, for a narrow terminal."""
    tables: dict[str, list[list[str]]] = {}
    for system, observable, model, arm, labels, value, reference, error, unit, _, remark in table_rows(results):
        numbers = ["" if x is None else f"{x:.3g}" if isinstance(x, float) else str(x) for x in (value, reference)]
        off = "" if error is None else f"{error:.3g} {unit}" if isinstance(error, float) else f"{error} {unit}"
        trained = f"{model} {arm}" + (f", {labels} labels" if labels else "")
        # what the numbers are is in the report; what is wrong with them is said here too
        reservation = remark.partition("; ")[2] if numbers[0] or off else remark
        tables.setdefault(system, []).append([observable, trained, *numbers, off, reservation])
    return [Brief(BRIEF_COLUMNS, rows, system) for system, rows in tables.items()]


class _Rows(list[list[Any]]):
    """Rows about one system."""

    def __init__(self, system: str) -> None:
        super().__init__()
        self.system = system

    def put(
        self, who: Sequence[Any], observable: str, unit: str = "", remark: str = "", *,
        value: float | None = None, reference: float | None = None, error: float | None = None, n: int | None = None,
    ) -> None:  # fmt: skip
        """Add a row; the error is value minus reference where it is not given.

        Args:
            who: model, arm and labels.
            observable: what was measured.
            unit: of the numbers.
            remark: what speaks against them, or why there are none.
            value, reference, error: numbers; an error alone is one already.
            n: structures.
        """
        if error is None and value is not None and reference is not None:
            error = value - reference
        self.append([self.system, observable, *who, value, reference, error, unit, n, remark])


def _formate_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = _Rows("formate on Cu(110)")
    for row in (results["formate"] or {"rows": []})["rows"]:
        who, e = (row["model"], row["arm"], row["labels"]), row["errors"]
        n, seed = e["n_frames"], f"seed {row['seed']}" if row["labels"] else ""
        rows.put(who, "energy std", "meV/atom", seed, error=e["energy_std_meV_per_atom"], n=n)
        rows.put(who, "force MAE", "meV/Å", seed, error=e["force_mae_meV_per_A"], n=n)
        interval = "95 % {:.3f} to {:.3f}".format(*row["softening_95"])
        rows.put(who, "force slope", "", interval, value=row["softening"], reference=1.0, n=n)
    return rows


def _event_rows(results: dict[str, Any]) -> list[list[Any]]:
    found: list[list[Any]] = []
    for event in results["events"].values():
        rows, published = _Rows(event["what"]), event["published_eV"]
        level = _own(event["models"][results["oracle"]])
        for model, row in event["models"].items():
            who = (model, "zero-shot", 0)
            if "failed" in row:
                rows.put(who, "barrier", "eV", row["failed"])
                continue
            own = row["own"]
            if row["fixed"] is not None:
                _put_fixed(rows, who, row, level, "on the oracle's path, relative to it")
            source = "published DFT" if published is not None else "reference: the oracle model"
            truth = level if published is None else published
            rows.put(who, "barrier", "eV", source + _reservations(own), value=own["barrier_eV"], reference=truth, n=1)
            if model == results["oracle"] and published is None:
                rows[-1][7] = None  # it is its own reference
        found += rows
    return found


def _put_fixed(rows: _Rows, who: Sequence[Any], row: dict[str, Any], level: float | None, remark: str) -> None:
    rows.put(who, "fixed-path barrier", "eV", remark, value=row["fixed"]["barrier_eV"], reference=level, n=1)


def _workflow_rows(results: dict[str, Any]) -> list[list[Any]]:
    flow = results["workflow"]
    if not flow or "failed" in flow:
        return []
    level = _own(results["events"].get("v-mos2", {"models": {}})["models"].get(results["oracle"], {}))
    rows = _Rows(flow["what"] + " (workflow)")
    for arm, found in flow["arms"].items():
        for seed, row in enumerate(found):
            who = (results["driver"], arm, row["labels"])
            if "path_force_rmse_meV_per_A" in row:
                error = row["path_force_rmse_meV_per_A"]
                rows.put(who, "force RMSE on the path", "meV/Å", f"seed {seed}", error=error)
                rows.put(who, "force slope", "", "on the path", value=row["softening"], reference=1.0)
            if "failed" in row:
                rows.put(who, "barrier", "eV", row["failed"], reference=level)
                continue
            _put_fixed(rows, who, row, level, "relative to the oracle")
            remark = "relative to the oracle" + _reservations(row["own"])
            rows.put(who, "barrier", "eV", remark, value=row["own"]["barrier_eV"], reference=level, n=1)
    return rows


def _growth_rows(results: dict[str, Any]) -> list[list[Any]]:
    rows = _Rows("growth of Na from its melt")
    for model, row in (results["growth"] or {"models": {}})["models"].items():
        who, what = (model, "zero-shot", 0), "d(solid fraction)/dt"
        if "failed" in row:
            rows.put(who, what, "1/ps", row["failed"])
        else:
            remark = f"± {row['rate_error']:.2g}: {row['verdict'].split(':')[0]}"
            rows.put(who, what, "1/ps", remark, value=row["rate_per_ps"], n=results["growth"]["n_atoms"])
    return rows


def _surface_rows(results: dict[str, Any]) -> list[list[Any]]:
    hot = results.get("surface") or {"models": {}, "temperature_K": 0.0}
    rows = _Rows(f"formate on Cu(110) at {hot['temperature_K']:.0f} K")
    for model, row in hot["models"].items():
        who = (model, "zero-shot", 0)
        if "failed" in row:
            rows.put(who, "dynamics", remark=row["failed"])
            continue
        rows.put(who, "bond events", remark=row["events_verdict"], value=float(sum(row["events"].values())), n=1)
        rows.put(who, "spectrum", remark=row["spectrum_verdict"], n=1)
        rows.put(who, "diffusion", remark=row["diffusion_verdict"], n=1)
    return rows


def _own(row: dict[str, Any]) -> float | None:
    return row["own"]["barrier_eV"] if row.get("own") else None


def _reservations(own: dict[str, Any]) -> str:
    """What speaks against a self-consistent barrier."""
    text = "" if own["converged"] else f"; NOT converged ({own['left_eV_per_A']:.2f} eV/Å left)"
    return text if own["climbed"] else text + "; no image climbed: interpolated"


def outcome(results: dict[str, Any]) -> Outcome:
    """What a run shows and says."""
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
        barriers = [own for row in rows if (own := _own(row)) is not None]
        value = float(np.mean(barriers)) if barriers else None
        numbers[f"S vacancy, barrier, {arm}"] = Number(value, "eV", 1, len(rows))
    return numbers


def _answer(results: dict[str, Any]) -> str:
    """Whether, on published DFT frames, few labels make a better model than none and than training from scratch."""
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
