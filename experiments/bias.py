"""S0 on its own DFT labels: naive, periodic and single-trajectory data, fine-tuned alike at equal label counts.

Claim (arXiv 2603.10159): labels along one trajectory whose model is fine-tuned at intervals (periodic) make a better
model than as many labels from parallel zero-shot trajectories (naive), because the latter are biased.

    python -m experiments.bias                                  # 170-atom aqueous control system, two cores
    python -m experiments.bias --preset full --system chclca    # the 197-atom liquid, three seeds, for a GPU

One whole group of each arm is held out (a run, a round, the end of the trajectory) and every model is tested on all
of them. Frames that hold a contact shorter than any of that pair of elements in a model's training set are also
scored apart. What is forgotten is measured on MPtrj structures, with the isolated-atom energies of the start model.
The frames must be at hand (``MLIPJAX_DATA``); they are not shipped. The same command again resumes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from experiments import _bias_report as report
from experiments._bias_data import Arm, bond_events, extrapolates, load_arms
from mlipjax import runtime, tree
from mlipjax.data import Dataset, read_dataset
from mlipjax.files import write_atomic
from mlipjax.finetune import FinetuneSettings
from mlipjax.finetune.single import finetune
from mlipjax.models import load, registry
from mlipjax.potential import Potential
from mlipjax.train import LabelledBatches, error_report, predict
from mlipjax.train.predict import Apply
from mlipjax.typing import Params

PRESETS: dict[str, dict[str, Any]] = {
    "quick": {"labels": (11, 33), "epochs": 8, "seeds": 1, "retained": 40},
    "full": {"labels": (11, 22, 33, 40), "epochs": 60, "seeds": 3, "retained": 1000},
}

_LARGEST_RETAINED = 40


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare the published data sets of S0.

    Attributes:
        preset: sizes that are not given: "quick" for two cores, "full" for an accelerator.
        system: "liclcocl2" (in water, the control) or "chclca" (in choline chloride and citric acid).
        model: where every fine-tune starts.
        strategy: of the fine-tunes (all that need no further data).
        labels: numbers of labels; an arm without that many frames is left out there.
        epochs: passes over the training frames.
        seeds: fine-tunes per arm and number of labels.
        retained: MPtrj structures (of up to 40 atoms) on which forgetting is measured; 0 for none.
        test: more labelled frames to test on.
        batch_size: frames per optimiser step.
        out: folder of the run.
    """

    preset: Literal["quick", "full"] = "quick"
    system: Literal["liclcocl2", "chclca"] = "liclcocl2"
    model: str = "nequix-mp-1"
    strategy: Literal["naive", "freeze", "llrd", "l2sp", "ewc", "lora", "pseudo-replay", "scratch"] = "naive"
    labels: tuple[int, ...] = ()
    epochs: int = 0
    seeds: int = 0
    retained: int | None = None
    test: tuple[Path, ...] = ()
    batch_size: int = 2
    out: Path = Path("runs/bias")

    def resolved(self) -> Config:
        """Fill what was not given from the preset."""
        preset = PRESETS[self.preset]
        return dataclasses.replace(
            self,
            labels=self.labels or preset["labels"],
            epochs=self.epochs or preset["epochs"],
            seeds=self.seeds or preset["seeds"],
            retained=preset["retained"] if self.retained is None else self.retained,
        )


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What all models are compared on.

    Attributes:
        config: resolved.
        arms: of the published system.
        tests: held-out frames by name.
        retained: MPtrj structures, or ``None``.
        potential, params: the start model.
        apply: its network, compiled once for all models, which differ in parameters and E0s only.
    """

    config: Config
    arms: list[Arm]
    tests: dict[str, Dataset]
    retained: Dataset | None
    potential: Potential
    params: Params
    apply: Apply

    @classmethod
    def open(cls, config: Config) -> Experiment:
        """Read frames and model."""
        arms = load_arms(config.system)
        tests = {f"{arm.name}: {arm.held_out}": arm.test for arm in arms}
        tests |= {path.stem: read_dataset(path) for path in config.test}
        potential, params = load(config.model)
        retained = None
        if config.retained:
            everything = read_dataset(registry.data_folder() / "materials" / "mptrj_1k.extxyz")
            small = [i for i, system in enumerate(everything.systems) if system.n_atoms <= _LARGEST_RETAINED]
            retained = everything.subset(small[: config.retained])
        return cls(config, arms, tests, retained, potential, tree.cast(params, "float32"), jax.jit(potential.apply))

    def errors(self, potential: Potential, params: Params, data: Dataset) -> dict[str, Any]:
        """Error report of a model on a data set."""
        batches = LabelledBatches.create(potential, data, 4)
        return error_report(data, predict(self.apply, tree.cast(params, "float32"), batches))

    def evaluate(self, potential: Potential, params: Params, train: Dataset | None) -> dict[str, Any]:
        """Errors on all test sets, on the frames that extrapolate from ``train``, and on the retained structures."""
        result: dict[str, Any] = {"tests": {}, "extrapolating": {}, "retained": None}
        for name, data in self.tests.items():
            result["tests"][name] = self.errors(potential, params, data)
            outside = np.flatnonzero(extrapolates(train, data)) if train is not None else []
            if len(outside):
                result["extrapolating"][name] = self.errors(potential, params, data.subset(outside))
        if self.retained is not None:
            # with the E0s of the start model: those of the new labels belong to another code
            result["retained"] = self.errors(potential.replace(e0s=self.potential.e0s), params, self.retained)
        return result


def run_experiment(config: Config, console: Console) -> dict[str, Any]:
    """Fine-tune and evaluate everything that is not on disk yet."""
    experiment = Experiment.open(config)
    jobs = [
        (arm, n, seed)
        for n in config.labels
        for arm in experiment.arms
        for seed in range(config.seeds)
        if n <= len(arm.train)
    ]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    rows = []
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("zero-shot", total=len(jobs) + 1)
        for arm, n, seed in [(None, 0, 0), *jobs]:
            name = "zero-shot" if arm is None else f"{arm.name}-{n}-{seed}"
            progress.update(bar, description=name)
            rows.append(_row(experiment, arm, n, seed, config.out / name))
            progress.advance(bar)
        progress.update(bar, description="done")
    return {
        "system": config.system,
        "held_out": {arm.name: arm.held_out for arm in experiment.arms},
        "n_tests": {name: len(data) for name, data in experiment.tests.items()},
        "rows": rows,
        "events": {arm.name: bond_events([*arm.train.systems, *arm.test.systems]) for arm in experiment.arms},
        "maps": report.feature_maps(experiment.potential, experiment.params, experiment.apply, experiment.arms),
    }


def _row(experiment: Experiment, arm: Arm | None, n: int, seed: int, folder: Path) -> dict[str, Any]:
    file = folder / "evaluation.json"
    if file.exists():
        return json.loads(file.read_text())
    if arm is None:
        # its E0s fitted to the first arm's first labels: otherwise every error is the offset between two codes
        first = experiment.arms[0].train.subset(range(min(11, len(experiment.arms[0].train))))
        potential, params, train = _shifted(experiment, first), experiment.params, None
        settings: dict[str, Any] = {"arm": "zero-shot", "labels": 0, "seed": 0}
    else:
        train = arm.train.subset(range(n))
        c = experiment.config
        chosen = FinetuneSettings(
            strategy=c.strategy, e0s="estimate", epochs=c.epochs, batch_size=c.batch_size, seed=seed, anchor="none"
        )
        potential, params, _ = finetune(
            experiment.potential, experiment.params, train, settings=chosen, out=folder / "model"
        )
        settings = {"arm": arm.name, "labels": n, "seed": seed}
    row = {**settings, **experiment.evaluate(potential, params, train)}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(file, json.dumps(row))
    return row


def _shifted(experiment: Experiment, data: Dataset) -> Potential:
    from mlipjax.train import estimate_e0s, shift_e0s

    batches = LabelledBatches.create(experiment.potential, data, 4)
    estimate = estimate_e0s(data, predict(experiment.apply, experiment.params, batches))
    return shift_e0s(experiment.potential, estimate.shifts)


def main(config: Config) -> None:
    """Run what is missing; write ``results.json``, ``report.html`` and the figures."""
    console = Console()
    settings = {key: str(value) for key, value in dataclasses.asdict(config).items() if key != "out"}
    claim = config.out / "settings.json"
    config.out.mkdir(parents=True, exist_ok=True)
    if claim.exists() and json.loads(claim.read_text()) != settings:
        raise ValueError(f"{config.out} holds a run with other settings (settings.json); choose another --out")
    write_atomic(claim, json.dumps(settings, indent=1))
    results = {"settings": settings, **run_experiment(config, console), "versions": runtime.versions()}
    report.write(config.out, results, command=" ".join(["python -m experiments.bias", *sys.argv[1:]]))
    write_atomic(config.out / "results.json", json.dumps(results, indent=1))
    table = Table("model", "test", "n", "E std (meV/atom)", "F RMSE (meV/Å)")
    for row in results["rows"]:
        for test, errors in row["tests"].items():
            numbers = (errors["energy_std_meV_per_atom"], errors["force_rmse_meV_per_A"])
            table.add_row(
                f"{row['arm']} {row['labels']}", test, str(errors["n_frames"]), *(f"{x:.1f}" for x in numbers)
            )
    console.print(table)
    console.print(report.verdict(results)[0])


def run(arguments: list[str] | None = None) -> int:
    """Entry point: errors that a user can mend are one line."""
    runtime.setup_allocator()
    try:
        main(tyro.cli(Config, args=arguments, description=__doc__).resolved())
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
