"""Table, verdict and report of ``experiments.bias``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.bias.claims import Claim, find_claims, find_runs
from experiments.bias.draw import draw
from experiments.bias.models import Experiment
from experiments.lab.display import brief
from experiments.lab.errors import ERRORS
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from mlipjax.report import Table

COLUMNS = (
    "arm", "labels", "seed", "strategy", "test", "n", "E mean", "E std", "E RMSE (meV/atom)", "F MAE",
    "F RMSE (meV/Å)", "F MAE / mean |F|", "stress MAE (meV/Å³)", "extrapolating n", "their F RMSE", "retained F MAE",
)  # fmt: skip
_CLAIM_COLUMNS = ("claim", "answer", "measure", "value", "95 % interval", "decides at", "n frames")


def table_rows(results: dict[str, Any]) -> list[list[Any]]:
    """One row for each model and test set."""
    energies = list(ERRORS.values())[:3]
    rows = []
    for row in results["rows"]:
        for test, errors in row["tests"].items():
            outside = row["extrapolating"].get(test)
            norm = errors["force_reference_mean_norm_meV_per_A"]
            rows.append([
                row["arm"], row["labels"], row["seed"], row["strategy"], test, errors["n_frames"],
                *(errors[k] for k in energies),
                errors["force_mae_meV_per_A"], errors["force_rmse_meV_per_A"], errors["force_mae_meV_per_A"] / norm,
                errors["stress_mae_meV_per_A3"],
                outside["n_frames"] if outside else 0, outside["force_rmse_meV_per_A"] if outside else None,
                row["retained"]["force_mae_meV_per_A"] if row["retained"] else None,
            ])  # fmt: skip
    return rows


def verdict(results: dict[str, Any], claims: list[Claim]) -> tuple[str, bool]:
    """Conclusions from these data, and what they do not support; alarming if fine-tuning made force errors worse."""
    n = sum(results["n_tests"].values())
    head = (
        f"{results['system']}: models fine-tuned on {results['common']} labels of each arm, {results['n_seeds']} "
        f"seed(s), tested on {n} held-out frames of {len(results['n_tests'])} groups."
    )
    parts = [head]
    for answer, opening in (
        ("supported", "Supported"),
        ("contradicted", "Contradicted"),
        ("not decided", "Not decided (the interval holds both answers)"),
    ):
        found = [
            f"{c.statement} ({c.value:.2f}, {c.low:.2f} to {c.high:.2f}, n = {c.n})"
            for c in claims
            if c.answer == answer
        ]
        if found:
            parts.append(f"{opening}: {'; '.join(found)}.")
    parts += [
        f"Doctor: {found['message']} ({len(found['in_training'])} in training, {len(found['held_out'])} held out): "
        "energy statistics of their groups hang on them."
        for found in results["outliers"].values()
    ]
    if results["own"]:
        parts.append("Own trajectories: " + " ".join(find_runs(results)))
    parts.append("Numbers are ratios unless the table says otherwise; intervals are over frames of few trajectories "
                 "and seeds, and therefore too narrow.")  # fmt: skip
    worse = any(c.answer == "contradicted" and "lowers force errors" in c.statement for c in claims)
    return " ".join(parts), worse


def _numbers(results: dict[str, Any]) -> dict[str, Number]:
    """Errors of each arm's model with the most labels on its own held-out group, and labels that halve the error."""
    rows = [row for row in results["rows"] if row["strategy"] in ("", results["strategies"][0])]
    zero = next(row for row in rows if row["arm"] == "zero-shot")
    found = {}
    for arm, what in results["held_out"].items():
        own = [row for row in rows if row["arm"] == arm]
        most, group = max(row["labels"] for row in own), f"{arm}: {what}"
        last = [row for row in own if row["labels"] == most]
        force, energy = (
            float(np.mean([row["tests"][group][ERRORS[key]] for row in last])) for key in ("force_rmse", "energy_mean")
        )
        n, where = results["n_tests"][group], f"{arm}, {most} labels, own held-out group"
        before = zero["tests"][group][ERRORS["force_rmse"]]
        found[f"force RMSE / zero-shot, {where}"] = Number(force / before, "", n, len(last))
        found[f"mean energy error, {where}"] = Number(energy, "meV/atom", n, len(last))
        halved = [row["labels"] for row in own if _force_rmse(row) <= 0.5 * _force_rmse(zero)]
        every = sum(results["n_tests"].values())
        found[f"labels that halve the force RMSE, {arm}"] = Number(min(halved, default=None), "", every)
    return found


def _force_rmse(row: dict[str, Any]) -> float:
    """Over all held-out groups, each of which counts alike."""
    return float(np.sqrt(np.mean([np.mean(test["frames"]["force_squared"]) for test in row["tests"].values()])))


def outcome(experiment: Experiment, results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    claims = find_claims(results)
    text, alarm = verdict(results, claims)
    claim_rows = [
        [c.statement, c.answer, c.measure, c.value, f"{c.low:.3g} to {c.high:.3g}", c.threshold, c.n] for c in claims
    ]
    events = [
        [arm, kind, len(values), float(np.min(values)), float(np.mean(values)), float(np.max(values))]
        for arm, kinds in results["events"].items()
        for kind, values in kinds.items()
    ]
    title = "What these data say about the claims of arXiv 2603.10159 and its recipe."
    caption = (
        "Every model on every held-out group; errors are model minus DFT. Extrapolating: frames with a contact shorter "
        "than any of its pair of elements in the model's training set. Retained: MPtrj, with the start model's "
        "isolated-atom energies."
    )
    errors = [[f"{row[0]} {row[1]} {row[3]}", row[4], row[5], row[7], row[10], row[6]] for row in table_rows(results)]
    main = next((c.answer for c in claims if c.statement.startswith("periodic data give lower force errors")), None)
    return Outcome(
        verdict=text,
        answer=main or "not decided",
        numbers={c.statement: Number(c.value, "", c.n, results["n_seeds"]) for c in claims} | _numbers(results),
        brief=[brief(("model", "test", "n", "E std", "F RMSE", "E mean (meV)"), errors, ".1f", names=2)],
        title=f"Bias of the training data: {results['system']}",
        content={
            "claim_table": Table(_CLAIM_COLUMNS, claim_rows, title),
            **draw(experiment, results, claims),
            "table": Table(COLUMNS, table_rows(results), caption),
            "events": Table(
                ["arm", "count per frame", "frames", "min", "mean", "max"], events, "Bonds in the published frames."
            ),
        },
        alarm=alarm,
    )
