"""S0 on its own DFT labels: naive, periodic and single-trajectory data, fine-tuned alike at equal label counts.

Claim (arXiv 2603.10159): labels along one trajectory whose model is fine-tuned at intervals (periodic) make a better
model than as many labels from parallel zero-shot trajectories (naive), because the latter are biased.

    python -m experiments.bias                                  # 170-atom aqueous control system, two cores
    python -m experiments.bias --preset full --system chclca    # the 197-atom liquid, three seeds, for a GPU

One whole group of each arm is held out (a run, a round, the end of the trajectory) and every model is tested on all
of them. Frames that hold a contact shorter than any of that pair of elements in a model's training set are also
scored apart. What is forgotten is measured on MPtrj structures, with the isolated-atom energies of the start model.
Each arm's model is asked for Q on the other arms' frames, and drives a short NPT trajectory of its own.
The frames must be at hand (``MLIPJAX_DATA``); they are not shipped. The same command again resumes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import _bias_charts as charts
from experiments import _bias_report as report
from experiments._bias_claims import find_claims, growth_by_strategy
from experiments._bias_data import bond_events
from experiments._bias_models import ZERO_SHOT, Experiment, Job, Model, evaluate, get_model, outlying_labels
from experiments._bias_runs import own_run
from experiments._entry import claim_folder, run_experiment, settings_of
from mlipjax import runtime
from mlipjax.files import write_atomic

StrategyName = Literal["naive", "freeze", "llrd", "l2sp", "ewc", "lora", "pseudo-replay", "scratch"]

PRESETS: dict[str, dict[str, Any]] = {
    # a few steps only: with the usual 5e-4 the errors would still be coming down from an overshoot at the end
    "quick": {
        "labels": (11, 33), "epochs": 4, "seeds": 1, "retained": 40, "strategies": ("naive",),
        "learning_rate": 1e-4, "md_steps": 100, "md_every": 5,
    },
    "full": {
        "labels": (10, 21, 31, 40, 50), "epochs": 60, "seeds": 3, "retained": 1000,
        "strategies": ("naive", "freeze", "lora", "pseudo-replay"),
        "learning_rate": None, "md_steps": 40_000, "md_every": 200,
    },
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the published data sets of S0.

    Attributes:
        preset: sizes that are not given: "quick" for two cores, "full" for an accelerator.
        system: "liclcocl2" (in water, the control) or "chclca" (in choline chloride and citric acid).
        model: where every fine-tune starts.
        strategies: of the fine-tunes (all that need no further data); the first one at all numbers of labels, the
            others at the largest number that every arm has.
        labels: numbers of labels; an arm without that many frames is left out there.
        epochs: passes over the training frames.
        learning_rate: peak learning rate; by default the preset's, in "full" the strategy's.
        seeds: fine-tunes per arm and number of labels.
        retained: MPtrj structures (of up to 40 atoms) on which forgetting is measured; 0 for none.
        md_steps: steps of 0.5 fs of each model's own NPT trajectory; 0 for none, by default the preset's.
        md_every: steps between its frames.
        test: more labelled frames to test on.
        batch_size: frames per optimiser step.
        out: folder of the run.
    """

    preset: Literal["quick", "full"] = "quick"
    system: Literal["liclcocl2", "chclca"] = "liclcocl2"
    model: str = "nequix-mp-1"
    strategies: tuple[StrategyName, ...] = ()
    labels: tuple[int, ...] = ()
    epochs: int = -1
    learning_rate: float | None = None
    seeds: int = -1
    retained: int = -1
    md_steps: int = -1
    md_every: int = -1
    test: tuple[Path, ...] = ()
    batch_size: int = 2
    out: Path = Path("runs/bias")

    def resolved(self) -> Config:
        """Fill what was not given from the preset."""
        preset = PRESETS[self.preset]
        given = {name: getattr(self, name) for name in preset}
        filled = {name: preset[name] if value in (None, (), -1) else value for name, value in given.items()}
        return dataclasses.replace(self, **filled)


def compare_arms(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Fine-tune, evaluate and simulate everything that is not on disk yet."""
    jobs = experiment.jobs()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    final: dict[str, Model] = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("zero-shot", total=len(jobs) + 1 + 2 * (len(experiment.arms) + 1))
        for job in [ZERO_SHOT, *jobs]:
            progress.update(bar, description=job.name)
            model = get_model(experiment, job)
            rows.append(evaluate(experiment, model))
            if job.arm is None or job == Job(job.arm, experiment.common, 0, experiment.config.strategies[0]):
                final[job.arm or "zero-shot"] = model
            progress.advance(bar)
        watched = {}
        for name, model in final.items():
            progress.update(bar, description=f"charts of {name}")
            arm = experiment.arms["naive" if model.job.arm is None else name]
            watched[name] = charts.Chart.fit(experiment, model, model.train or arm.train, arm.test)
            progress.advance(bar)
        own = {}
        for name, chart in watched.items():
            progress.update(bar, description=f"trajectory of {name}")
            if experiment.config.md_steps:
                own[name] = own_run(experiment, final[name], chart)
            progress.advance(bar)
        progress.update(bar, description="charts")
        tuned = {name: chart for name, chart in watched.items() if name != "zero-shot"}
        results = _collect(experiment, rows, own, final["zero-shot"], tuned)
        progress.update(bar, description="done")
    return results


def _collect(
    experiment: Experiment, rows: list[Any], own: dict[str, Any], start: Model, tuned: dict[str, charts.Chart]
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
    console = Console()
    settings = settings_of(config)
    experiment = Experiment.open(config)
    claim_folder(config.out, settings)
    results = {"settings": settings, **compare_arms(experiment, console), "versions": runtime.versions()}
    claims = find_claims(results)
    results["claims"] = [dataclasses.asdict(claim) for claim in claims]
    report.write(experiment, results, claims, command=" ".join(["python -m experiments.bias", *sys.argv[1:]]))
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    table = Table("model", "test", "n", "E std (meV/atom)", "F RMSE (meV/Å)")
    for row in results["rows"]:
        for test, errors in row["tests"].items():
            numbers = (errors["energy_std_meV_per_atom"], errors["force_rmse_meV_per_A"])
            name = f"{row['arm']} {row['labels']} {row['strategy']}"
            table.add_row(name, test, str(errors["n_frames"]), *(f"{x:.1f}" for x in numbers))
    console.print(table)
    console.print(report.verdict(results, claims)[0], soft_wrap=True)


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, Config, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run())
