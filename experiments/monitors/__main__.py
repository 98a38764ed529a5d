"""Entry point: see ``experiments/monitors/config.py``."""

from __future__ import annotations

import functools
import sys
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.monitors import report, runs
from experiments.monitors.config import Config
from experiments.monitors.scores import Comparison
from mlipjax import load, monitoring
from mlipjax.data import Dataset, runs_of
from mlipjax.monitoring.soap import band
from mlipjax.oracles import Failure, Labeller, make_oracle
from mlipjax.report import save_figure
from mlipjax.report.monitor import control_charts


def false_alarms(config: Config, fitted: Comparison, reference: Dataset, held_out: Dataset) -> dict[str, Any]:
    """Fraction of held-out equilibrium frames above the limits that reference frames set."""
    calibration = reference.subset(monitoring.split_reference(runs_of(reference))[1])
    known, _ = fitted.scores(calibration)
    new, features = fitted.scores(held_out)
    result: dict[str, Any] = {"n_calibration": len(calibration), "n_held_out": len(held_out), "indices": {}}
    for name in fitted.indices:
        series = monitoring.by_run(known[name], runs_of(calibration))
        mine, limit = monitoring.by_run(new[name], runs_of(held_out)), monitoring.thinned_limit(series, config.level)
        box = monitoring.box_limit(float(known[name].mean()), float(known[name].var(ddof=1)), config.level)
        result["indices"][name] = {
            **{f"calibration_{key}": value for key, value in limit._asdict().items()},
            "n_effective": monitoring.effective_size(mine),
            "conformal": float(np.mean(new[name] > limit.limit)),
            "conformal_per_run": [float(np.mean(run > limit.limit)) for run in mine],
            "box": float(np.mean(new[name] > box)),
            "band": float(np.mean(new[name] > band(known[name])[1])),
        }
    result["atoms"] = _atom_alarms(config, fitted.monitor, features)
    if fitted.crossed is not None:
        # limits from all reference runs, each judged by the others
        alarm = monitoring.read_frames(fitted.crossed, features).alarm
        for k, name in enumerate(monitoring.FRAME_INDICES):
            mine = monitoring.by_run(alarm[:, k], runs_of(held_out))
            result["indices"][name]["cross"] = float(np.mean(alarm[:, k]))
            result["indices"][name]["cross_per_run"] = [float(np.mean(run)) for run in mine]
            result["indices"][name]["cross_n_used"] = fitted.crossed.frame_calibration[name].n_used
    return result


def _atom_alarms(config: Config, fitted: monitoring.Monitor, features: monitoring.FrameFeatures) -> dict[str, Any]:
    """Fraction of held-out atoms of each element above parametric and conformal limits."""
    from ase.data import chemical_symbols

    values, numbers, _ = features.atoms()
    rows, charts = np.asarray(fitted.rows(numbers)), fitted.charts
    atoms = monitoring.atom_indices(charts, jnp.asarray(values), jnp.asarray(rows))
    q, t2, result = np.asarray(atoms.q), np.asarray(atoms.t2), {}
    for row, z in enumerate(fitted.species):
        moments, own = charts.residual[row].tolist(), rows == row
        n, rank = int(charts.count[row]), int(np.sum(charts.eigenvalues[row] > 0.0))
        limits = {
            "q_jackson_mudholkar": (q, monitoring.jackson_mudholkar(moments, config.level)),
            "q_box": (q, monitoring.box_q_limit(moments, config.level)),
            "q_conformal": (q, float(charts.q_limit[row])),
            "t2_f": (t2, monitoring.t2_limit_f(n, rank, config.level)),
            "t2_conformal": (t2, float(charts.t2_limit[row])),
        }
        result[chemical_symbols[z]] = {
            name: float(np.mean(index[own] > limit)) for name, (index, limit) in limits.items()
        }
    return result


def force_errors(labeller: Labeller, frames: Dataset) -> np.ndarray:
    """(n,) RMSE in eV/Å of the forces that a trajectory carries; NaN where the oracle failed."""
    outcomes = labeller.label(frames.systems)
    errors = np.full(len(frames), np.nan)
    for i, (outcome, carried) in enumerate(zip(outcomes, frames.labels, strict=True)):
        if not isinstance(outcome, Failure):
            errors[i] = np.sqrt(np.mean((np.asarray(outcome.forces) - np.asarray(carried.forces)) ** 2))
    return errors


