"""Entry point: see ``experiments/reactive/config.py``."""

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.reactive import report, units
from experiments.reactive.config import Config

main = functools.partial(run_parts, units.units_of, units.collect, report.outcome, check=units.check, again=True)
run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
