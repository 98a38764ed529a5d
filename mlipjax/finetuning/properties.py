"""Learning a property of structures from a pretrained potential, alone or together with its force field (S3).

A run with a folder keeps ``run.json``, ``checkpoints/``, ``metrics.jsonl`` (every task's errors apart), ``snapshots/``
if asked for, and at its end ``report.json``, the model, whose folder can be loaded, and ``report.html`` with its
figures. The same call again resumes, or returns what is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax import runtime, tree
from mlipjax.data import Dataset, hash_input
from mlipjax.data.properties import PropertyData
from mlipjax.files import write_atomic
from mlipjax.finetuning.folder import REPORT, claim_run, hash_dataset, hash_model, run_folder
from mlipjax.finetuning.properties_companions import DENOISE
from mlipjax.finetuning.properties_tasks import PropertyPreparation, prepare_property
from mlipjax.finetuning.run_report import complete_run_report, save_points, write_run_report
from mlipjax.finetuning.single import FinetuneResult
from mlipjax.finetuning.snapshots import plan_snapshots
from mlipjax.models import load, save
from mlipjax.potential import Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.settings.properties import PropertySettings, check_settings
from mlipjax.train.multitask_batches import PropertyStream
from mlipjax.train.multitask_loop import MixtureListener, train_mixture
from mlipjax.train.multitask_tasks import predict_property, property_report
from mlipjax.train.parity import thinned
from mlipjax.typing import Params


class PropertyListener(MixtureListener):
    """A ``MixtureListener`` that is also told what is about to run."""

    def start(self, preparation: PropertyPreparation) -> None:
        """Before the first step."""


def finetune_property(
    potential: Potential,
    params: Params,
    train_data: PropertyData,
    valid_data: PropertyData | None = None,
    *,
    settings: FinetuneSettings,
    options: PropertySettings | None = None,
    replay_data: Dataset | None = None,
    denoise_data: PropertyData | None = None,
    tests: Mapping[str, PropertyData] | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: PropertyListener | None = None,
) -> FinetuneResult:
    """Give a potential a head for a property and train it.

    Args:
        potential: where to start.
        params: its parameters.
        train_data: structures and values.
        valid_data: decides which parameters are kept; by default a random part of ``train_data``.
        settings: those shared with other fine-tunes; ``strategy`` is scratch, ft, lp or mft.
        options: those of the property.
        replay_data: for mft, labelled structures of the force field, instead of ``settings.replay``.
        denoise_data: structures for denoising (``PropertyData.from_systems``), instead of ``options.denoise_data``.
        tests: more data sets on which errors are reported, by name.
        out: folder of the run; ``None`` keeps nothing on disk.
        listener: is told of plan, steps and intervals.

    Returns:
        The potential with the property's head (``potential.property_values``), its best parameters, and a report.

    Raises:
        ValueError: if settings, data or folder cannot be honoured.
        NonFiniteError: if training diverges.
        InUseError: if another process works in ``out``.
    """
    options = PropertySettings() if options is None else options
    listener = PropertyListener() if listener is None else listener
    check_settings(settings, options)
    folder = None if out is None else Path(out)
    if denoise_data is not None and not options.denoise:
        raise ValueError("denoise_data needs the size of the noise: give denoise in Å.")
    data = {"train": train_data, "valid": valid_data, "denoise": denoise_data}
    description = _describe(potential, params, data, replay_data, settings, options)
    with run_folder(folder, description) as finished:
        if folder is not None and finished is not None:
            complete_run_report(folder, finished)
            return FinetuneResult(*load(folder), finished)
        ready = prepare_property(
            potential, params, train_data, valid_data, replay_data, settings, options, denoise_data
        )
        snapshots = plan_snapshots(folder, settings.snapshots, ready.config.total_steps, ready.potential)
        listener.start(ready)
        if folder is not None:
            claim_run(folder, description)
        started = time.monotonic()
        state = train_mixture(
            ready.program, ready.state, ready.hyper, ready.config, folder=folder, snapshots=snapshots, listener=listener
        )
        seconds = time.monotonic() - started
        best = state.best_params
        report = {
            "settings": dataclasses.asdict(settings),
            "options": dataclasses.asdict(options),
            **_report(ready, best, tests or {}, options.property_batch_size),
            "steps": int(state.step),
            "best_step": int(state.best_epoch),
            "seconds": round(seconds, 1),
            "versions": runtime.versions(),
        }
        if folder is not None:
            save(folder, ready.potential, jax.device_get(best))
            valid = ready.valid.data
            pair = np.stack([valid.targets, predict_property(ready.potential, best, ready.valid, valid.key)])
            save_points(folder, {}, {"property": thinned(pair)})
            # its presence says that the run is done; figures can be drawn at any time
            write_atomic(folder / REPORT, json.dumps(report, indent=1))
            write_run_report(folder, report)
    return FinetuneResult(ready.potential, best, report)


def _report(
    ready: PropertyPreparation, best: Params, tests: Mapping[str, PropertyData], batch_size: int
) -> dict[str, Any]:
    """What was trained, and how well it does on every set."""
    name = ready.valid.data.key
    stream = ready.stream

    beside = {
        task.name: task.evaluate(best)
        for task in ready.program.mixture.tasks
        if task.name != name and task.evaluate is not None
    }

    def tested(data: PropertyData) -> dict[str, Any]:
        return _errors(ready, best, PropertyStream.create(ready.potential, data, batch_size, dtype=stream.dtype))

    return {
        "property": dataclasses.asdict(ready.potential.property_head(name)),
        "strategy": [list(row) for row in ready.strategy.explain()],
        "tasks": ready.notes,
        "n_train": len(stream.data),
        "n_parameters": tree.count(best),
        "n_trained_parameters": tree.count(ready.program.optimizer.split(best)[0]),
        "valid": _errors(ready, best, ready.valid),
        "force_field": {task: errors for task, errors in beside.items() if task != DENOISE},
        "denoising": beside.get(DENOISE),
        "tests": {test: tested(data) for test, data in tests.items()},
    }


def _errors(ready: PropertyPreparation, params: Params, stream: PropertyStream) -> dict[str, Any]:
    name = stream.data.key
    return property_report(stream.data.targets, predict_property(ready.potential, params, stream, name))


def _describe(
    potential: Potential,
    params: Params,
    data: Mapping[str, PropertyData | None],
    replay_data: Dataset | None,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> dict[str, Any]:
    """What must be equal for a folder to be the same run; JSON types."""
    key = data["train"].key  # pyright: ignore[reportOptionalMemberAccess]
    given = {**dataclasses.asdict(settings), **dataclasses.asdict(options), "property": key}
    described = {
        "settings": json.loads(json.dumps(given)),
        "model_sha256": hash_model(potential, params),
        **{f"{name}_sha256": None if part is None else _hash_properties(part) for name, part in data.items()},
        "replay_sha256": None if replay_data is None else hash_dataset(replay_data),
    }
    for name, file in (("replay", settings.replay), ("denoise", options.denoise_data)):
        if file is not None and (digest := hash_input(file)) is not None:
            described[f"{name}_sha256"] = digest
    return described


def _hash_properties(data: PropertyData) -> str:
    digest = hashlib.sha256(data.key.encode() + np.ascontiguousarray(data.targets).tobytes())
    for index in range(len(data)):
        system = data.system(index)
        digest.update(np.asarray(system.atomic_numbers).tobytes() + np.asarray(system.positions).tobytes())
        digest.update(np.asarray(system.cell).tobytes())
    return digest.hexdigest()
