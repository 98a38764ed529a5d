"""A fine-tune on energies and forces: a potential and labelled structures in, a potential and a report out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, split_dataset
from mlipjax.data.hashing import hash_dataset
from mlipjax.data.splits import IsolatedAtoms, set_apart
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
from mlipjax.finetuning.folder import describe_settings, hash_model
from mlipjax.finetuning.products import ProductSets, Source, make_products, products_after
from mlipjax.finetuning.retain import add_head, anchor_report, make_retention
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult, Outcome, run
from mlipjax.notices import say_unused
from mlipjax.optim import Optimizer, Strategy, choose_strategy, make_strategy
from mlipjax.potential import Model, Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.train import (
    E0Estimate,
    ForceField,
    LabelledBatches,
    LossJudge,
    Mixture,
    Prefactors,
    StructurePrediction,
    Task,
    TrainConfig,
    Training,
    TrainState,
    error_report,
    fisher_diagonal,
    predict,
    settle_e0s,
)
from mlipjax.train.batches import frames_per_step
from mlipjax.train.judge import explain_choice
from mlipjax.train.metrics import force_errors, parity_points
from mlipjax.train.products import add_products, product_report
from mlipjax.typing import Key, Params


def finetune(
    model: Model,
    train_data: Dataset,
    valid_data: Dataset | None = None,
    *,
    settings: FinetuneSettings | None = None,
    products: Source | None = None,
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
        products: Hessian-vector products to train on beside, or a teacher that gives those of the structures.
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
        return _with_products(prepare(model, train_data, valid_data, settings), products, settings)

    description = {
        "settings": describe_settings(settings),
        "model_sha256": hash_model(model),
        "train_sha256": hash_dataset(train_data),
        "valid_sha256": None if valid_data is None else hash_dataset(valid_data),
    }
    if products is not None:
        digest = hash_dataset(products) if isinstance(products, Dataset) else hash_model(products)
        description["hvp_sha256"] = digest
    return run(ready, description, settings, out, listener)


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A fine-tune ready to start, and what is known before it.

    Attributes:
        potential: what is saved in the end: with the isolated-atom energies and heads of the run, without adapters.
        strategy: with the settings given by the user.
        training: what ``train`` takes. Its tasks are "training" and, with replay, "replay".
        judge: by which it keeps an epoch; there are no ``valid`` structures without validation data.
        split: in words, how validation data were chosen.
        reported: what errors before and after are measured on: validation data, or training data without any.
        findings: of the doctor, none of them fatal.
        e0_estimate: of ``e0s="estimate"``.
        before: predictions on ``reported`` before training.
        anchor_before: error report on the anchor structures, ``None`` without them.
        retention_notes: in words, what is replayed and what the anchor is.
        n_parameters, n_trained: numbers of the model (without adapters), and those that are trained.
        products: Hessian products that are trained on beside.
    """

    potential: Potential
    strategy: Strategy
    training: Training
    judge: LossJudge
    split: str
    reported: LabelledBatches
    findings: tuple[Finding, ...]
    e0_estimate: E0Estimate | None
    before: Sequence[StructurePrediction]
    anchor_before: Any
    retention_notes: dict[str, Any]
    n_parameters: int
    n_trained: int
    products: ProductSets | None = None

    def conclude(self, state: TrainState, records: Sequence[dict[str, Any]]) -> Outcome:
        """Compare the best epoch with the model before training."""
        reported, valid, epoch = self.reported, self.judge.valid, int(state.best_epoch)
        after = predict(self.judge.objective.potential, state.best_params, reported)
        best = next((record for record in records if record["epoch"] == epoch), None)
        best = {"epoch": epoch, **self.judge(state.best_params)} if best is None else best
        before, after_report = (error_report(reported.dataset, found) for found in (self.before, after))
        if (sets := self.products) is not None:
            pairs = ((before, sets.before), (after_report, products_after(sets, state.best_params)))
            before, after_report = (
                add_products(report, product_report(sets.reported.dataset, found)) for report, found in pairs
            )
        report = {
            "split": self.split,
            "n_train": len(self.training.mixture.tasks[0].batches.dataset),
            "batch_size": self.training.mixture.tasks[0].batches.batch_size,
            "n_valid": 0 if valid is None else len(valid.dataset),
            "measured_on": "training structures" if valid is None else "validation structures",
            "n_trained_parameters": self.n_trained,
            "n_parameters": self.n_parameters,
            "e0_estimate": None if self.e0_estimate is None else self.e0_estimate.to_json(),
            "findings": [finding.to_json() for finding in self.findings],
            "epochs_run": int(state.step) // self.training.config.epoch,
            "best_epoch": epoch,
            "choice": explain_choice(best, records),
            "before": before,
            "after": after_report,
            "retained": {
                **self.retention_notes,
                "before": self.anchor_before,
                "after": anchor_report(self.judge, state.best_params),
            },
        }
        apart = force_errors(reported.dataset, after)
        return Outcome(report, _points(reported, self.before), _points(reported, after), apart)


@dataclasses.dataclass(frozen=True)
class _Student:
    """The model that is trained, and the one it was made from.

    Attributes:
        potential, params: with adapters, if there are any.
        plain: the same potential without adapters: what is saved.
        frozen: the model before anything was changed.
        optimizer: of its training.
    """

    potential: Potential
    params: Params
    plain: Potential
    frozen: Model
    optimizer: Optimizer


