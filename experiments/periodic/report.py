"""Figures, tables, numbers and verdict of ``experiments.periodic``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.display import brief
from experiments.lab.errors import ERRORS, error_curve
from experiments.lab.record import Number
from experiments.lab.run import Outcome
from experiments.periodic.evaluation import SQUARES
from mlipjax.finetuning.records import round_rows
from mlipjax.report import ErrorCurve, Illustration, Table, Trace, error_against_labels, pca_map, q_residual, traces
from mlipjax.statistics import paired_bootstrap

_ARMS = ("naive", "single", "periodic")

_COLUMNS = ("model", "labels", "test set", "n", "energy mean", "std", "RMSE (meV/atom)", "force RMSE (meV/Å)")


def error_rows(results: dict[str, Any]) -> list[list[Any]]:
    """Rows of the table of errors: energies in meV/atom, forces in meV/Å."""
    order = {"zero-shot": 0, "naive": 1, "single": 2, "periodic": 3}
    rows = sorted(results["errors"], key=lambda row: (row["test"], order[row["arm"]], row["labels"]))
    return [
        [row["arm"], row["labels"], row["test"], row["n_frames"], *(row[k] for k in ERRORS.values())] for row in rows
    ]


def outcome(results: dict[str, Any]) -> Outcome:
    """Return what a run shows and says."""
    times, scaled, limits = _q(results)
    n = int(results["settings"]["test_frames"])
    content = {
        "errors": Illustration(
            error_against_labels(_curves(results), x_label="labels used"),
            "Errors of every model with 95 % bootstrap intervals over frames; zero labels: the universal model. Upper "
            f"row: frames of a trajectory driven by the oracle ({n} frames, the same for all). Lower row: frames of "
            "each final model's own trajectory; for the periodic arm also frames each round's model sampled before it "
            "was trained on them. One seed.",
            "Error against labels",
        ),
        "traces": Illustration(
            traces(_traces(results), target_temperature=float(results["settings"]["temperature"])),
            "Own trajectories of the final models, from the same structure and the same velocities.",
            "Own trajectories",
        ),
        "pca": Illustration(
            pca_map({k: np.array(v) for k, v in results["charts"]["pca"].items()},
                    explained=tuple(results["charts"]["explained"]), what="frames"),
            "The three training sets in the universal model's features (mean per element, side by side). Ellipses are "
            "two standard deviations.",
            "What was sampled",
        ),
        "q_residual": Illustration(
            q_residual(times, scaled, limits=limits, unit="relative to training"),
            "Mean Q-residual per element along each model's own trajectory, in units of the 99th percentile over its "
            "own training frames (dashed): above one, the model is where it was not trained. Plain percentile, not a "
            "calibrated limit.",
            "Q-residual",
        ),
        "table": Table(
            _COLUMNS,
            error_rows(results),
            f"Energies in meV/atom, forces in meV/Å; {results['n_atoms']} atoms; errors are model minus oracle.",
        ),
    }  # fmt: skip
    final = final_rows(results)
    rmse = {arm: final[arm, "independent"]["force_rmse_meV_per_A"] for arm in ("zero-shot", *_ARMS)}
    text, answer, alarm = verdict(results)
    return Outcome(
        verdict=text,
        answer=answer,
        numbers={
            "force RMSE, naive / periodic": Number(rmse["naive"] / rmse["periodic"], "", n),
            "force RMSE, single / periodic": Number(rmse["single"] / rmse["periodic"], "", n),
            "force RMSE, zero-shot / periodic": Number(rmse["zero-shot"] / rmse["periodic"], "", n),
            "force RMSE, periodic": Number(rmse["periodic"], "meV/Å", n),
        },
        brief=[brief(_COLUMNS, error_rows(results), ".1f", names=3)],
        title="Naive, periodic and single-trajectory fine-tuning",
        content=content,
        alarm=alarm,
    )


def final_rows(results: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """Errors of the last model of each arm, by arm and test."""
    ordered = sorted(results["errors"], key=lambda row: row["labels"])
    return {(row["arm"], row["test"]): row for row in ordered}


def verdict(results: dict[str, Any]) -> tuple[str, str, bool]:
    """One paragraph (which arm is better where, what stopped), the answer to the claim, and whether to warn."""
    final = final_rows(results)
    sentences = [f"With {results['labels_per_arm']} labels per arm and one seed:"]
    for test in ("independent", "own trajectory"):
        zero = final["zero-shot", test]["force_rmse_meV_per_A"]
        values = ", ".join(f"{arm} {final[arm, test]['force_rmse_meV_per_A']:.0f}" for arm in _ARMS)
        spreads = ", ".join(f"{arm} {final[arm, test]['energy_std_meV_per_atom']:.1f}" for arm in _ARMS)
        sentences.append(
            f"on the {test} test the force RMSE is {values} meV/Å (zero-shot {zero:.0f}) and the offset-free energy "
            f"error {spreads} meV/atom;"
        )
    best, second = sorted(_ARMS, key=lambda arm: final[arm, "independent"]["force_rmse_meV_per_A"])[:2]
    squares = (np.array([final[arm, "independent"][SQUARES]]) for arm in (best, second))
    found = paired_bootstrap(next(squares), next(squares), lambda drawn: float(np.sqrt(drawn.mean())))
    says = f"by {-found.value:.1f} [{-found.high:.1f}, {-found.low:.1f}] meV/Å, frames paired"
    weight = "more than its frames explain, but one seed decides nothing" if found.decided else "no winner at this size"
    sentences.append(f"{best} is lowest on the independent test, before {second} {says}: {weight}.")
    if stopped := [name for name, trace in results["traces"].items() if trace["stopped"]]:
        sentences.append(f"The own trajectory of {', '.join(stopped)} broke the limits of the simulation.")
    if failed := results["labels"]["failed"]:
        sentences.append(f"{failed} labels failed and were left out.")
    if results["settings"].get("on_alarm", "off") != "off":
        sentences.append(f"Alarms: {', '.join(f'{arm} {count}' for arm, count in results['alarms'].items())}.")
    # what another seed would find is not in an interval over the frames of one
    return " ".join(sentences), "not decided", bool(stopped)


def _curves(results: dict[str, Any]) -> dict[str, dict[str, ErrorCurve]]:
    curves: dict[str, dict[str, ErrorCurve]] = {}
    for test in ("independent", "own trajectory"):
        rows = [row for row in results["errors"] if row["test"] == test]
        zero = [row for row in rows if row["arm"] == "zero-shot"]
        arms = {}
        for arm in _ARMS:
            own = [row for row in rows if row["arm"] == arm]
            sampled = _sampled_rows(results) if test == "own trajectory" and arm == "periodic" else []
            start = [] if sampled else zero
            arms[arm] = [*(start if arm == "periodic" else []), *sampled, *own]
        arms["zero-shot"] = zero
        curves[test] = {arm: error_curve((row["labels"], row) for row in own) for arm, own in arms.items()}
    return curves


def _sampled_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Errors of the periodic arm's models on the frames they sampled, round by round, as curves without intervals."""
    rows = [{**row, "labels": row["labels_before"]} for row in round_rows(results["histories"]["periodic"])]
    return [{**row, "confidence_95": {key: (row[key], row[key]) for key in ERRORS.values()}} for row in rows]


def _traces(results: dict[str, Any]) -> dict[str, Trace]:
    runs = {}
    for name, trace in results["traces"].items():
        time = 1e-3 * trace["timestep_fs"] * np.arange(1, len(trace["temperature_K"]) + 1)
        runs[name] = Trace(time, trace["temperature_K"], trace["energy_eV_per_atom"])
    return runs


def _q(results: dict[str, Any]) -> tuple[dict, dict, dict[str, float]]:
    settings = results["settings"]
    per_frame = 1e-3 * float(settings["timestep"]) * int(settings["steps"])
    q, limits = results["charts"]["q"], results["charts"]["q_training_99"]
    elements = list(next(iter(q.values())))
    times = {arm: per_frame * np.arange(1, len(values[elements[0]]) + 1) for arm, values in q.items()}
    scaled = {
        element: {arm: np.array(values[element]) / max(limits[arm][element], 1e-30) for arm, values in q.items()}
        for element in elements
    }
    return times, scaled, dict.fromkeys(elements, 1.0)
