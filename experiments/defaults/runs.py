"""Runs of ``experiments.defaults``: one fine-tune each, measured on frames that it never saw."""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.defaults.config import Config
from experiments.defaults.recipes import RECIPES
from experiments.lab.errors import force_squares
from experiments.lab.retained import mptrj
from experiments.lab.s0 import SYSTEMS, load_arms
from experiments.lab.units import Unit
from mlipjax.data import Dataset
from mlipjax.models import load
from mlipjax.optim import Optimizer, Strategy, make_strategy
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings
from mlipjax.train import (
    ForceField,
    LabelledBatches,
    LossJudge,
    Mixture,
    Prefactors,
    Task,
    TrainConfig,
    Training,
    TrainState,
    error_report,
    predict,
    settle_e0s,
    train,
)
from mlipjax.train.batches import frames_per_step

LEVEL = "nequix-mp-1"
"""Model that was trained on the level of theory of the retained structures."""
_SMALL = 24
_ERRORS = (
    "force_rmse_meV_per_A", "force_mae_meV_per_A", "energy_mean_meV_per_atom", "energy_std_meV_per_atom",
    "stress_mae_meV_per_A3",
)  # fmt: skip


class Start(NamedTuple):
    """Where all recipes start: a model with the energy zero of the labels, its frames, and its errors."""

    model: Model
    train: Dataset
    test: Dataset
    retained: Dataset | None
    errors: dict[str, Any]


def units(config: Config) -> list[Unit]:
    """All runs, one seed of all recipes after the other, so that an unfinished experiment compares recipes."""
    config = dataclasses.replace(config, workers=None)
    return [
        Unit(f"{model}-{system}-{recipe}-{seed}", execute, (config, model, system, recipe, seed))
        for seed in range(config.seeds)
        for model in config.models
        for system in config.systems
        for recipe in config.recipes
    ]  # fmt: skip


def execute(config: Config, model: str, system: str, recipe: str, seed: int) -> dict[str, Any]:
    """Fine-tune and measure."""
    start, own = _start(config.stage, model, system, config.retained), RECIPES[recipe]
    settings = FinetuneSettings(epochs=config.epochs, seed=seed, **own.settings)
    training = _training(start, own.change(make_strategy(settings.strategy, start.model.params)), settings)
    clock, cpu = time.monotonic(), time.process_time()
    state, _ = train(training)
    spent = {"training_seconds": time.monotonic() - clock, "training_cpu_seconds": time.process_time() - cpu}
    return {
        "model": model,
        "system": system,
        "recipe": recipe,
        "seed": seed,
        "steps": training.config.steps,
        "frames_seen": config.epochs * len(start.train),
        "n_train": len(start.train),
        "before": start.errors,
        "after": _errors(Model(start.model.potential, state.best_params), start.test, start.retained),
        **{name: round(value, 1) for name, value in spent.items()},
    }


@functools.lru_cache(maxsize=4)
def _start(stage: str, name: str, system: str, n_retained: int) -> Start:
    given, (frames, test) = load(name).cast("float32"), _frames(system, stage)
    batches = LabelledBatches.create(given.potential, frames, 1)
    settled, _ = settle_e0s(given.potential, given.params, batches, "estimate", {})
    model, retained = Model(settled, given.params), None
    if n_retained and name == LEVEL:
        retained = mptrj(n_retained, _SMALL)
    return Start(model, frames, test, retained, _errors(model, test, retained))


def _frames(system: str, stage: str) -> tuple[Dataset, Dataset]:
    """Training and test frames of the periodic arm, whose last round is for the final test alone."""
    arm = next(arm for arm in load_arms(system) if arm.name == "periodic")
    if stage == "final":
        return arm.train, arm.test
    rounds = np.array([int(info[SYSTEMS[system]["periodic"] or ""]) for info in arm.train.infos])
    last = rounds == rounds.max()
    return arm.train.subset(np.flatnonzero(~last).tolist()), arm.train.subset(np.flatnonzero(last).tolist())


def _training(start: Start, strategy: Strategy, settings: FinetuneSettings) -> Training:
    """The parts that ``mlipjax finetune`` would train, without validation: the last parameters are kept."""
    (potential, params), weights, key = start.model, settings.loss_weights(), jax.random.key(settings.seed)
    batches = LabelledBatches.create(
        potential,
        start.train,
        settings.batch_size or frames_per_step(start.train),
        passes=settings.epochs,
        **settings.batching(),
    )
    steps = settings.epochs * batches.steps_per_epoch
    optimizer, objective = Optimizer(strategy.optimizer_config(steps)), ForceField(potential, settings.make_loss())
    return Training(
        mixture=Mixture((Task("training", objective, batches, key, prefactors=Prefactors.constant(weights)),), "sum"),
        optimizer=optimizer,
        state=TrainState.create(params, optimizer, key),
        hyper=strategy.hyper(weights),
        config=TrainConfig(steps, batches.steps_per_epoch),
        judge=LossJudge(objective, weights, None),
    )


def _errors(model: Model, test: Dataset, retained: Dataset | None) -> dict[str, Any]:
    """Errors on the test frames, squared force errors of each frame, and the force error on retained structures."""
    found = predict(model.potential, model.params, LabelledBatches.create(model.potential, test, 1))
    report = error_report(test, found)
    left = None
    if retained is not None:
        batches = LabelledBatches.create(model.potential, retained, 8)
        left = error_report(retained, predict(model.potential, model.params, batches))["force_mae_meV_per_A"]
    return {
        **{name: report[name] for name in _ERRORS},
        "frame_squares_meV2_per_A2": force_squares(test, found),
        "retained_force_mae_meV_per_A": left,
    }
