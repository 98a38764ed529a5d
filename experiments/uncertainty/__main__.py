"""Entry point: see ``experiments/uncertainty/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.uncertainty import report, runs
from experiments.uncertainty.config import PRESETS
from experiments.uncertainty.config import __doc__ as CLAIM

main = functools.partial(
    run_parts, PRESETS, runs.units_of, runs.collect, report.outcome, check=lambda config: config.file
)
run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
