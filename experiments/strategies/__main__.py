"""Entry point: see ``experiments/strategies/config.py``."""

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.strategies import report, runs
from experiments.strategies.config import Config

main = functools.partial(run_parts, runs.units_of, runs.collect, report.outcome)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
