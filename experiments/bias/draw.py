"""Figures of ``experiments.bias`` with their captions, drawn from its results."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.bias import figures
from experiments.bias.claims import Claim, final_rows
from experiments.bias.models import Experiment, Job, forces_of
from experiments.lab.errors import error_curve
from mlipjax.report import ErrorCurve, Illustration, error_against_labels, parity, pca_map, q_residual

Drawn = dict[str, Illustration]
"""By file name."""


def draw(experiment: Experiment, results: dict[str, Any], claims: list[Claim]) -> Drawn:
    """All figures of a run."""
    return {**_errors(experiment, results, claims), **_unknown(results), **_own(results), **_forgotten(results)}


def _errors(experiment: Experiment, results: dict[str, Any], claims: list[Claim]) -> Drawn:
    seeds = results["n_seeds"]
    held_out = ", ".join(f"{arm} {what}" for arm, what in results["held_out"].items())
    return {
        "claims": Illustration(
            figures.claim_chart(claims),
            "The measure of each claim (table above) with its 95 % interval; right of the line the claim holds.",
            "Claims",
        ),
        "errors": Illustration(
            error_against_labels(_curves(results)),
            f"Errors against DFT labels on each held-out group: mean of {seeds} seed(s), band: 95 % bootstrap interval "
            "over frames, widened to the extremes of the seeds; zero labels: the start model with E0s fitted to 11 "
            f"labels. Held out: {held_out}.",
            "Error against labels",
        ),
        "parity": Illustration(
            _parity(experiment, results),
            f"Force components of all held-out frames, models with {results['common']} labels (first seed).",
            "Parity of forces",
        ),
        "elements": Illustration(
            figures.element_errors(*_elements(results)),
            "Force errors by element over all held-out frames, models with equal labels, mean of seeds.",
            "Force errors by element",
        ),
    }


def _unknown(results: dict[str, Any]) -> Drawn:
    """Configurations that the arms sampled, and a model's knowledge of the frames of the others."""
    maps = results["maps"]
    drawn: Drawn = {
        "pca": Illustration(
            pca_map(
                {name: np.array(scores) for name, scores in maps["pca"].items()},
                explained=tuple(maps["explained"]),
                what="frames",
            ),
            "All published frames in the start model's last features (mean per element, side by side). Silhouette "
            "scores in the original standardised space: "
            + ", ".join(f"{pair} {score:.2f}" for pair, score in maps["silhouette"].items())
            + ". Distance of the means along PC 1 and 2, in standard deviations: "
            + ", ".join(f"{pair} {a:.2f} and {b:.2f}" for pair, (a, b) in maps["difference"].items()) + ".",
            "What the arms sampled",
        ),
        "cross_q": Illustration(
            figures.cross_charts(results["cross_q"], "× own held-out frames"),
            "Q-residual per element of each arm's model (its own features, charted on its own training frames) for "
            "frames it never saw: mean and 5 % to 95 % of the frames. 1 is the mean of its own held-out group.",
            "Does a model know the other arms' frames?",
        ),
    }  # fmt: skip
    if results["soap"]:
        explained = ", ".join(f"{name} {100 * chart['explained']:.0f} %" for name, chart in results["soap"].items())
        drawn["soap_q"] = Illustration(
            figures.cross_charts({name: chart["q"] for name, chart in results["soap"].items()}, "SOAP units²"),
            "The paper's own chart as reference: SOAP (5 Å, n 8, l 6, width 0.375 Å), all elements pooled, five "
            f"components (explained variance: {explained}), fitted to each arm's training frames. No model enters.",
            "The same with SOAP",
        )
    return drawn


def _own(results: dict[str, Any]) -> Drawn:
    drawn: Drawn = {}
    unit = "multiples of the mean over the chart's own held-out frames"
    runs = {name: run for name, run in results["own"].items() if len(run["time_ps"]) > 1}
    if runs:
        last = max(run["time_ps"][-1] for run in runs.values())
        elements = list(next(iter(runs.values()))["q"])
        drawn["own_q"] = Illustration(
            q_residual(
                {name: run["time_ps"] for name, run in runs.items()},
                {e: {name: run["q"][e] for name, run in runs.items()} for e in elements},
                unit="× own held-out frames",
            ),
            f"NPT dynamics at 300 K with each model from one start frame, {last:g} ps: mean Q per element in {unit}. "
            "The start model is charted on the naive frames, which it made.",
            "Q along own trajectories",
        )
        drawn["own_events"] = Illustration(
            figures.own_runs(runs),
            "The same trajectories: H-Cl contacts below 1.6 Å, C-H and O-H bonds below 1.3 Å, neighbours of Co (O, N, "
            "Cl) within 2.7 Å (equal counts are drawn a little apart), and density.",
            "Bonds and density along own trajectories",
        )
    return drawn


def _forgotten(results: dict[str, Any]) -> Drawn:
    drawn: Drawn = {}
    if growth := results["forgetting"]:
        drawn["forgetting"] = Illustration(
            figures.forgetting({s: {a: tuple(v) for a, v in by_arm.items()} for s, by_arm in growth.items()}),  # pyright: ignore[reportArgumentType]
            "Force error on MPtrj structures after fine-tuning relative to before, by strategy, with 95 % bootstrap "
            "intervals over structures and seeds.",
            "What is forgotten",
        )
    return drawn


def _parity(experiment: Experiment, results: dict[str, Any]) -> Figure:
    tests = list(experiment.tests.values())
    reference = np.concatenate([np.asarray(labels.forces).ravel() for data in tests for labels in data.labels])
    jobs = {"zero-shot": Job(None, 0, 0, "")}
    jobs |= {arm: Job(arm, results["common"], 0, results["strategies"][0]) for arm in experiment.arms}
    out = experiment.config.out
    found = {
        name: np.concatenate([forces_of(out, job, k).ravel() for k in range(len(tests))]) for name, job in jobs.items()
    }
    return parity(reference, found, quantity="force component", unit="eV/Å")


def _elements(results: dict[str, Any]) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Force MAE by arm and element over all tests, and the mean norm of the reference force."""
    zero = [row for row in results["rows"] if row["arm"] == "zero-shot"]
    chosen = {"zero-shot": zero, **final_rows(results)}

    def mean(rows: list[dict[str, Any]], key: str) -> dict[str, float]:
        total: dict[str, list[float]] = {}
        for row in rows:
            for errors in row["tests"].values():
                for element, own in errors["per_element"].items():
                    sums = total.setdefault(element, [0.0, 0.0])
                    sums[0] += own["n_atoms"] * own[key]
                    sums[1] += own["n_atoms"]
        return {element: value / count for element, (value, count) in total.items()}

    norm = mean(chosen["zero-shot"], "force_reference_mean_norm_meV_per_A")
    return {arm: mean(rows, "force_mae_meV_per_A") for arm, rows in chosen.items()}, norm


def _curves(results: dict[str, Any]) -> dict[str, dict[str, ErrorCurve]]:
    rows = [row for row in results["rows"] if row["strategy"] in ("", results["strategies"][0])]
    zero = [row for row in rows if row["arm"] == "zero-shot"]
    names = list(dict.fromkeys(row["arm"] for row in rows if row["arm"] != "zero-shot"))
    arms = {arm: [*zero, *(row for row in rows if row["arm"] == arm)] for arm in names}
    return {
        test: {arm: error_curve((row["labels"], row["tests"][test]) for row in own) for arm, own in arms.items()}
        for test in results["n_tests"]
    }
