"""Entry point: see ``experiments/strategies/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.strategies import report, runs
from experiments.strategies.config import PRESETS
from experiments.strategies.config import __doc__ as CLAIM

main = functools.partial(run_parts, PRESETS, runs.units_of, runs.collect, report.outcome)
run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
