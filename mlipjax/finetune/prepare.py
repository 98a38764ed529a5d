"""What happens before the first step of a fine-tune: checks, isolated-atom energies, adapters, heads, replay."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, split_dataset
from mlipjax.finetune.doctor import SAMPLE, check_data, compare, settle_e0s, strain_findings
from mlipjax.finetune.doctor_labels import check_predictions, check_zero_shot
from mlipjax.finetune.findings import Finding, demote, refuse_fatal, sort_findings
from mlipjax.finetune.retain import Frozen, add_head, anchor_report, make_retention
from mlipjax.finetune.settings import FinetuneSettings
from mlipjax.optim import Hyper, Optimizer, Strategy, choose_strategy, make_strategy
from mlipjax.potential import Potential
from mlipjax.train import (
    E0Estimate,
    LabelledBatches,
    Program,
    Retention,
    TrainConfig,
    TrainState,
    error_report,
    fisher_diagonal,
    predict,
)
from mlipjax.typing import Params


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A fine-tune ready to start, and what is known before it.

    Attributes:
        potential: what is saved in the end: with the isolated-atom energies and heads of the run, without adapters.
        strategy: with the settings given by the user.
        split: in words, how validation data were chosen.
        findings: of the doctor, none of them fatal.
        e0_estimate: of ``e0s="estimate"``.
        before: error report on the validation data before training.
        anchor_before: the same on the anchor structures, ``None`` without them.
        retention_notes: in words, what is replayed and what the anchor is.
        n_parameters, n_trained: numbers of the model (without adapters), and those that are trained.
        state, program, train_batches, valid_batches, hyper, config, retention: what ``train`` takes.
    """

    potential: Potential
    strategy: Strategy
    split: str
    findings: tuple[Finding, ...]
    e0_estimate: E0Estimate | None
    before: dict[str, Any]
    anchor_before: Any
    retention_notes: dict[str, Any]
    n_parameters: int
    n_trained: int
    state: TrainState
    program: Program
    train_batches: LabelledBatches
    valid_batches: LabelledBatches
    hyper: Hyper
    config: TrainConfig
    retention: Retention


@dataclasses.dataclass(frozen=True)
class _Student:
    """What is trained, and what it was made from.

    Attributes:
        potential, params: with adapters, if there are any.
        plain: the same potential without adapters: what is saved.
        frozen: the model before anything was changed.
        program, optimizer: compiled for ``potential``.
    """

    potential: Potential
    params: Params
    plain: Potential
    frozen: Frozen
    program: Program


def prepare(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None,
    settings: FinetuneSettings,
) -> Preparation:
    """Check, split, find neighbours, settle the isolated-atom energies, and evaluate the potential before training.

    Raises:
        ValueError: see ``finetune``.
    """
    train_data, valid_data, split = _split(train_data, valid_data, settings)
    strategy = _strategy(params, train_data, settings)
    given = {"train": train_data, "valid": valid_data}
    findings = demote(check_data(potential, given, dtype=settings.dtype), settings.ignore)
    refuse_fatal(findings)
    key = jax.random.key(settings.seed)
    train_batches, valid_batches = (_batches(potential, data, settings) for data in given.values())
    total_steps = settings.epochs * train_batches.steps_per_epoch
    student = _make_student(strategy, potential, params, key, total_steps, settings)

    settled = settle_e0s(student.potential, student.params, train_batches, settings.e0s)
    student = dataclasses.replace(
        student, potential=settled.potential, plain=student.plain.replace(e0s=settled.potential.e0s)
    )
    train_batches, valid_batches = (part.with_potential(settled.potential) for part in (train_batches, valid_batches))
    before = predict(student.potential, student.params, valid_batches)
    if not strategy.from_scratch:
        found = [*settled.findings, *_check_model(student, train_batches, settings)]
        findings += demote(found, [*settings.ignore, *(["step-0"] if settings.allow_e0_mismatch else [])])
        refuse_fatal(findings)
    elements = sorted({*train_data.elements, *valid_data.elements})
    retention, notes = make_retention(strategy, student.potential, student.frozen, elements, settings)
    state = TrainState.create(student.params, student.program.optimizer, key)
    return Preparation(
        potential=student.plain,
        strategy=strategy,
        split=split,
        findings=tuple(sort_findings(findings)),
        e0_estimate=settled.estimate,
        before=error_report(valid_data, before),
        anchor_before=anchor_report(retention, student.potential, state.params),
        retention_notes=notes,
        n_parameters=tree.count(strategy.detach(student.params)),
        n_trained=tree.count(student.program.optimizer.split(student.params)[0]),
        state=state,
        program=student.program,
        train_batches=train_batches,
        valid_batches=valid_batches,
        hyper=_hyper(strategy, student, state.params, train_batches, retention, settings),
        config=TrainConfig(settings.epochs, settings.patience),
        retention=retention,
    )


