"""Entry point: see ``experiments/periodic/config.py``."""

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.periodic import report, units
from experiments.periodic.arms import open_experiment
from experiments.periodic.config import Config

main = functools.partial(run_parts, units.units_of, units.collect, report.outcome, check=open_experiment)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
