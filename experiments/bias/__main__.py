"""Entry point: see ``experiments/bias/config.py``."""

from __future__ import annotations

import dataclasses
import functools
import sys
from typing import Any

from rich.console import Console

from experiments.bias import charts, report
from experiments.bias.claims import find_claims, growth_by_strategy
from experiments.bias.config import Config
from experiments.bias.models import ZERO_SHOT, Experiment, Job, Trained, get_model, outlying_labels, run_job
from experiments.bias.runs import own_run
from experiments.lab.display import make_bar
from experiments.lab.entry import run_experiment
from experiments.lab.run import Run
from experiments.lab.s0 import bond_events
from experiments.lab.units import Unit, run_units


def compare_arms(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Fine-tune, evaluate and simulate everything that is not on disk yet."""
    config = experiment.config
    units = [Unit(job.name, run_job, (config, job)) for job in (ZERO_SHOT, *experiment.jobs())]
    rows = list(run_units(units, config.out / "units", console, config.workers).values())
    first = (Job(arm, experiment.common, 0, config.strategies[0]) for arm in experiment.arms)
    final = {job.arm or "zero-shot": get_model(experiment, job) for job in (ZERO_SHOT, *first)}
    with make_bar(console, "{task.description}") as progress:
        bar = progress.add_task("charts", total=2 * len(final))
        watched = {}
        for name, model in final.items():
            progress.update(bar, description=f"charts of {name}")
            arm = experiment.arms["naive" if model.job.arm is None else name]
            watched[name] = charts.Watch.fit(model, model.train or arm.train, arm.test)
            progress.advance(bar)
        own = {}
        for name, chart in watched.items():
            progress.update(bar, description=f"trajectory of {name}")
            if config.md_steps:
                own[name] = own_run(experiment, final[name], chart)
            progress.advance(bar)
        progress.update(bar, description="charts")
        tuned = {name: chart for name, chart in watched.items() if name != "zero-shot"}
        results = _collect(experiment, rows, own, final["zero-shot"], tuned)
        progress.update(bar, description="done")
    return results


def _collect(
    experiment: Experiment, rows: list[Any], own: dict[str, Any], start: Trained, tuned: dict[str, charts.Watch]
) -> dict[str, Any]:
    features = charts.start_features(experiment, start)
    results: dict[str, Any] = {
        "system": experiment.config.system,
        "strategies": list(experiment.config.strategies),
        "common": experiment.common,
        "n_seeds": experiment.config.seeds,
        "held_out": {name: arm.held_out for name, arm in experiment.arms.items()},
        "n_tests": {name: len(data) for name, data in experiment.tests.items()},
        "rows": rows,
        "events": {name: bond_events((arm.train + arm.test).systems) for name, arm in experiment.arms.items()},
        "maps": charts.feature_maps(experiment, features),
        "sets_q": charts.sets_q(experiment, features),
        "cross_q": charts.cross_q(experiment, tuned),
        "test_q": {name: charts.test_q(experiment, chart) for name, chart in tuned.items()},
        "soap": charts.soap_q(experiment),
        "own": own,
        "outliers": outlying_labels(experiment, start),
    }
    results["forgetting"] = growth_by_strategy(results)
    return results


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    experiment = Experiment.open(config)
    run = Run(config)
    results = run.results(compare_arms(experiment, run.console))
    results["claims"] = [dataclasses.asdict(claim) for claim in find_claims(results)]
    run.finish(results, report.outcome(experiment, results))


run = functools.partial(run_experiment, main, Config)

if __name__ == "__main__":
    sys.exit(run())
