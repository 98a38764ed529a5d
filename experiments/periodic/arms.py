"""The arms of ``experiments.periodic``: sampling, labelling, training and testing, all of it resumable."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from experiments.lab.display import make_bar
from experiments.periodic import evaluation as tests
from experiments.periodic.experiment import Arm, Experiment, Model
from mlipjax import md
from mlipjax.files import write_atomic
from mlipjax.finetuning import AlarmConfig, FineTuneState, RoundConfig, Setup, init
from mlipjax.finetuning.host import TRAIN_PIECE, HostLoop, Stage, with_energy_shift
from mlipjax.losses import huber_loss
from mlipjax.models import load, save
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.oracles import Labeller
from mlipjax.system import System

_CHART_COMPONENTS = 5
"""S0's number of principal components."""


def run(experiment: Experiment) -> dict[str, Any]:
    """Everything, in order; what is on disk already is not done again."""
    c = experiment.config
    plan = [Arm("naive", c.rounds, 1), Arm("periodic", 1, c.rounds), Arm("single", 1, 1)]
    store = c.out / "labels.db"
    with Labeller(experiment.oracle, store, n_workers=c.workers) as labeller, _progress(experiment.console) as progress:
        test = tests.independent_set(experiment.system, experiment.oracle, labeller, c, progress)
        models, histories, training = {}, {}, {}
        for arm in plan:
            models[arm.name], histories[arm.name], training[arm.name] = _run_arm(experiment, arm, labeller, progress)
        # the universal model, on the energy zero that the fine-tuned models have
        universal = Model(models["periodic"][0].potential, experiment.params, 0)
        results = tests.evaluate_all(experiment, universal, models, test, training, labeller, progress)
        counts = dataclasses.asdict(labeller.counts)
    return {
        **results,
        "n_atoms": experiment.system.n_atoms,
        "histories": histories,
        "labels_per_arm": c.rounds * c.labels_per_round,
        "labels": counts,
        "alarms": {name: _count_alarms(history) for name, history in histories.items()},
    }


def _run_arm(
    experiment: Experiment, arm: Arm, labeller: Labeller, progress: Progress
) -> tuple[list[Model], list[dict[str, Any]], list[System]]:
    c = experiment.config
    total = c.rounds * c.labels_per_round
    per_round = total // (arm.replicas * arm.rounds)
    steps_per_chunk = next(n for n in range(min(10, c.steps), 0, -1) if c.steps % n == 0)
    round_config = RoundConfig(
        labels_per_replica=per_round,
        chunks_per_label=c.steps // steps_per_chunk,
        steps_per_chunk=steps_per_chunk,
        # equal optimiser steps for all arms
        train_steps=c.train_steps * (c.rounds // arm.rounds),
        batch_size=min(c.batch_size, per_round * arm.replicas),
        chart_components=0 if c.on_alarm == "off" else _CHART_COMPONENTS,
        alarm=None if c.on_alarm == "off" else AlarmConfig(c.on_alarm),
    )
    strategy = make_strategy(c.strategy, experiment.params).override(learning_rate=c.learning_rate)
    optimizer = Optimizer(strategy.optimizer_config(round_config.train_steps))
    spec = md.VerletSpec.for_systems([experiment.system], experiment.potential.cutoff)
    setup = Setup(experiment.potential, spec, round_config, optimizer, huber_loss())
    controls = experiment.controls()
    start = init(
        setup,
        experiment.params,
        experiment.system,
        controls,
        jax.random.key(c.seed),
        n_replicas=arm.replicas,
        capacity=total,
    )
    folder = c.out / arm.name
    listener = _Listener(experiment, arm, folder, progress, round_config)
    loop = HostLoop(setup, labeller, controls, folder, estimate_shift=c.e0s == "estimate", listener=listener)
    result = loop.run(start, arm.rounds)
    listener.finish()
    models = [_load_model(folder / f"model_{k + 1}") for k in range(arm.rounds)]
    return models, result.history, _frames(experiment.system, result.state)


def _progress(console: Console) -> Progress:
    return make_bar(console, "{task.description}")


class _Listener:
    """Follows an arm with a progress bar and saves the model of every round."""

    def __init__(self, experiment: Experiment, arm: Arm, folder: Path, progress: Progress, config: RoundConfig) -> None:
        self.experiment, self.arm, self.folder, self.progress = experiment, arm, folder, progress
        pieces = config.labels_per_replica + 2 + -(-config.train_steps // TRAIN_PIECE)
        self.task = progress.add_task(f"{arm.name}", total=arm.rounds * pieces)

    def piece(self, stage: Stage, state: FineTuneState, record: dict[str, Any]) -> None:
        """After a piece of work."""
        detail = f", loss {record['loss'][-1]:.3f}" if stage == "train" else ""
        description = f"{self.arm.name}: round {record['round'] + 1}/{self.arm.rounds}, {stage}{detail}"
        self.progress.update(self.task, advance=1, description=description)

    def round_done(self, state: FineTuneState) -> None:
        """Before a round is counted as done: save its model."""
        potential = with_energy_shift(
            self.experiment.potential, self.experiment.system.atomic_numbers, float(state.energy_shift)
        )
        folder = self.folder / f"model_{int(state.round) + 1}"
        save(folder, potential, jax.device_get(state.train.ema_params))
        write_atomic(folder / "labels.json", json.dumps(int(state.buffer.labelled.sum())))

    def finish(self) -> None:
        """After the last round."""
        total = self.progress.tasks[self.task].total
        self.progress.update(self.task, completed=total, description=f"{self.arm.name}: done")


def _count_alarms(history: list[dict[str, Any]]) -> int:
    return sum(len(record.get("alarms", [])) for record in history)


def _load_model(folder: Path) -> Model:
    potential, params = load(folder)
    return Model(potential, params, json.loads((folder / "labels.json").read_text()))


def _frames(system: System, state: FineTuneState) -> list[System]:
    """The labelled frames of an arm."""
    kept = np.flatnonzero(np.asarray(state.buffer.labelled))
    positions, cells = np.asarray(state.buffer.position, np.float64), np.asarray(state.buffer.cell, np.float64)
    return [dataclasses.replace(system, positions=positions[i], cell=cells[i]) for i in kept]
