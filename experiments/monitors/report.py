"""Table, numbers and verdict of ``experiments.monitors``."""

from __future__ import annotations

from typing import Any

from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome

COLUMNS = (
    "index", "false alarms", "all runs", "Box", "mean + 2 sd", "n (effective)", "AUROC", "bad frames found",
    "lead times (fs)",
)  # fmt: skip
_CHARTS = ("q", "t2", "combined")


def table_rows(results: dict[str, Any]) -> list[list[Any]]:
    """One row for each index."""
    alarms, found, rows = results["false_alarms"], results["detection"], []
    for name, row in alarms["indices"].items():
        other = found["indices"][name]
        rates = (f"{100 * row[kind]:.2f} %" if kind in row else None for kind in ("conformal", "cross", "box", "band"))
        leads = ", ".join("-" if lead is None else f"{lead:.0f}" for lead in other["lead_fs"].values())
        size = f"{alarms['n_held_out']} ({row['n_effective']:.0f})"
        rows.append([name, *rates, size, other["auroc"], f"{100 * other['detected_bad_frames']:.0f} %", leads])
    return rows


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run says."""
    alarms, found, level = results["false_alarms"]["indices"], results["detection"], results["settings"]["level"]
    numbers: dict[str, Number] = {}
    for name in (name for name in _CHARTS if name in alarms):
        n = round(alarms[name]["n_effective"])
        numbers[f"false alarms, {name}"] = Number(100.0 * alarms[name]["conformal"], "%", n)
        numbers[f"AUROC, {name}"] = Number(found["indices"][name]["auroc"], "", found["n_labelled"])
    verdict = (
        f"Nominal level {100 * float(level):g} %. Departures: {found['n_bad']} of {found['n_labelled']} labelled "
        f"frames are bad (force error above {found['threshold_eV_per_A']:.3g} eV/Å), {found['n_bad_held_out']} of them "
        f"held-out equilibrium frames; {found['n_failed_labels']} labels failed; a frame every "
        f"{found['interval_fs']:g} fs."
    )
    if cost := results.get("overhead"):
        numbers["time of the charts in MD"] = Number(cost["watch_overhead_percent_inside"], "%", 3)
        verdict += (
            f" Reading the charts every {cost['steps_per_reading']:.0f} steps costs "
            f"{cost['watch_overhead_percent_inside']:.1f} % ({cost['watch_ms_per_reading']:.1f} ms a reading, "
            f"{cost['md_ms_per_step']:.1f} ms a step); in every step {cost['step_overhead_percent']:.0f} %."
        )
    atoms = results["false_alarms"]["atoms"]
    limits = list(next(iter(atoms.values()), {}))
    percent = [[element, *(100.0 * row[limit] for limit in limits)] for element, row in atoms.items()]
    title = "held-out atoms above limits, %"
    return Outcome(
        verdict=verdict,
        answer="measured",
        numbers=numbers,
        brief=[brief(COLUMNS, table_rows(results)), brief(("element", *limits), percent, title=title)],
    )
