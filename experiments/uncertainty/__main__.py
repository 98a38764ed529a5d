"""Entry point: see ``experiments/uncertainty/config.py``."""

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.uncertainty import report, runs
from experiments.uncertainty.config import Config

main = functools.partial(run_parts, runs.units_of, runs.collect, report.outcome, check=lambda config: config.file)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
