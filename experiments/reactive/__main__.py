"""Entry point: see ``experiments/reactive/config.py``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from experiments.lab.display import Table, make_console
from experiments.lab.entry import claim_folder, run_experiment, settings_of
from experiments.lab.units import run_units
from experiments.reactive import report
from experiments.reactive import units as parts
from experiments.reactive.config import PRESETS, Config
from experiments.reactive.config import __doc__ as CLAIM
from mlipjax import runtime
from mlipjax.files import write_atomic

NATIVE = ("nequix-mp-1", "nequix-omat-1", "nequix-oam-1-pft")


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    console = make_console()
    parts.check(config)
    settings = settings_of(config, apart=("out", "workers"))
    claim_folder(config.out, settings)
    done = run_units(parts.units_of(config), config.out / "units", console, config.workers)
    results = {"settings": settings, **parts.collect(config, done), "versions": runtime.versions()}
    report.write(config.out, results, command=" ".join(["python -m experiments.reactive", *sys.argv[1:]]))
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    for system, rows in report.brief(results).items():
        console.print(Table(report.BRIEF_COLUMNS, list(rows), system))
    console.print(report.verdict(results)[0])
    console.print(f"report: {config.out / 'report.html'}")


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, PRESETS, CLAIM, arguments)


if __name__ == "__main__":
    sys.exit(run())
