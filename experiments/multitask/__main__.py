"""Entry point: see ``experiments/multitask/config.py``."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from experiments.lab.display import Table, make_bar, make_console
from experiments.lab.entry import claim_folder, run_experiment, settings_of
from experiments.multitask import report
from experiments.multitask.collapse import examine
from experiments.multitask.config import PRESETS, Config
from experiments.multitask.config import __doc__ as CLAIM
from experiments.multitask.runs import Experiment, execute, read_predictions
from mlipjax import runtime
from mlipjax.data.properties import property_name, targets
from mlipjax.files import write_atomic


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
        "before": experiment.force_field(experiment.params),
        "targets": {"id": targets(bench.id_test, key).tolist(), "ood": targets(bench.ood_test, key).tolist()},
        "spread": float(targets(bench.training(experiment.config.n_train), key).std()),
        "rows": rows,
    }


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures.

    Raises:
        ValueError, FileNotFoundError: if data are missing, or the folder holds another experiment.
    """
    console = make_console()
    experiment = Experiment.open(config)
    config = experiment.config
    settings = settings_of(config)
    claim_folder(config.out, settings)
    started = time.monotonic()
    results: dict[str, Any] = {"settings": settings, **compare_modes(experiment, console)}
    results["seconds"] = round(time.monotonic() - started, 1)
    predictions = {run: read_predictions(config.out, run) for run in experiment.runs()}
    targets = results.pop("targets")
    results["summary"] = report.summarise(results, predictions, targets)
    with console.status("features of all models"):
        results["representation"] = examine(experiment)
    results |= {"dtype": "float32", "versions": runtime.versions()}
    report.write(
        config.out, results, predictions, targets, " ".join(["python -m experiments.multitask", *sys.argv[1:]])
    )
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    table = []
    for row in report.table_rows(results):
        cells = [*row[:4], row[5], *row[7:10], row[-1]]
        table.append([f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells])
    console.print(Table(("mode", "n", "seeds", "ID MAE", "OOD MAE", "ID %", "OOD %", "OOD/ID", "F MAE left"), table))
    console.print(report.verdict(results)[0])


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, PRESETS, CLAIM, arguments)


if __name__ == "__main__":
    sys.exit(run())
