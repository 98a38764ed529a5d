"""Table, figure and verdict of ``experiments.defaults``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.defaults.config import Config
from experiments.lab.display import brief
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.lab.statistics import rmse_ratio
from experiments.lab.units import Results
from mlipjax.report import Illustration, Table

GOAL = 66.0
"""meV/Å on the held-out round of the 197-atom liquid, which 980 frames reached with the defaults until then."""
MOST = 160
"""Gradients that may be used for it."""

COLUMNS = (
    "model", "system", "recipe", "seeds", "steps", "frames", "n", "force RMSE (meV/Å)", "of seeds", "times before",
    "95 %", "energy std (meV/atom)", "MPtrj force MAE", "CPU s",
)  # fmt: skip

Rows = Sequence[Mapping[str, Any]]


def collect(config: Config, done: Results) -> dict[str, Any]:
    """The results of all runs, and what they say of recipes."""
    rows = list(done.values())
    return {"rows": rows, "summary": summarise(rows), "dtype": "float32"}


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Errors of every model, system and recipe over seeds, and their ratio to those of the first recipe.

    Intervals draw seeds and frames with replacement at once, the same frames for both recipes. Frames of one round are
    50 ps apart along one trajectory, so the intervals are somewhat too narrow.
    """
    found, first = [], rows[0]["recipe"]
    for model, system in dict.fromkeys((row["model"], row["system"]) for row in rows):
        own = [row for row in rows if (row["model"], row["system"]) == (model, system)]
        reference = _squares(own, first)
        for recipe in dict.fromkeys(row["recipe"] for row in own):
            mine, squares = [row for row in own if row["recipe"] == recipe], _squares(own, recipe)
            found.append({
                "model": model,
                "system": system,
                "recipe": recipe,
                "seeds": len(mine),
                "steps": mine[0]["steps"],
                "frames": mine[0]["frames_seen"],
                "n": squares.shape[1],
                "before": mine[0]["before"]["force_rmse_meV_per_A"],
                "force_rmse": float(np.mean([row["after"]["force_rmse_meV_per_A"] for row in mine])),
                "of_seeds": [row["after"]["force_rmse_meV_per_A"] for row in mine],
                "ratio": rmse_ratio([squares], [reference]),
                "energy_std": float(np.mean([row["after"]["energy_std_meV_per_atom"] for row in mine])),
                "retained": _mean_or_none([row["after"]["retained_force_mae_meV_per_A"] for row in mine]),
                "retained_before": mine[0]["before"]["retained_force_mae_meV_per_A"],
                "cpu_seconds": float(np.mean([row["training_cpu_seconds"] for row in mine])),
            })  # fmt: skip
    return found


def _squares(rows: Rows, recipe: str) -> np.ndarray:
    """(seeds, frames) mean squared force errors."""
    return np.array([row["after"]["frame_squares_meV2_per_A2"] for row in rows if row["recipe"] == recipe])


def _mean_or_none(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def best(summary: Sequence[Mapping[str, Any]]) -> str:
    """Recipe with the lowest mean logarithm of its ratio to the first one."""
    scores: dict[str, list[float]] = {}
    for row in summary:
        scores.setdefault(row["recipe"], []).append(float(np.log(row["ratio"][0])))
    return min(scores, key=lambda name: np.mean(scores[name]))


def outcome(results: Mapping[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    summary = results["summary"]
    winner = best(summary)
    own = [row for row in summary if row["recipe"] == winner]
    answer = "measured" if results["settings"]["stage"] == "choice" else _answer(own)
    lines = [
        f"{row['model']}, {row['system']}: {row['force_rmse']:.1f} meV/Å ({row['ratio'][0]:.2f} times that of "
        f"{summary[0]['recipe']} [{row['ratio'][1]:.2f}, {row['ratio'][2]:.2f}])"
        for row in own
    ]
    verdict = (
        f"Best of {len({row['recipe'] for row in summary})} recipes at equal frames: {winner}. "
        + "; ".join(lines)
        + "."
    )
    table = [_cells(row) for row in summary]
    return Outcome(
        verdict=verdict,
        answer=answer,
        numbers=_numbers(summary, winner),
        brief=[brief(COLUMNS, table, "g", names=3)],
        title="Defaults of fine-tuning: force error at equal numbers of frames",
        content={
            "errors": Illustration(
                figure(summary),
                f"Force RMSE on frames of the held-out round (n = {', '.join(str(row['n']) for row in own)}), one mark "
                "for each seed, line: before fine-tuning.",
                "Errors of recipes",
            ),
            "table": Table(COLUMNS, table, "Means over seeds; ratios with 95 % intervals over seeds and frames."),
        },
    )  # fmt: skip


def _answer(own: Sequence[Mapping[str, Any]]) -> str:
    """The claim holds if the best recipe is better everywhere, and reaches the goal with few enough gradients."""
    if any(row["ratio"][1] > 1.0 for row in own):
        return "contradicted"
    goal = [row for row in own if (row["model"], row["system"]) == ("nequix-mp-1", "chclca")]
    reached = all(row["force_rmse"] <= GOAL and row["frames"] <= MOST for row in goal)
    return "supported" if reached and all(row["ratio"][2] < 1.0 for row in own) else "not decided"


def _cells(row: Mapping[str, Any]) -> list[Any]:
    value, low, high = row["ratio"]
    retained = None if row["retained"] is None else f"{row['retained_before']:.0f} → {row['retained']:.0f}"
    return [
        row["model"], row["system"], row["recipe"], row["seeds"], row["steps"], row["frames"], row["n"],
        f"{row['before']:.1f} → {row['force_rmse']:.1f}", " ".join(f"{one:.1f}" for one in row["of_seeds"]),
        f"{value:.3f}", f"[{low:.3f}, {high:.3f}]", f"{row['energy_std']:.2f}", retained, f"{row['cpu_seconds']:.0f}",
    ]  # fmt: skip


def _numbers(summary: Sequence[Mapping[str, Any]], winner: str) -> dict[str, Number]:
    numbers = {}
    for row in summary:
        if row["recipe"] == winner:
            where = f"{row['model']}, {row['system']}"
            n, seeds = row["n"], row["seeds"]
            numbers[f"force RMSE, {where}"] = Number(row["force_rmse"], "meV/Å", n, seeds)
            numbers[f"force RMSE / before, {where}"] = Number(row["ratio"][0], "", n, seeds)
    return numbers


def figure(summary: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw a panel for each model and system, a column for each recipe, a mark for each seed."""
    panels = list(dict.fromkeys((row["model"], row["system"]) for row in summary))
    drawn = Figure(figsize=(3.4 * len(panels), 3.2), layout="constrained")
    for number, (model, system) in enumerate(panels):
        axes = drawn.add_subplot(1, len(panels), number + 1)
        own = [row for row in summary if (row["model"], row["system"]) == (model, system)]
        for place, row in enumerate(own):
            axes.plot([place] * row["seeds"], row["of_seeds"], "o", color=f"C{place}")
        if (model, system) == ("nequix-mp-1", "chclca"):
            axes.axhline(GOAL, color="0.6", linestyle=":")
        axes.set_xticks(range(len(own)), [row["recipe"] for row in own], rotation=30, ha="right")
        axes.set_ylim(bottom=0.0)
        axes.set_title(f"{model}, {system}", fontsize=9)
        axes.set_ylabel("force RMSE (meV/Å)")
    return drawn
