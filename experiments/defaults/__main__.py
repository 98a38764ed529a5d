"""Entry point: see ``experiments/defaults/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.defaults import report, runs
from experiments.defaults.config import PRESETS
from experiments.defaults.config import __doc__ as CLAIM
from experiments.lab.entry import run_experiment, run_parts

main = functools.partial(run_parts, PRESETS, runs.units, report.collect, report.outcome)
run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
