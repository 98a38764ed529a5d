"""The runs of ``experiments.multitask``: every mode, size and seed; predictions and what is left of the force field."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress, TaskID

from experiments.multitask.data import Bench, force_field_parts, load_materials, load_qm9_gap
from mlipjax.data import Dataset
from mlipjax.data.properties import property_name, targets
from mlipjax.files import replace_on_success, write_atomic
from mlipjax.finetuning.properties import PropertyInput, PropertyPreparation, finetune_property
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.models import load
from mlipjax.nn.readouts import GROUP
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import (
    LabelledBatches,
    StepInfo,
    TrainState,
    error_summary,
    predict,
    predict_property,
    property_report,
)
from mlipjax.train.batches import property_batches
from mlipjax.typing import Params

_RETAINED = ("energy_mae_meV_per_atom", "energy_std_meV_per_atom", "force_mae_meV_per_A", "force_slope")


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: which mode, how many structures, which seed."""

    mode: str
    n: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.mode}-{self.n}-{self.seed}"

    @property
    def strategy(self) -> str:
        """Of ``FinetuneSettings``: mft-long is mft with more steps."""
        return self.mode.removesuffix("-long")


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Inputs that all runs share.

    Attributes:
        config: resolved (``experiments.multitask.Config``).
        bench: the property.
        replay: structures the force-field task of mft replays.
        retained: structures on which every model's force field is measured.
        notes: in words, what the last two are.
        model: the pretrained one.
    """

    config: Any
    bench: Bench
    replay: Dataset
    retained: LabelledBatches
    notes: str
    model: Model

    @classmethod
    def open(cls, config: Any) -> Experiment:
        """Load the model and all data."""
        model = load(config.model).cast("float32")
        potential = model.potential
        if config.data == "qm9_gap":
            bench = load_qm9_gap(config.out / "cache")
        else:
            bench = load_materials(potential, config.ood, config.largest)
        if config.data == "materials":
            config = dataclasses.replace(config, n_train=min(config.n_train, len(bench.train)))
        replay, retained, notes = force_field_parts(config.model, potential, config.largest)
        return cls(
            config=config,
            bench=bench.shortened(config.n_test, config.n_valid),
            replay=replay,
            retained=LabelledBatches.create(potential, retained.subset(range(min(200, len(retained)))), 8),
            notes=notes,
            model=model,
        )

    def force_field(self, params: Params) -> dict[str, float | None]:
        """Errors of a model's force field on the retained structures."""
        backbone = {name: group for name, group in params.items() if not name.startswith(GROUP)}
        errors = error_summary(self.retained.dataset, predict(self.model.potential, backbone, self.retained))
        return {name: errors[name] for name in _RETAINED}

    def runs(self) -> list[Run]:
        """All runs, one seed of all modes after the other, so that an unfinished experiment compares modes."""
        sizes = [self.config.n_train, *(n for n in self.config.curve if n != self.config.n_train)]
        seeds = range(self.config.seeds)
        return [Run(mode, n, seed) for n in sizes for seed in seeds for mode in self.config.modes]


class _Bar(FinetuneListener):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def start(self, preparation: PropertyPreparation) -> None:
        self.progress.update(self.task, total=preparation.training.config.steps)

    def step(self, state: TrainState, info: StepInfo) -> None:
        self.progress.update(self.task, completed=int(state.step))


def execute(experiment: Experiment, run: Run, progress: Progress, task: TaskID) -> dict[str, Any]:
    """Train and evaluate one run, or read what it left; its folder then holds the model and its predictions."""
    folder = experiment.config.out / "runs" / run.name
    file = folder / "evaluation.json"
    if file.exists():
        return json.loads(file.read_text())
    config, bench = experiment.config, experiment.bench
    potential, params, report = finetune_property(
        experiment.model,
        PropertyInput(bench.training(run.n), bench.valid, experiment.replay if run.strategy == "mft" else None),
        settings=FinetuneSettings(strategy=run.strategy, seed=run.seed, batch_size=config.force_field_batch_size,  # pyright: ignore[reportArgumentType]
                                  learning_rate=config.learning_rate, loss=config.loss),
        options=_options(config, run, bench.unit),
        out=folder,
        listener=_Bar(progress, task),
    )  # fmt: skip
    predictions, errors, key = {}, {}, property_name(bench.valid)
    for name, data in (("id", bench.id_test), ("ood", bench.ood_test)):
        batches = property_batches(potential, data, config.batch_size)
        predictions[name] = predict_property(potential, params, batches, key)
        errors[name] = property_report(targets(data, key), predictions[name])
    row = {
        **dataclasses.asdict(run),
        "tests": errors,
        "valid_mae": report["valid"]["mae"],
        "best_step": report["best_step"],
        "steps": report["steps"],
        "seconds": report["seconds"],
        "n_trained_parameters": report["n_trained_parameters"],
        "tasks": report["tasks"],
        "force_field": None if run.mode == "scratch" else experiment.force_field(params),
    }
    with replace_on_success(folder / "predictions.npz") as path, open(path, "wb") as target:
        np.savez(target, **predictions)
    write_atomic(file, json.dumps(row))
    return row


def _options(config: Any, run: Run, unit: str) -> PropertySettings:
    return PropertySettings(
        property_unit=unit,
        property_hidden=config.hidden,
        property_batch_size=config.batch_size,
        steps=config.steps * (2 if run.mode == "mft-long" else 1),
        published_decay=config.published_decay and run.mode != "lp",
        prefactors=config.prefactors,
    )


def read_predictions(out: Path, run: Run) -> dict[str, np.ndarray]:
    """Predictions of a finished run, by test set."""
    with np.load(out / "runs" / run.name / "predictions.npz") as file:
        return dict(file)
