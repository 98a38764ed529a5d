"""Entry point: see ``experiments/defaults/config.py``."""

import functools
import sys

from experiments.defaults import report, runs
from experiments.defaults.config import Config
from experiments.lab.entry import run_experiment, run_parts

main = functools.partial(run_parts, runs.units, report.collect, report.outcome)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
