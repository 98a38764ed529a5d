"""Entry point: see ``experiments/periodic/config.py``."""

from __future__ import annotations

import functools
import sys

from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.periodic import arms, report
from experiments.periodic.config import PRESETS, Config
from experiments.periodic.config import __doc__ as CLAIM
from experiments.periodic.experiment import Experiment
from mlipjax import runtime


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    runtime.select_dtype(config.dtype)
    run = Run(config, PRESETS)
    results = run.stored() or run.results(arms.run(Experiment.open(config, run.console)))
    run.finish(results, report.outcome(results))


run = functools.partial(run_experiment, main, PRESETS, CLAIM)

if __name__ == "__main__":
    sys.exit(run())
