"""Entry point: see ``experiments/strategies/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.lab.units import run_units
from experiments.strategies import report, runs
from experiments.strategies.config import PRESETS, Config
from experiments.strategies.config import __doc__ as CLAIM


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figure."""
    run = Run(config, PRESETS)
    if (results := run.stored()) is None:
        done = run_units(runs.units_of(config), config.out / "units", run.console, config.workers)
        results = run.results(runs.collect(config, done))
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
