"""One fine-tune: a potential and labelled structures in, a potential and a report out.

A run with a folder keeps ``run.json`` (settings and fingerprint of the input), ``checkpoints/``, ``metrics.jsonl``,
and at its end ``report.json`` and the model itself: the folder can be loaded as a model. The same call again
resumes a run that was stopped at any moment, and returns at once from one that is done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from mlipjax import runtime, tree
from mlipjax.data import Dataset, split_dataset, structure_hash
from mlipjax.files import write_atomic
from mlipjax.finetune.settings import STEP_0_LIMIT, FinetuneSettings
from mlipjax.models import load, save
from mlipjax.optim import Hyper, Strategy, make_optimizer, make_strategy
from mlipjax.potential import Potential
from mlipjax.train import (
    E0Estimate,
    LabelledBatches,
    Listener,
    Program,
    TrainConfig,
    TrainState,
    compile_program,
    error_report,
    estimate_e0s,
    predict,
    read_e0s,
    set_e0s,
    shift_e0s,
    train,
)
from mlipjax.typing import Params

RUN, REPORT = "run.json", "report.json"


class FinetuneResult(NamedTuple):
    """A fine-tuned potential, its parameters, and the report (JSON types; also in ``report.json``)."""

    potential: Potential
    params: Params
    report: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A fine-tune ready to start, and what is known before it.

    Attributes:
        potential: with the isolated-atom energies it will be trained and saved with.
        strategy: with the settings given by the user.
        split: in words, how validation data were chosen.
        e0_estimate: of ``e0s="estimate"``.
        before: error report on the validation data before training.
        state, program, train_batches, valid_batches, hyper, config: what ``train`` takes.
    """

    potential: Potential
    strategy: Strategy
    split: str
    e0_estimate: E0Estimate | None
    before: dict[str, Any]
    state: TrainState
    program: Program
    train_batches: LabelledBatches
    valid_batches: LabelledBatches
    hyper: Hyper
    config: TrainConfig


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

    Raises:
        ValueError: if the input cannot be honoured: unknown elements, missing E0s, an error before training above
            500 meV/atom, a folder that holds another run.
        NonFiniteError: if training diverges; the frames at fault are saved in ``out``.
    """
    settings = FinetuneSettings() if settings is None else settings
    listener = FinetuneListener() if listener is None else listener
    folder = None if out is None else Path(out)
    description = _describe(potential, params, train_data, valid_data, settings)
    if folder is not None and (finished := _open_run(folder, description)) is not None:
        return finished
    preparation = prepare(potential, params, train_data, valid_data, settings)
    listener.start(preparation)
    started = time.monotonic()
    state = train(
        preparation.program,
        preparation.state,
        preparation.train_batches,
        preparation.valid_batches,
        preparation.hyper,
        preparation.config,
        folder=folder,
        listener=listener,
    )
    report = _report(preparation, state, settings, time.monotonic() - started)
    if folder is not None:
        save(folder, preparation.potential, jax.device_get(state.best_params))
        # last: its presence says that the run is done
        write_atomic(folder / REPORT, json.dumps(report, indent=1))
    return FinetuneResult(preparation.potential, state.best_params, report)


def prepare(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None,
    settings: FinetuneSettings,
) -> Preparation:
    """Split, find neighbours, settle the isolated-atom energies, and evaluate the potential before training.

    Raises:
        ValueError: see ``finetune``.
    """
    strategy = make_strategy(
        settings.strategy,
        params,
        freeze_layers=settings.freeze_layers,
        layer_decay=settings.layer_decay,
        layer_multipliers=settings.layer_multipliers,
    ).override(learning_rate=settings.learning_rate, clip=settings.clip, ema_decay=settings.ema_decay)
    split = f"{len(train_data)} train / {len(valid_data or [])} valid structures, as given"
    if valid_data is None:
        parts = split_dataset(train_data, valid=settings.valid_fraction, seed=settings.seed)
        train_data, valid_data, split = parts.train, parts.valid, parts.describe()
    key = jax.random.key(settings.seed)
    if strategy.from_scratch:
        params = potential.init(key)
    params = tree.cast(params, settings.dtype)
    arguments = {"passes": settings.epochs, "dtype": settings.dtype, "max_slots": settings.max_slots}
    train_batches = LabelledBatches.create(potential, train_data, settings.batch_size, **arguments)
    valid_batches = LabelledBatches.create(potential, valid_data, settings.batch_size, **arguments)
    total_steps = settings.epochs * train_batches.steps_per_epoch
    optimizer = make_optimizer(strategy.optimizer_config(total_steps))
    program = compile_program(potential, optimizer, settings.make_loss())

    potential, estimate = _settle_e0s(potential, params, program, train_batches, settings)
    train_batches, valid_batches = (part.with_potential(potential) for part in (train_batches, valid_batches))
    before = error_report(valid_data, predict(program.apply, params, valid_batches))
    if not (strategy.from_scratch or settings.allow_e0_mismatch):
        _check_step_0(before, settings.e0s)
    return Preparation(
        potential=potential,
        strategy=strategy,
        split=split,
        e0_estimate=estimate,
        before=before,
        state=TrainState.create(params, optimizer, key),
        program=program,
        train_batches=train_batches,
        valid_batches=valid_batches,
        hyper=strategy.hyper(settings.loss_weights()),
        config=TrainConfig(settings.epochs, settings.patience),
    )


def _settle_e0s(
    potential: Potential,
    params: Params,
    program: Program,
    batches: LabelledBatches,
    settings: FinetuneSettings,
) -> tuple[Potential, E0Estimate | None]:
    if settings.e0s == "model":
        return potential, None
    if settings.e0s == "estimate":
        estimate = estimate_e0s(batches.dataset, predict(program.apply, params, batches))
        return shift_e0s(potential, estimate.shifts), estimate
    return set_e0s(potential, read_e0s(settings.e0s), required=batches.dataset.elements), None


def _check_step_0(before: dict[str, Any], e0s: str) -> None:
    error = before["energy_rmse_meV_per_atom"]
    if error is not None and not error <= 1e3 * STEP_0_LIMIT:
        raise ValueError(
            f"before training the energy error is {error:.0f} meV/atom with E0s from {e0s!r}, above "
            f"{1e3 * STEP_0_LIMIT:.0f}: they do not fit. Either the labels come from another code or other "
            "pseudopotentials than the E0s, or this model was trained with E0s fitted to total energies, which true "
            "isolated atoms cannot replace. Use e0s 'estimate'; to train all the same, allow the mismatch."
        )


def _report(preparation: Preparation, state: TrainState, settings: FinetuneSettings, seconds: float) -> dict[str, Any]:
    program, batches = preparation.program, preparation.valid_batches
    after = error_report(batches.dataset, predict(program.apply, state.best_params, batches))
    steps = preparation.train_batches.steps_per_epoch
    return {
        "settings": dataclasses.asdict(settings),
        "strategy": [list(row) for row in preparation.strategy.explain()],
        "split": preparation.split,
        "n_train": len(preparation.train_batches.dataset),
        "n_valid": len(batches.dataset),
        "e0_estimate": None if preparation.e0_estimate is None else preparation.e0_estimate.to_json(),
        "epochs_run": int(state.step) // steps,
        "steps": int(state.step),
        "best_epoch": int(state.best_epoch),
        "before": preparation.before,
        "after": after,
        "seconds": round(seconds, 1),
        "versions": runtime.versions(),
    }


def _describe(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None,
    settings: FinetuneSettings,
) -> dict[str, Any]:
    """What must be equal for a folder to be the same run; JSON types."""
    settings_given: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    if Path(settings.e0s).is_file():
        settings_given["e0s_sha256"] = hashlib.sha256(Path(settings.e0s).read_bytes()).hexdigest()
    return {
        "settings": settings_given,
        "model_sha256": _hash_model(potential, params),
        "train_sha256": _hash_dataset(train_data),
        "valid_sha256": None if valid_data is None else _hash_dataset(valid_data),
    }


def _hash_model(potential: Potential, params: Params) -> str:
    digest = hashlib.sha256(repr(potential.config).encode())
    digest.update(np.asarray(potential.e0s).tobytes())
    for path, leaf in tree.flatten_paths(params).items():
        digest.update(path.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _hash_dataset(dataset: Dataset) -> str:
    digest = hashlib.sha256()
    for system, labels, info in dataset:
        digest.update(structure_hash(system).encode())
        for label in jax.tree.leaves(labels):
            digest.update(np.asarray(label).tobytes())
        digest.update(repr(sorted(info.items(), key=str)).encode())
    return digest.hexdigest()


def _open_run(folder: Path, description: dict[str, Any]) -> FinetuneResult | None:
    """Claim a folder for a run; return the result if it is there already.

    Raises:
        ValueError: if the folder holds another run, or a model that this run would overwrite.
    """
    if (folder / RUN).is_file():
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if found != description:
            raise ValueError(f"{folder} holds another run: {_difference(found, description)}. Choose another folder.")
        if (folder / REPORT).is_file():
            report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
            return FinetuneResult(*load(folder), report)
        return None
    # a kill while the next line wrote leaves a temporary file behind
    if folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no fine-tune; choose another folder.")
    write_atomic(folder / RUN, json.dumps(description, indent=1))
    return None


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first things that differ, in words."""
    differing = [name for name in expected if name != "settings" and found.get(name) != expected[name]]
    parts = [f"another {name.removesuffix('_sha256')} set" for name in differing]
    old, new = found.get("settings", {}), expected["settings"]
    parts += [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in new if old.get(name) != new.get(name)]
    return "; ".join(parts)
