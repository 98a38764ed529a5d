"""S3: a property from a pretrained potential, four ways at equal steps, inside and outside of its domain.

Claim (arXiv 2601.08486): plain fine-tuning to a property erases chemistry and costs accuracy out of domain; training
the force field along with it (mft) keeps both. Mean over eight QM9 properties, improvement over scratch, ID / OOD:
ft +17.8 / +5.6 %, lp -37.0 / +7.8 %, mft +17.3 / +17.1 %.

    python -m experiments.multitask                                       # embedded model, 20 minutes on two cores
    python -m experiments.multitask --model nequix-mp-1 --preset full     # for an accelerator
    python -m experiments.multitask --data materials --ood O --out runs/multitask-oxides

Every run's folder (``OUT/runs/MODE-N-SEED``) is a model: ``mlipjax compare-representations`` and ``mlipjax evaluate``
take it. At the end the features of all models are compared with the pretrained one's: does ft collapse the
representation, does mft prevent it? The property sets must be at hand (``MLIPJAX_DATA``); they are not shipped. The
same command again resumes, and adds what a folder that was finished before lacks.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import _multitask_report as report
from experiments._entry import claim_folder, run_experiment, settings_of
from experiments._multitask_collapse import examine
from experiments._multitask_runs import Experiment, execute, read_predictions
from mlipjax import runtime
from mlipjax.files import write_atomic

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"n_train": 2000, "steps": 500, "seeds": 3, "n_test": 1500, "n_valid": 300, "curve": (), "largest": 24},
    "full": {
        "n_train": 20_000, "steps": 20_000, "seeds": 3, "n_test": 5000, "n_valid": 2000,
        "curve": (500, 2000, 8000), "largest": 64,
    },
}  # fmt: skip

Mode = Literal["scratch", "ft", "lp", "mft"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the modes of S3.

    Attributes:
        preset: sizes that are not given: "quick" for two cores, "full" for an accelerator.
        data: "qm9_gap" (S3's split) or "materials" (energy beyond composition of crystals).
        ood: for materials: "tail" of the label, or elements held out, such as "O" or "F,Cl".
        model: pretrained potential.
        modes: ways of training; scratch is what others are compared with.
        n_train: training structures; by default the preset's molecules, or all crystals.
        curve: more sizes of the training set, for the data-efficiency curve.
        steps: optimiser steps of every run.
        equal: what the modes have alike: "optimiser" steps as in the paper, where mft spends half of them on the force
            field, or "property" steps, for which mft takes twice as many in all.
        seeds: runs per mode and size.
        n_test: largest number of structures in each test set.
        n_valid: of the validation set.
        batch_size: structures per property step; by default 32 molecules or 8 crystals.
        force_field_batch_size: structures per force-field step.
        largest: atoms of the largest replayed (and, for materials, any) structure.
        hidden: sizes of the head's layers.
        learning_rate: of all modes; by default S3's 1e-3.
        loss: of the force field.
        prefactors: of energies, forces and stresses: constant, or S3's moving ones (loss "mse").
        published_decay: layer-wise learning rates by S3's table, for all but lp.
        out: folder of the run.
    """

    preset: Literal["quick", "full"] = "quick"
    data: Literal["qm9_gap", "materials"] = "qm9_gap"
    ood: str = "tail"
    model: str = "universal"
    modes: tuple[Mode, ...] = ("scratch", "ft", "lp", "mft")
    n_train: int = 0
    curve: tuple[int, ...] | None = None
    steps: int = 0
    equal: Literal["optimiser", "property"] = "optimiser"
    seeds: int = 0
    n_test: int = 0
    n_valid: int = 0
    batch_size: int = 0
    force_field_batch_size: int = 8
    largest: int = 0
    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float | None = None
    loss: Literal["huber", "mse"] = "huber"
    prefactors: Literal["constant", "published"] = "constant"
    published_decay: bool = False
    out: Path = Path("runs/multitask")

    def resolved(self) -> Config:
        """Fill what was not given from the preset."""
        preset = PRESETS[self.preset]
        given = {name: getattr(self, name) or value for name, value in preset.items() if name != "curve"}
        if self.data == "materials":
            given["n_train"] = self.n_train
        given["batch_size"] = self.batch_size or (32 if self.data == "qm9_gap" else 8)
        return dataclasses.replace(self, **given, curve=preset["curve"] if self.curve is None else self.curve)


def compare_modes(experiment: Experiment, console: Console) -> dict[str, Any]:
    """Train and evaluate everything that is not on disk yet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    runs, rows = experiment.runs(), []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("runs", total=len(runs))
        steps = progress.add_task("steps", total=experiment.config.steps)
        for run in runs:
            progress.update(steps, description=run.name, completed=0)
            rows.append(execute(experiment, run, progress, steps))
            progress.advance(bar)
    bench = experiment.bench
    return {
        "property": bench.name,
        "unit": bench.unit,
        "domain": bench.domain,
        "force_field": experiment.notes,
        "n_retained": len(experiment.retained.dataset),
        "before": experiment.force_field(experiment.params),
        "targets": {"id": bench.id_test.targets.tolist(), "ood": bench.ood_test.targets.tolist()},
        "spread": float(bench.training(experiment.config.n_train).targets.std()),
        "rows": rows,
    }


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures.

    Raises:
        ValueError, FileNotFoundError: if data are missing, or the folder holds another experiment.
    """
    console = Console()
    experiment = Experiment.open(config)
    config = experiment.config
    settings = settings_of(config)
    claim_folder(config.out, settings)
    started = time.monotonic()
    results: dict[str, Any] = {"settings": settings, **compare_modes(experiment, console)}
    results["seconds"] = round(time.monotonic() - started, 1)
    predictions = {run: read_predictions(config.out, run) for run in experiment.runs()}
    targets = results.pop("targets")
    results["summary"] = report.summarise(results, predictions, targets)
    with console.status("features of all models"):
        results["representation"] = examine(experiment)
    results |= {"dtype": "float32", "versions": runtime.versions()}
    report.write(
        config.out, results, predictions, targets, " ".join(["python -m experiments.multitask", *sys.argv[1:]])
    )
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    table = Table("mode", "n", "seeds", "ID MAE", "OOD MAE", "ID %", "OOD %", "OOD/ID", "F MAE left")
    for row in report.table_rows(results):
        cells = [*row[:4], row[5], *row[7:10], row[-1]]
        table.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells))
    console.print(table)
    console.print(report.verdict(results)[0])


def run(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_experiment(main, Config, __doc__, arguments)


if __name__ == "__main__":
    sys.exit(run())
