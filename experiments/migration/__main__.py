"""Entry point: see ``experiments/migration/config.py``."""

from __future__ import annotations

import json
import sys

from experiments.lab.display import Table, make_console
from experiments.lab.entry import claim_folder, run_experiment, settings_of
from experiments.lab.units import run_units
from experiments.migration import report
from experiments.migration import units as parts
from experiments.migration.config import PRESETS, Config
from experiments.migration.config import __doc__ as CLAIM
from mlipjax import runtime
from mlipjax.files import plain, write_atomic


def main(config: Config) -> None:
    """Run what is missing, print and report."""
    parts.check(config)
    console = make_console()
    settings = settings_of(config, apart=("out", "workers"))
    claim_folder(config.out, settings)
    done = run_units(parts.units_of(config), config.out / "units", console, config.workers)
    results = plain(parts.collect(config, done))
    summary = report.summarise(results)
    everything = {"summary": summary, **results, "config": settings, "versions": runtime.versions()}
    write_atomic(config.out / "results.json", json.dumps(plain(everything), indent=1, allow_nan=False))
    command = " ".join(["python", "-m", "experiments.migration", *sys.argv[1:]])
    report.write(config.out, results, summary, command, runtime.versions())
    for path, entries in summary["paths"].items():
        title = f"{path}: barriers, and distance from the oracle"
        console.print(Table(report.BRIEF_COLUMNS, list(report.brief_rows(entries)), title))
    console.print(report.verdict(results, summary), highlight=False)
    console.print(f"report: {config.out / 'report.html'}")


if __name__ == "__main__":
    raise SystemExit(run_experiment(main, PRESETS, CLAIM))
