"""Entry point: see ``experiments/migration/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.lab.units import run_units
from experiments.migration import report
from experiments.migration import units as parts
from experiments.migration.config import PRESETS, Config
from experiments.migration.config import __doc__ as CLAIM


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    parts.check(config)
    run = Run(config, PRESETS)
    done = run_units(parts.units_of(config), config.out / "units", run.console, config.workers)
    found = parts.collect(config, done)
    results = run.results({"summary": report.summarise(found), **found})
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