def prepare(model: Model, train_data: Dataset, valid_data: Dataset | None, settings: FinetuneSettings) -> Preparation:
    """Check, split, find neighbours, settle the isolated-atom energies, and evaluate the potential before training.

    Raises:
        ValueError: see ``finetune``.
    """
    potential, isolated = model.potential, set_apart(train_data)
    train_data, valid_data, split = _split(isolated.rest, valid_data, settings)
    strategy = _strategy(model.params, train_data, settings)
    given = {"train": train_data, **({} if valid_data is None else {"valid": valid_data})}
    findings = demote(check_data(potential, given, dtype=settings.dtype), settings.ignore)
    findings += check_validation(train_data, valid_data)
    refuse_fatal(findings)
    if not train_data.count_labels()["stress"]:
        say_unused("no structure to train on has a stress", stress_weight=(settings.stress_weight, None))
    key, size = jax.random.key(settings.seed), settings.batch_size or frames_per_step(train_data)
    batches = {
        name: LabelledBatches.create(potential, data, size, passes=settings.epochs, **settings.batching())
        for name, data in given.items()
    }
    total_steps = settings.epochs * batches["train"].steps_per_epoch
    student = _make_student(strategy, model, key, total_steps, settings)

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
    objective = ForceField(student.potential, settings.make_loss())
    anchor_weight = strategy.anchor_weight
    judge = LossJudge(objective, settings.loss_weights(), batches.get("valid"), retention.anchor, anchor_weight)
    return Preparation(
        potential=student.plain,
        strategy=strategy,
        training=_training(strategy, student, batches["train"], retention.replay, judge, key, settings),
        judge=judge,
        split=split,
        reported=reported,
        findings=tuple(sort_findings([*findings, *found])),
        e0_estimate=estimate,
        before=before,
        anchor_before=anchor_report(judge, student.params),
        retention_notes=notes,
        n_parameters=tree.count(strategy.detach(student.params)),
        n_trained=tree.count(student.optimizer.split(student.params)[0]),
    )


def _with_products(ready: Preparation, source: Source | None, settings: FinetuneSettings) -> Preparation:
    """The same with Hessian products as one more task, whose held-out loss counts in the choice of the epoch."""
    if source is None:
        say_unused("there are no Hessian products", hvp_weight=(settings.hvp_weight, None))
        return ready
    training, judge, valid = ready.training, ready.judge, ready.judge.valid
    student = Model(judge.objective.potential, training.state.params)
    data = training.mixture.tasks[0].batches.dataset, None if valid is None else valid.dataset
    sets = make_products(source, student, *data, settings, fresh=ready.strategy.from_scratch)
    judge = dataclasses.replace(judge, products=sets.judge)
    mixture = Mixture((*training.mixture.tasks, sets.task), "sum")
    training = dataclasses.replace(training, mixture=mixture, judge=judge)
    return dataclasses.replace(
        ready, training=training, judge=judge, split=f"{ready.split}; {sets.note}", products=sets
    )


def _training(
    strategy: Strategy,
    student: _Student,
    train: LabelledBatches,
    replay: LabelledBatches | None,
    judge: LossJudge,
    key: Key,
    settings: FinetuneSettings,
) -> Training:
    """Every step is on training structures and, with replay, on a batch of replayed ones beside them."""
    objective, weights, optimizer = judge.objective, judge.weights, student.optimizer
    tasks = [Task("training", objective, train, key, prefactors=Prefactors.constant(weights))]
    if replay is not None:
        less = jax.tree.map(lambda weight: strategy.replay_weight * weight, weights)
        # another stream than the order of the training structures
        order = jax.random.fold_in(key, 0x5E)
        tasks.append(Task("replay", objective, replay, order, prefactors=Prefactors.constant(less)))
    state, importance = TrainState.create(student.params, optimizer, key), None
    if strategy.pull == "ewc":
        # Fisher information of replayed structures with true labels, or of the target's
        known = (replay if strategy.replay == "labels" else None) or train
        importance = fisher_diagonal(objective, optimizer, state.params, known, weights)
    return Training(
        mixture=Mixture(tuple(tasks), "sum"),
        optimizer=optimizer,
        state=state,
        hyper=strategy.hyper(weights, state.params if strategy.pull else None, importance),
        config=TrainConfig(optimizer.config.total_steps, train.steps_per_epoch, settings.patience),
        judge=judge,
    )


def _points(batches: LabelledBatches, predictions: Sequence[StructurePrediction]) -> dict[str, np.ndarray]:
    """Reference and predictions of a data set, energies relative to isolated atoms."""
    return parity_points(
        batches.dataset, predictions, lambda system: batches.potential.reference_energy(system.atomic_numbers)
    )


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


def _make_student(strategy: Strategy, model: Model, key: Any, total_steps: int, settings: FinetuneSettings) -> _Student:
    """The potential that is trained: with fresh parameters, another head or adapters, as the strategy says."""
    params = model.potential.init(key) if strategy.from_scratch else model.params
    frozen = Model(model.potential.replace(precision=settings.precision), tree.cast(params, settings.dtype))
    plain, own = add_head(frozen) if strategy.replay else frozen
    adapted, own = strategy.attach(plain, own, key)
    return _Student(adapted, own, plain, frozen, Optimizer(strategy.optimizer_config(total_steps)))


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
        findings += check_zero_shot(untouched, [rows[i] for i in few.planned], settings.dtype)
    return findings
