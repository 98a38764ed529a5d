"""Entry point: see ``experiments/periodic/config.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.console import Console

from experiments.lab.display import Table, make_console
from experiments.lab.entry import claim_folder, run_experiment, settings_of
from experiments.periodic import arms, report
from experiments.periodic.config import PRESETS, Config
from experiments.periodic.config import __doc__ as CLAIM
from experiments.periodic.experiment import Experiment
from mlipjax import runtime
from mlipjax.files import write_atomic


def main(config: Config) -> None:
    """Run what is missing and write ``results.json``, ``report.html`` and the figures."""
    console = make_console()
    results_file = config.out / "results.json"
    runtime.select_dtype(config.dtype)
    settings = settings_of(config, apart=("out", "workers"))
    claim_folder(config.out, settings)
    if results_file.exists():
        console.print(f"{config.out} is done: see report.html there, or choose another --out")
        _print_summary(console, json.loads(results_file.read_text()))
        return
    experiment = Experiment.open(config, console)
    results = {"settings": settings, **arms.run(experiment), "versions": runtime.versions()}
    report.write(config.out, results, command=" ".join(["python -m experiments.periodic", *sys.argv[1:]]))
    # last: its presence says that the run is done
    write_atomic(results_file, json.dumps(results, indent=1))
    _print_summary(console, results)
    console.print(f"report: {config.out / 'report.html'}")


def _print_summary(console: Console, results: dict) -> None:
    table = []
    for row in report.error_rows(results):
        table.append([f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row])
    headings = ("model", "labels", "test set", "n", "mean", "std", "RMSE (meV/atom)", "force RMSE (meV/Å)")
    console.print(Table(headings, table, name_columns=3))
    if results["settings"].get("on_alarm", "off") != "off":
        console.print("alarms: " + ", ".join(f"{arm} {count}" for arm, count in results["alarms"].items()))


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, PRESETS, CLAIM, arguments)


if __name__ == "__main__":
    sys.exit(run())
