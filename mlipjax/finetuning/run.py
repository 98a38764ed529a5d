"""One fine-tune from beginning to end, whatever it learns: the same call resumes, or returns what is done.

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from ase import Atoms

from mlipjax import runtime
from mlipjax.files import write_atomic
from mlipjax.finetuning.folder import REPORT, claim_run, run_folder
from mlipjax.finetuning.run_report import complete_run_report, save_largest, save_points, write_run_report
from mlipjax.finetuning.snapshots import plan_snapshots
from mlipjax.hosts import is_first, json_of_first
from mlipjax.models import load, save
from mlipjax.optim import Strategy
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.train import Listener, Training, TrainState, train
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


class Outcome(NamedTuple):
    """Outcome of a run.

    Attributes:
        report: JSON types.
        before, after: by quantity, (2, n) references and predictions of the models before and after training.
        apart: structures, and for each the errors (n,) of the forces on its atoms after training, in eV/Å.
    """

    report: dict[str, Any]
    before: Mapping[str, np.ndarray]
    after: Mapping[str, np.ndarray]
    apart: Sequence[tuple[Atoms, np.ndarray]] = ()


class Prepared(Protocol):
    """A fine-tune ready to start."""

    @property
    def potential(self) -> Potential:
        """The potential that is saved in the end: without adapters."""
        ...

    @property
    def strategy(self) -> Strategy:
        """With the settings given by the user."""
        ...

    @property
    def training(self) -> Training:
        """The argument of ``train``."""
        ...

    def conclude(self, state: TrainState, records: Sequence[dict[str, Any]]) -> Outcome:
        """Measure the best parameters of a run that has ended; ``records`` are those of its epochs."""
        ...


class FinetuneListener(Listener):
    """A ``Listener`` that is also told what is about to run."""

    def start(self, preparation: Any) -> None:
        """Before the first step."""


def run(
    prepare: Callable[[], Prepared],
    description: dict[str, Any],
    settings: FinetuneSettings,
    out: str | os.PathLike[str] | None,
    listener: FinetuneListener | None,
) -> FinetuneResult:
    """Prepare a fine-tune, train, measure and save; or return what ``out`` holds, if it is done.

    Args:
        prepare: makes everything ready.
        description: what must be equal for a folder to be the same run.
        settings: of the run.
        out: folder of the run; ``None`` keeps nothing on disk. Of several processes the first writes it.
        listener: is told of plan, steps and epochs.
    """
    listener = FinetuneListener() if listener is None else listener
    folder = None if out is None or not is_first() else Path(out)
    with run_folder(folder, description) as finished:
        finished = json_of_first(finished)
        if out is not None and finished is not None:
            if folder is not None:
                complete_run_report(folder, finished)
            return FinetuneResult(*load(Path(out)), finished)
        ready = prepare()
        total, detach = ready.training.config.steps, ready.strategy.detach
        snapshots = plan_snapshots(folder, settings.snapshots, total, ready.potential, detach)
        listener.start(ready)
        if folder is not None:
            claim_run(folder, description)
        started = time.monotonic()
        state, records = train(ready.training, folder=folder, snapshots=snapshots, listener=listener)
        tuned = detach(state.best_params)
        outcome = ready.conclude(state, records)
        report = {
            "settings": dataclasses.asdict(settings),
            **outcome.report,
            "strategy": [list(row) for row in ready.strategy.explain()],
            "steps": int(state.step),
            "seconds": round(time.monotonic() - started, 1),
            "versions": runtime.versions(),
        }
        if folder is not None:
            save(folder, ready.potential, jax.device_get(tuned))
            save_points(folder, outcome.before, outcome.after)
            save_largest(folder, outcome.apart)
            # its presence says that the run is done; figures can be drawn at any time
            write_atomic(folder / REPORT, json.dumps(report, indent=1))
            write_run_report(folder, report)
    return FinetuneResult(ready.potential, tuned, report)
