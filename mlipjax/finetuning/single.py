"""One fine-tune: a potential and labelled structures in, a potential and a report out.

A run with a folder keeps ``run.json`` (settings and fingerprint of the input), ``checkpoints/``, ``metrics.jsonl``,
``snapshots/`` if asked for, and at its end ``report.json``, the model itself (the folder can be loaded as a model) and
``report.html`` with its figures. The same call again resumes a run that was stopped at any moment, and returns at once
from one that is done; ``report.html`` is made again if it is gone. The folder belongs to a run once it takes its first
step: one that is refused leaves nothing.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from mlipjax import runtime
from mlipjax.data import Dataset
from mlipjax.files import write_atomic
from mlipjax.finetuning.folder import REPORT, claim_run, describe_run, run_folder
from mlipjax.finetuning.prepare import Preparation, points_of, prepare
from mlipjax.finetuning.retain import anchor_report
from mlipjax.finetuning.run_report import complete_run_report, save_points, write_run_report
from mlipjax.finetuning.snapshots import plan_snapshots
from mlipjax.models import load, save
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.train import Listener, StepInfo, TrainState, error_report, predict, read_metrics, train
from mlipjax.train.judge import Judge, explain_choice
from mlipjax.train.predict import StructurePrediction
from mlipjax.typing import Params


class FinetuneResult(NamedTuple):
    """A fine-tuned potential, its parameters, and the report (JSON types; also in ``report.json``)."""

    potential: Potential
    params: Params
    report: dict[str, Any]

    @property
    def model(self) -> Model:
        """The fine-tuned model."""
        return Model(self.potential, self.params)


class FinetuneListener(Listener):
    """A ``Listener`` that is also told what is about to run."""

    def start(self, preparation: Preparation) -> None:
        """Before the first step."""


def finetune(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None = None,
    *,
    settings: FinetuneSettings | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: FinetuneListener | None = None,
) -> FinetuneResult:
    """Fine-tune a potential on labelled structures.

    Args:
        potential: where to start.
        params: its parameters.
        train_data: structures to train on, with total energies.
        valid_data: structures that decide which epoch is kept; by default a part of ``train_data``, whole
            trajectories at a time.
        settings: everything else.
        out: folder of the run; ``None`` keeps nothing on disk.
        listener: is told of plan, steps and epochs.

    Returns:
        The potential of the best epoch. Adapters are merged; with replay it has a second head for what was replayed.

    Raises:
        ValueError: if the input cannot be honoured: a fatal finding of the doctor (unknown elements, missing labels,
            wrong units, an error before training above 500 meV/atom, ...), a strategy that cannot be combined with
            the options given, or a folder that holds another run.
        NonFiniteError: if training diverges; the frames at fault are saved in ``out``.
        InUseError: if another process works in ``out``.
    """
    settings = FinetuneSettings() if settings is None else settings
    listener = FinetuneListener() if listener is None else listener
    folder = None if out is None else Path(out)
    description = describe_run(potential, params, train_data, valid_data, settings)
    with run_folder(folder, description) as finished:
        if folder is not None and finished is not None:
            complete_run_report(folder, finished)
            return FinetuneResult(*load(folder), finished)
        preparation = prepare(potential, params, train_data, valid_data, settings)
        total_steps = settings.epochs * preparation.train_batches.steps_per_epoch
        detach = preparation.strategy.detach
        snapshots = plan_snapshots(folder, settings.snapshots, total_steps, preparation.potential, detach)
        listener.start(preparation)
        if folder is not None:
            claim_run(folder, description)
        followed = _Followed(listener)
        started = time.monotonic()
        state = train(
            preparation.program,
            preparation.state,
            preparation.train_batches,
            preparation.valid_batches,
            preparation.hyper,
            preparation.config,
            retention=preparation.retention,
            folder=folder,
            snapshots=snapshots,
            listener=followed,
        )
        tuned = detach(state.best_params)
        records = followed.records if folder is None else read_metrics(folder)
        after = predict(preparation.program.potential, state.best_params, preparation.reported)
        report = _report(preparation, state, after, settings, records, time.monotonic() - started)
        if folder is not None:
            save(folder, preparation.potential, jax.device_get(tuned))
            save_points(folder, preparation.before_points, points_of(preparation.reported, after))
            # its presence says that the run is done; figures can be drawn at any time
            write_atomic(folder / REPORT, json.dumps(report, indent=1))
            write_run_report(folder, report)
    return FinetuneResult(preparation.potential, tuned, report)


class _Followed(FinetuneListener):
    """Passes on what another listener is told, and keeps the records of epochs."""

    def __init__(self, listener: FinetuneListener) -> None:
        self.listener = listener
        self.records: list[dict[str, Any]] = []

    def begin(self, record: dict[str, Any]) -> None:
        self.listener.begin(record)

    def step(self, state: TrainState, info: StepInfo) -> None:
        self.listener.step(state, info)

    def epoch(self, record: dict[str, Any]) -> None:
        self.records.append(record)
        self.listener.epoch(record)


def _report(
    preparation: Preparation,
    state: TrainState,
    after: Sequence[StructurePrediction],
    settings: FinetuneSettings,
    records: Sequence[dict[str, Any]],
    seconds: float,
) -> dict[str, Any]:
    program, batches = preparation.program, preparation.reported
    judge = Judge(program, preparation.valid_batches, preparation.retention, preparation.hyper)
    epoch = int(state.best_epoch)
    best = next((record for record in records if record["epoch"] == epoch), None)
    best = {"epoch": epoch, **judge.losses(state.best_params)} if best is None else best
    steps = preparation.train_batches.steps_per_epoch
    return {
        "settings": dataclasses.asdict(settings),
        "strategy": [list(row) for row in preparation.strategy.explain()],
        "split": preparation.split,
        "n_train": len(preparation.train_batches.dataset),
        "n_valid": 0 if preparation.valid_batches is None else len(batches.dataset),
        "measured_on": "training structures" if preparation.valid_batches is None else "validation structures",
        "n_trained_parameters": preparation.n_trained,
        "n_parameters": preparation.n_parameters,
        "e0_estimate": None if preparation.e0_estimate is None else preparation.e0_estimate.to_json(),
        "findings": [finding.to_json() for finding in preparation.findings],
        "epochs_run": int(state.step) // steps,
        "steps": int(state.step),
        "best_epoch": epoch,
        "choice": explain_choice(best, records),
        "before": preparation.before,
        "after": error_report(batches.dataset, after),
        "retained": {
            **preparation.retention_notes,
            "before": preparation.anchor_before,
            "after": anchor_report(preparation.retention, program.potential, state.best_params),
        },
        "seconds": round(seconds, 1),
        "versions": runtime.versions(),
    }


__all__ = ["FinetuneListener", "FinetuneResult", "Preparation", "finetune", "prepare"]
