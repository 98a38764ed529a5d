"""What happens before the first step of a fine-tune: checks, isolated-atom energies, adapters, heads, replay."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, split_dataset
from mlipjax.doctor import (
    Compared,
    Finding,
    check_data,
    check_estimate,
    check_isolated,
    check_set,
    check_validation,
    check_zero_shot,
    demote,
    refuse_fatal,
    sort_findings,
)
from mlipjax.finetuning.retain import Frozen, add_head, anchor_report, make_retention
from mlipjax.optim import Hyper, Optimizer, Strategy, choose_strategy, make_strategy
from mlipjax.potential import Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.system import System
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
    settle_e0s,
)
from mlipjax.train.isolated import IsolatedAtoms, set_apart
from mlipjax.train.parity import parity_points
from mlipjax.train.predict import StructurePrediction
from mlipjax.typing import Params


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A fine-tune ready to start, and what is known before it.

    Attributes:
        potential: what is saved in the end: with the isolated-atom energies and heads of the run, without adapters.
        strategy: with the settings given by the user.
        split: in words, how validation data were chosen.
        reported: what errors before and after are measured on: validation data, or training data without any.
        findings: of the doctor, none of them fatal.
        e0_estimate: of ``e0s="estimate"``.
        before: error report on ``reported`` before training.
        before_points: reference and predictions behind it (``train.parity_points``).
        anchor_before: the same on the anchor structures, ``None`` without them.
        retention_notes: in words, what is replayed and what the anchor is.
        n_parameters, n_trained: numbers of the model (without adapters), and those that are trained.
        state, program, train_batches, valid_batches, hyper, config, retention: what ``train`` takes; there are no
            ``valid_batches`` without validation data.
    """

    potential: Potential
    strategy: Strategy
    split: str
    reported: LabelledBatches
    findings: tuple[Finding, ...]
    e0_estimate: E0Estimate | None
    before: dict[str, Any]
    before_points: dict[str, np.ndarray]
    anchor_before: Any
    retention_notes: dict[str, Any]
    n_parameters: int
    n_trained: int
    state: TrainState
    program: Program
    train_batches: LabelledBatches
    valid_batches: LabelledBatches | None
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
    isolated = set_apart(train_data)
    train_data, valid_data, split = _split(isolated.rest, valid_data, settings)
    strategy = _strategy(params, train_data, settings)
    given = {"train": train_data, **({} if valid_data is None else {"valid": valid_data})}
    findings = demote(check_data(potential, given, dtype=settings.dtype), settings.ignore)
    findings += check_validation(train_data, valid_data)
    refuse_fatal(findings)
    key = jax.random.key(settings.seed)
    batches = {name: _batches(potential, data, settings) for name, data in given.items()}
    total_steps = settings.epochs * batches["train"].steps_per_epoch
    student = _make_student(strategy, potential, params, key, total_steps, settings)

    settled, estimate = settle_e0s(student.potential, student.params, batches["train"], settings.e0s, isolated.energies)
    student = dataclasses.replace(student, potential=settled, plain=student.plain.replace(e0s=settled.e0s))
    batches = {name: part.with_potential(settled) for name, part in batches.items()}
    reported = batches.get("valid", batches["train"])
    before = predict(student.potential, student.params, reported)
    if not strategy.from_scratch:
        found = [*check_estimate(estimate), *_check_model(student, batches, isolated, settings)]
        findings += demote(found, [*settings.ignore, *(["step-0"] if settings.allow_e0_mismatch else [])])
        refuse_fatal(findings)
    elements = sorted({z for data in given.values() for z in data.elements})
    retention, notes, found = make_retention(strategy, student.potential, student.frozen, elements, settings)
    state = TrainState.create(student.params, student.program.optimizer, key)
    return Preparation(
        potential=student.plain,
        strategy=strategy,
        split=split,
        reported=reported,
        findings=tuple(sort_findings([*findings, *found])),
        e0_estimate=estimate,
        before=error_report(reported.dataset, before),
        before_points=points_of(reported, before),
        anchor_before=anchor_report(retention, student.potential, state.params),
        retention_notes=notes,
        n_parameters=tree.count(strategy.detach(student.params)),
        n_trained=tree.count(student.program.optimizer.split(student.params)[0]),
        state=state,
        program=student.program,
        train_batches=batches["train"],
        valid_batches=batches.get("valid"),
        hyper=_hyper(strategy, student, state.params, batches["train"], retention, settings),
        config=TrainConfig(settings.epochs, settings.patience),
        retention=retention,
    )


def points_of(batches: LabelledBatches, predictions: Sequence[StructurePrediction]) -> dict[str, np.ndarray]:
    """Reference and predictions of a data set, energies relative to isolated atoms."""

    def zero(system: System) -> float:
        return batches.potential.reference_energy(system.atomic_numbers)

    return parity_points(batches.dataset, predictions, zero)


def _split(
    train_data: Dataset, valid_data: Dataset | None, settings: FinetuneSettings
) -> tuple[Dataset, Dataset | None, str]:
    """Training and validation data without isolated atoms, and how they were chosen, in words."""
    if valid_data is not None:
        valid_data = set_apart(valid_data).rest
        return train_data, valid_data, f"{len(train_data)} train / {len(valid_data)} valid structures, as given"
    if settings.valid_fraction == 0.0 or len(train_data) == 1:
        if settings.patience is not None:
            raise ValueError(f"patience={settings.patience} needs validation data, and there are none.")
        return train_data, None, f"{len(train_data)} train structures, none for validation: the last epoch is kept"
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


def _check_model(
    student: _Student, batches: dict[str, LabelledBatches], isolated: IsolatedAtoms, settings: FinetuneSettings
) -> list[Finding]:
    """Compare the labels of every set with predictions, and the student with the model it was made from."""
    findings: list[Finding] = []
    compared: dict[str, Compared] = {}
    for name, part in batches.items():
        role = "train" if name == "train" else "other"
        compared[name], found = check_set(name, student.params, part, e0s=settings.e0s, dtype=settings.dtype, role=role)
        findings += found
    findings += check_isolated(student.potential, compared["train"], isolated, settings.e0s)
    frozen = student.frozen
    if frozen.potential != student.potential:
        few = dataclasses.replace(batches["train"], plans=batches["train"].plans[:1]).with_potential(frozen.potential)
        untouched = predict(frozen.potential, frozen.params, few)
        rows = dict(zip(compared["train"].indices, compared["train"].predictions, strict=True))
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
