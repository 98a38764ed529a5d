"""A fine-tune on energies and forces: a potential and labelled structures in, a potential and a report out."""

from __future__ import annotations

import os

from mlipjax.data import Dataset
from mlipjax.finetuning.folder import describe_run
from mlipjax.finetuning.prepare import Preparation, prepare
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult, run
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings


def finetune(
    model: Model,
    train_data: Dataset,
    valid_data: Dataset | None = None,
    *,
    settings: FinetuneSettings | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: FinetuneListener | None = None,
) -> FinetuneResult:
    """Fine-tune a model on labelled structures.

    Args:
        model: where to start.
        train_data: structures to train on, with total energies.
        valid_data: structures that decide which epoch is kept; by default a part of ``train_data``, whole
            trajectories at a time.
        settings: everything else.
        out: folder of the run (``run``); ``None`` keeps nothing on disk.
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

    def ready() -> Preparation:
        return prepare(model, train_data, valid_data, settings)

    description = describe_run(model, train_data, valid_data, settings)
    return run(ready, description, settings, out, listener)
