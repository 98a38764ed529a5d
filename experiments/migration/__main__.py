"""Entry point: see ``experiments/migration/config.py``."""

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.migration import report, units
from experiments.migration.config import Config

main = functools.partial(run_parts, units.units_of, report.collect, report.outcome, check=units.check, again=True)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
