"""Entry point: see ``experiments/multitask/config.py``."""

from __future__ import annotations

import functools
import sys
from typing import Any

from rich.console import Console

from experiments.lab.display import make_bar
from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.multitask import report
from experiments.multitask.collapse import examine
from experiments.multitask.config import Config
from experiments.multitask.runs import Experiment, execute, read_predictions
from mlipjax.data.properties import property_name, targets


def compare_modes(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Train and evaluate everything that is not on disk yet."""
    runs, rows = experiment.runs(), []
    with make_bar(console, "{task.description}") as progress:
        bar = progress.add_task("runs", total=len(runs))
        steps = progress.add_task("steps", total=experiment.config.steps)
        for run in runs:
            progress.update(steps, description=run.name, completed=0)
            rows.append(execute(experiment, run, progress, steps))
            progress.advance(bar)
    bench, key = experiment.bench, property_name(experiment.bench.valid)
    return {
        "property": bench.name,
        "unit": bench.unit,
        "domain": bench.domain,
        "force_field": experiment.notes,
        "n_retained": len(experiment.retained.dataset),
        "before": experiment.force_field(experiment.model.params),
        "targets": {"id": targets(bench.id_test, key).tolist(), "ood": targets(bench.ood_test, key).tolist()},
        "spread": float(targets(bench.training(experiment.config.n_train), key).std()),
        "rows": rows,
    }


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures.

    Raises:
        ValueError, FileNotFoundError: if data are missing, or the folder holds another experiment.
    """
    experiment = Experiment.open(config)
    run = Run(experiment.config)
    results = run.results({**compare_modes(experiment, run.console), "dtype": "float32"})
    predictions = {one: read_predictions(config.out, one) for one in experiment.runs()}
    targets = results.pop("targets")
    results["summary"] = report.summarise(results, predictions, targets)
    with run.console.status("features of all models"):
        results["representation"] = examine(experiment)
    run.finish(results, report.outcome(results, predictions, targets))


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