def _split(train_data: Dataset, valid_data: Dataset | None, settings: FinetuneSettings) -> tuple[Dataset, Dataset, str]:
    if valid_data is not None:
        return train_data, valid_data, f"{len(train_data)} train / {len(valid_data)} valid structures, as given"
    parts = split_dataset(train_data, valid=settings.valid_fraction, seed=settings.seed)
    return parts.train, parts.valid, parts.describe()


def _strategy(params: Params, train_data: Dataset, settings: FinetuneSettings) -> Strategy:
    name, reason = settings.strategy, None
    if settings.auto:
        compositions = {np.sort(np.asarray(system.atomic_numbers)).tobytes() for system in train_data.systems}
        name, reason = choose_strategy(len(train_data), len(compositions))
    strategy = make_strategy(name, params, **settings.strategy_options())
    strategy = strategy.override(
        learning_rate=settings.learning_rate,
        clip=settings.clip,
        ema_decay=settings.ema_decay,
        anchor_weight=settings.anchor_weight,
    )
    if reason is None:
        return strategy
    return dataclasses.replace(strategy, reasons={**strategy.reasons, "strategy": reason})


def _batches(potential: Potential, dataset: Dataset, settings: FinetuneSettings) -> LabelledBatches:
    return LabelledBatches.create(
        potential,
        dataset,
        settings.batch_size,
        passes=settings.epochs,
        dtype=settings.dtype,
        max_slots=settings.max_slots,
    )


def _make_student(
    strategy: Strategy, potential: Potential, params: Params, key: Any, total_steps: int, settings: FinetuneSettings
) -> _Student:
    """The potential that is trained: with fresh parameters, another head or adapters, as the strategy says."""
    if strategy.from_scratch:
        params = potential.init(key)
    params = tree.cast(params, settings.dtype)
    plain, own = add_head(potential, params) if strategy.replay else (potential, params)
    adapted, own = strategy.attach(plain, own, key)
    optimizer = Optimizer(strategy.optimizer_config(total_steps))
    program = Program(adapted, optimizer, settings.make_loss())
    frozen = Frozen(potential, params)
    return _Student(adapted, own, plain, frozen, program)


def _check_model(student: _Student, batches: LabelledBatches, settings: FinetuneSettings) -> list[Finding]:
    """Compare labels with predictions, and the student with the model it was made from."""
    sample = batches.part(SAMPLE)
    compared = compare("train", student.potential, student.params, sample)
    findings = check_predictions(student.potential, [compared], e0s=settings.e0s, dtype=settings.dtype)
    findings += strain_findings(findings, "train", student.potential, student.params, sample)
    frozen = student.frozen
    if frozen.potential != student.potential:
        few = dataclasses.replace(sample, plans=sample.plans[:1]).with_potential(frozen.potential)
        untouched = predict(frozen.potential, frozen.params, few)
        rows = dict(zip(compared.indices, compared.predictions, strict=True))
        findings += check_zero_shot(untouched, [rows[i] for i in few.planned], "train", settings.dtype)
    return findings


def _hyper(
    strategy: Strategy,
    student: _Student,
    params: Params,
    batches: LabelledBatches,
    retention: Retention,
    settings: FinetuneSettings,
) -> Hyper:
    """Numbers of the run; the Fisher information is of replayed structures with true labels, or of the target's."""
    weights = settings.loss_weights()
    if strategy.pull is None:
        return strategy.hyper(weights)
    importance = None
    if strategy.pull == "ewc":
        replayed = retention.replay if strategy.replay == "labels" else None
        importance = fisher_diagonal(student.program, params, replayed or batches, weights)
    return strategy.hyper(weights, params, importance)
