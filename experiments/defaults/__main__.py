"""Entry point: see ``experiments/defaults/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.defaults import report
from experiments.defaults.config import PRESETS, Config
from experiments.defaults.config import __doc__ as CLAIM
from experiments.defaults.runs import units
from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.lab.units import run_units


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figure.

    Raises:
        ValueError, FileNotFoundError: if data are missing, or the folder holds another experiment.
    """
    run = Run(config, PRESETS)
    if (results := run.stored()) is None:
        rows = list(run_units(units(config), config.out / "units", run.console, config.workers).values())
        results = run.results({"rows": rows, "summary": report.summarise(rows), "dtype": "float32"})
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
