"""A fine-tune to a property: what happens before its first step, and what is measured after the last."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.properties import property_name, targets
from mlipjax.finetuning.properties_checks import check_properties
from mlipjax.finetuning.properties_companions import DENOISE, denoising_companion, force_field_companion
from mlipjax.finetuning.retain import Frozen
from mlipjax.finetuning.run import Outcome
from mlipjax.losses import LossWeights
from mlipjax.nn.readouts import STATISTICS, PropertyHead
from mlipjax.optim import Optimizer, Strategy, make_mode, published_multipliers
from mlipjax.optim.recipes import layer_count
from mlipjax.potential import Potential, property_inputs
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import (
    LabelledBatches,
    Mixture,
    PropertyValue,
    Task,
    TaskJudge,
    TrainConfig,
    Training,
    TrainState,
    predict_property,
    property_report,
)
from mlipjax.train.batches import property_batches
from mlipjax.train.errors import property_errors
from mlipjax.train.parity import thinned
from mlipjax.typing import Key, Params

_MEASURED = 512


@dataclasses.dataclass(frozen=True)
class PropertyPreparation:
    """A property fine-tune ready to start.

    Attributes:
        potential: with the property's head.
        strategy, options: with the settings given by the user.
        notes: in words, the data of every task.
        training: what ``train`` takes; the property is its first task.
        valid: validation data of the property.
        tests: more data on which errors are reported, by name.
    """

    potential: Potential
    strategy: Strategy
    options: PropertySettings
    notes: dict[str, str]
    training: Training
    valid: LabelledBatches
    tests: Mapping[str, LabelledBatches]

    def conclude(self, state: TrainState, records: Sequence[dict[str, Any]]) -> Outcome:
        """Measure the best parameters on every set, and what they are at the other tasks."""
        training, best = self.training, state.best_params
        task, *others = training.mixture.tasks
        beside = {other.name: other.errors(best) for other in others if other.errors is not None}
        pairs = {name: self._pair(best, part, task.name) for name, part in {"": self.valid, **self.tests}.items()}
        reports = {name: property_report(*pair) for name, pair in pairs.items()}
        report = {
            "options": dataclasses.asdict(self.options),
            "property": dataclasses.asdict(self.potential.property_head(task.name)),
            "tasks": self.notes,
            "n_train": len(task.batches.dataset),
            "n_parameters": tree.count(best),
            "n_trained_parameters": tree.count(training.optimizer.split(best)[0]),
            "valid": reports.pop(""),
            "force_field": {name: errors for name, errors in beside.items() if name != DENOISE},
            "denoising": beside.get(DENOISE),
            "tests": reports,
            "best_step": min(int(state.best_epoch) * training.config.epoch, training.config.steps),
        }
        return Outcome(report, {}, {"property": thinned(pairs[""])})

    def _pair(self, params: Params, batches: LabelledBatches, name: str) -> np.ndarray:
        """(2, n) values and predictions."""
        return np.stack([targets(batches.dataset, name), predict_property(self.potential, params, batches, name)])


def add_property(potential: Potential, params: Params, head: PropertyHead, key: Key) -> tuple[Potential, Params]:
    """Return the potential with one more property head, freshly initialised; all else is as it was.

    Raises:
        ValueError: if the potential has a property of that name.
    """
    if head.name in {other.name for other in potential.properties}:
        raise ValueError(f"the model predicts {head.name!r} already; give the new property another name.")
    dtype = jax.tree.leaves(params)[0].dtype
    potential = potential.replace(properties=(*potential.properties, head))
    fresh = potential.init_property(key, head.name, dtype)
    # the same leaf order as a model that was initialised with this head
    return potential, tree.unflatten_paths(dict(sorted(tree.flatten_paths({**params, head.group: fresh}).items())))


def target_moments(data: Dataset, key: str, kind: str) -> tuple[float, float]:
    """Mean and standard deviation of a property, per atom if it is extensive.

    Raises:
        ValueError: if all values are equal.
    """
    values = targets(data, key)
    if kind == "extensive":
        values = values / np.array([system.n_atoms for system in data.systems])
    if len(values) < 2 or not np.std(values) > 0.0:
        raise ValueError(f"{key!r} takes one value only in {len(values)} structures: there is nothing to learn.")
    return float(np.mean(values)), float(np.std(values))


def standardise_inputs(potential: Potential, params: Params, head: PropertyHead, batches: LabelledBatches) -> Params:
    """Return parameters in which the head's statistics are those of its inputs on training structures (some 500).

    A channel that hardly varies is divided by a hundredth of the largest deviation, not by its own.
    """
    plans = batches.plans
    count = -(-_MEASURED // max(plan.n_graphs for plan in plans))
    chosen = np.unique(np.linspace(0, len(plans) - 1, min(count, len(plans))).round().astype(int))
    # one shape: the others would be compiled for a few batches only
    shape = plans[chosen[0]].n_atoms, plans[chosen[0]].n_neighbors
    found = [
        jax.device_get(property_inputs(potential, params, batches.batch(plan).graph, head))
        for plan in (plans[index] for index in chosen)
        if (plan.n_atoms, plan.n_neighbors) == shape
    ]
    n, total, squares = (np.sum([np.asarray(part[i], np.float64) for part in found], axis=0) for i in range(3))
    mean = total / n
    std = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
    std = np.maximum(std, max(0.01 * std.max(), 1e-6))
    dtype = jax.tree.leaves(params)[0].dtype
    statistics = {"mean": jax.numpy.asarray(mean, dtype), "std": jax.numpy.asarray(std, dtype)}
    return {**params, head.group: {**params[head.group], STATISTICS: statistics}}


def prepare_property(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None,
    replay_data: Dataset | None,
    settings: FinetuneSettings,
    options: PropertySettings,
    denoise_data: Dataset | None = None,
    tests: Mapping[str, Dataset] | None = None,
) -> PropertyPreparation:
    """Split, add heads, plan batches and gather force-field data.

    Raises:
        ValueError: see ``finetune_property``.
    """
    if valid_data is None:
        train_data, valid_data = _split(train_data, settings)
    name = property_name(train_data)
    check_properties(potential, name, train_data, valid_data)
    key = jax.random.key(settings.seed)
    params = tree.cast(params, settings.dtype)
    frozen = Frozen(potential, params)
    head = options.head(name, *target_moments(train_data, name, options.property_kind))
    potential, params = add_property(potential, params, head, key)
    if options.denoise and DENOISE not in {head.name for head in potential.properties}:
        noise_head = PropertyHead(DENOISE, "vector", options.property_hidden, "last", unit="displacement")
        potential, params = add_property(potential, params, noise_head, jax.random.fold_in(key, 1))
    if settings.strategy == "scratch":
        params = potential.init(key, settings.dtype)
    strategy = _strategy(params, settings, options)

    limits: dict[str, Any] = {"dtype": settings.dtype, "max_slots": settings.max_slots}
    size = options.property_batch_size
    passes = settings.epochs if options.steps is None else max(2.0, options.steps * size / len(train_data))
    train = property_batches(potential, train_data, size, passes=passes, **limits)
    valid, *tested = (
        property_batches(potential, data, size, **limits) for data in (valid_data, *(tests or {}).values())
    )
    total = options.steps or settings.epochs * train.steps_per_epoch
    params = standardise_inputs(potential, params, head, train)
    tasks, notes = _tasks(potential, head, train, valid, frozen, replay_data, denoise_data, key, settings, options)
    optimizer = Optimizer(strategy.optimizer_config(total))
    mixture = Mixture(tuple(tasks), options.mixture)
    return PropertyPreparation(
        potential=potential,
        strategy=strategy,
        options=options,
        notes=notes,
        training=Training(
            mixture=mixture,
            optimizer=optimizer,
            state=TrainState.create(params, optimizer, key),
            hyper=strategy.hyper(LossWeights()),
            config=TrainConfig(total, options.validate_every or max(1, total // 20), apart=True),
            judge=TaskJudge(mixture, (name, "mae")),
        ),
        valid=valid,
        tests=dict(zip(tests or {}, tested, strict=True)),
    )


def _split(data: Dataset, settings: FinetuneSettings) -> tuple[Dataset, Dataset]:
    n_valid = max(1, round(settings.valid_fraction * len(data)))
    if not 0.0 < settings.valid_fraction < 1.0 or n_valid >= len(data):
        raise ValueError(f"valid_fraction={settings.valid_fraction} of {len(data)} structures: give a fraction.")
    order = np.random.default_rng(settings.seed).permutation(len(data))
    return data.subset(np.sort(order[n_valid:])), data.subset(np.sort(order[:n_valid]))


def _strategy(params: Params, settings: FinetuneSettings, options: PropertySettings) -> Strategy:
    multipliers = settings.layer_multipliers
    if options.published_decay:
        if multipliers is not None:
            raise ValueError("published_decay and layer_multipliers are two tables; give one of them.")
        multipliers = published_multipliers(layer_count(params))
    strategy = make_mode(settings.strategy, params, layer_decay=settings.layer_decay, layer_multipliers=multipliers)
    return strategy.override(learning_rate=settings.learning_rate, clip=settings.clip, ema_decay=settings.ema_decay)


def _tasks(
    potential: Potential,
    head: PropertyHead,
    train: LabelledBatches,
    valid: LabelledBatches,
    frozen: Frozen,
    replay_data: Dataset | None,
    denoise_data: Dataset | None,
    key: Key,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[list[Task], dict[str, str]]:
    together = settings.strategy == "mft"
    task = Task(
        head.name,
        PropertyValue(potential, head, options.property_delta),
        train,
        jax.random.fold_in(key, 10),
        groups=(head.group,),
        share=1.0 - options.force_field_share if together else 1.0,
        errors=property_errors(potential, valid, head.name),
    )
    tasks, notes = [task], {head.name: f"{len(train.dataset)} structures, {len(valid.dataset)} for validation"}
    if together:
        elements = train.dataset.elements
        task, notes["force_field"] = force_field_companion(
            potential, frozen, replay_data, elements, key, settings, options
        )
        tasks.append(task)
    if options.denoise:
        given = (train.dataset, valid.dataset) if denoise_data is None else denoise_data
        others = sum(task.share for task in tasks)
        task, notes[DENOISE] = denoising_companion(potential, given, key, others, settings, options)
        tasks.append(task)
    return tasks, notes