def detection(
    config: Config, fitted: Comparison, labeller: Labeller, reference: Dataset, held_out: Dataset, away: Dataset
) -> dict[str, Any]:
    """AUROC and lead time of every index for frames whose force error exceeds twice that of the reference."""
    from sklearn.metrics import roc_auc_score

    few = [data.subset(np.linspace(0, len(data) - 1, config.labelled).astype(int)) for data in (reference, held_out)]
    trained = force_errors(labeller, few[0])
    threshold = 2.0 * float(np.sqrt(np.nanmean(trained**2)))
    both = few[1] + away
    errors, (scores, _) = force_errors(labeller, both), fitted.scores(both)
    known = np.isfinite(errors)
    bad = errors[known] > threshold
    calibration = reference.subset(monitoring.split_reference(runs_of(reference))[1])
    in_control, _ = fitted.scores(calibration)
    kinds = np.array(["held_out"] * len(few[1]) + [str(info["run"]) for info in away.infos])
    interval = float(away.infos[1]["time_fs"]) - float(away.infos[0]["time_fs"])
    result: dict[str, Any] = {
        "threshold_eV_per_A": threshold,
        "n_labelled": int(known.sum()),
        "n_failed_labels": int((~known).sum()),
        "n_bad": int(bad.sum()),
        "n_bad_held_out": int(np.sum(errors[: len(few[1])] > threshold)),
        "interval_fs": interval,
        "indices": {},
    }
    for name in fitted.indices:
        series = monitoring.by_run(in_control[name], runs_of(calibration))
        limit = monitoring.thinned_limit(series, config.level).limit
        leads = {run: runs.lead_time(scores[name][kinds == run] > limit, errors[kinds == run] > threshold, interval)
                 for run in dict.fromkeys(kinds) if run != "held_out"}  # fmt: skip
        result["indices"][name] = {
            "auroc": float(roc_auc_score(bad, scores[name][known])) if 0 < bad.sum() < len(bad) else None,
            "detected_bad_frames": float(np.mean(scores[name][known][bad] > limit)),
            "lead_fs": leads,
        }
    _figure(config, fitted, scores, kinds, interval)
    return result


def _figure(config: Config, fitted: Comparison, scores: Any, kinds: np.ndarray, interval: float) -> None:
    away = kinds != "held_out"
    names = dict(zip(("Q / limit", "T² / limit", "combined"), range(3), strict=True))
    groups = kinds[away].tolist()
    x = np.concatenate([interval * np.arange(1, groups.count(run) + 1) for run in dict.fromkeys(groups)])
    figure = control_charts(
        {name: scores[monitoring.FRAME_INDICES[k]][away] for name, k in names.items()},
        {name: float(fitted.monitor.charts.frame_limits[k]) for name, k in names.items()},
        runs=groups,
        x=x / 1000.0,
        x_label="time (ps)",
    )
    save_figure(figure, config.out / "departures.png")


def main(config: Config) -> None:
    """Run what is missing, write ``results.json`` and print."""
    run = Run(config)
    model = load(config.model)
    reference = runs.equilibrium(config, model, "reference", config.seed + 1, config.reference_runs)
    held_out = runs.equilibrium(config, model, "held_out", config.seed + 2, config.held_out_runs)
    away = runs.departures(config, model)
    started = time.perf_counter()
    fitted = Comparison.fit(config, model, reference)
    found: dict[str, Any] = {
        "seconds_to_fit": time.perf_counter() - started,
        "false_alarms": false_alarms(config, fitted, reference, held_out),
    }
    with Labeller(make_oracle(config.oracle), config.out / "labels.db", n_workers=config.workers) as labeller:
        found["detection"] = detection(config, fitted, labeller, reference, held_out, away)
    if config.timing_steps:
        found["overhead"] = runs.overhead(config, model, fitted.monitor)
    results = run.results(found)
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
