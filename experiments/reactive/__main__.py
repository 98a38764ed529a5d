"""Entry point: see ``experiments/reactive/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment, run_parts
from experiments.reactive import report, units
from experiments.reactive.config import PRESETS
from experiments.reactive.config import __doc__ as CLAIM

main = functools.partial(
    run_parts, PRESETS, units.units_of, units.collect, report.outcome, check=units.check, again=True
)
run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
