"""The arms of ``experiments.periodic``: sampling, labelling, training and testing, all of it resumable."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lab.display import make_bar
from experiments.periodic import evaluation as tests
from experiments.periodic.experiment import Arm, Experiment, Seen
from mlipjax.finetuning.host import TRAIN_PIECE
from mlipjax.finetuning.periodic import plan_periodic, run_plan
from mlipjax.finetuning.pieces import Piece
from mlipjax.finetuning.records import labelled_frames, round_rows
from mlipjax.md import Start
from mlipjax.models import load
from mlipjax.oracles import Labeller
from mlipjax.system import System


def run(experiment: Experiment) -> dict[str, Any]:
    """Everything, in order; what is on disk already is not done again."""
    c = experiment.config
    plan = [Arm("naive", c.rounds, 1), Arm("periodic", 1, c.rounds), Arm("single", 1, 1)]
    store = c.out / "labels.db"
    with (
        Labeller(experiment.oracle, store, n_workers=c.workers) as labeller,
        make_bar(experiment.console, "{task.description}") as progress,
    ):
        test = tests.independent_set(experiment.system, experiment.oracle, labeller, c, progress)
        models, histories, training = {}, {}, {}
        for arm in plan:
            models[arm.name], histories[arm.name], training[arm.name] = _run_arm(experiment, arm, labeller, progress)
        # the universal model, on the energy zero that the fine-tuned models have
        universal = Seen(experiment.model._replace(potential=models["periodic"][0].model.potential), 0)
        results = tests.evaluate_all(experiment, universal, models, test, training, labeller, progress)
        counts = dataclasses.asdict(labeller.counts)
    return {
        **results,
        "n_atoms": experiment.system.n_atoms,
        "histories": histories,
        "labels_per_arm": c.rounds * c.labels_per_round,
        "labels": counts,
        "alarms": {name: sum(row["alarms"] or 0 for row in round_rows(history)) for name, history in histories.items()},
    }


def _run_arm(
    experiment: Experiment, arm: Arm, labeller: Labeller, progress: Progress
) -> tuple[list[Seen], list[dict[str, Any]], list[System]]:
    c = experiment.config
    plan = plan_periodic(experiment.model, Start(experiment.system), arm.settings(c))
    config, folder = plan.setup.config, c.out / arm.name
    pieces = arm.rounds * (config.labels_per_replica + 2 - (-config.train_steps // TRAIN_PIECE))
    task = progress.add_task(arm.name, total=pieces)

    def show(piece: Piece) -> None:
        if piece.record is not None:
            loss = f", loss {piece.record['loss'][-1]:.3f}" if piece.stage == "train" else ""
            text = f"{arm.name}: round {piece.round + 1}/{arm.rounds}, {piece.stage}{loss}"
            progress.update(task, advance=1, description=text)

    end = run_plan(plan, labeller, folder, show)
    progress.update(task, completed=pieces, description=f"{arm.name}: done")
    seen = np.cumsum([row["labels"] for row in round_rows(end.history)]).tolist()
    models = [Seen(load(folder / f"model_{k + 1}"), labels) for k, labels in enumerate(seen)]
    return models, end.history, list(labelled_frames(plan.setup, end.state).systems)
