"""What happens before the first step of a property fine-tune: head, tasks, force-field data, optimiser."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.properties import PropertyData
from mlipjax.finetuning.properties_checks import check_properties
from mlipjax.finetuning.properties_companions import DENOISE, denoising_companion, force_field_companion
from mlipjax.finetuning.retain import Frozen
from mlipjax.losses import LossWeights
from mlipjax.nn.readouts import STATISTICS, PropertyHead
from mlipjax.optim import Hyper, Optimizer, Strategy, make_mode, published_multipliers
from mlipjax.optim.recipes import layer_count
from mlipjax.potential import Potential, property_inputs
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import TrainState
from mlipjax.train.multitask import Mixture, MixtureProgram, Task
from mlipjax.train.multitask_batches import PropertyStream
from mlipjax.train.multitask_loop import MixtureConfig
from mlipjax.train.multitask_tasks import (
    property_errors,
    property_task,
)
from mlipjax.typing import Key, Params

_MEASURED = 512


@dataclasses.dataclass(frozen=True)
class PropertyPreparation:
    """A property fine-tune ready to start.

    Attributes:
        potential: with the property's head.
        strategy: with the settings given by the user.
        notes: in words, the data of every task.
        stream, valid: training and validation data of the property.
        program, state, hyper, config: what ``train_mixture`` takes.
    """

    potential: Potential
    strategy: Strategy
    notes: dict[str, str]
    stream: PropertyStream
    valid: PropertyStream
    program: MixtureProgram
    state: TrainState
    hyper: Hyper
    config: MixtureConfig


def add_property(potential: Potential, params: Params, head: PropertyHead, key: Key) -> tuple[Potential, Params]:
    """Return the potential with one more property head, freshly initialised; all else is as it was.

    Raises:
        ValueError: if the potential has a property of that name.
    """
    if head.name in {other.name for other in potential.properties}:
        raise ValueError(f"the model predicts {head.name!r} already; give the new property another name.")
    dtype = jax.tree.leaves(params)[0].dtype
    fresh = _with_head(potential, head).init_property(key, head.name, dtype)
    # the same leaf order as a model that was initialised with this head
    together = tree.unflatten_paths(dict(sorted(tree.flatten_paths({**params, head.group: fresh}).items())))
    return _with_head(potential, head), together


def _with_head(potential: Potential, head: PropertyHead) -> Potential:
    return potential.replace(properties=(*potential.properties, head))


def target_moments(data: PropertyData, kind: str) -> tuple[float, float]:
    """Mean and standard deviation of the values, per atom for an extensive property.

    Raises:
        ValueError: if all values are equal.
    """
    values = data.targets / data.n_atoms if kind == "extensive" else data.targets
    if len(values) < 2 or not np.std(values) > 0.0:
        raise ValueError(f"{data.key!r} takes one value only in {len(values)} structures: there is nothing to learn.")
    return float(np.mean(values)), float(np.std(values))


def standardise_inputs(potential: Potential, params: Params, head: PropertyHead, stream: PropertyStream) -> Params:
    """Return parameters in which the head's statistics are those of its inputs on training structures (some 500).

    A channel that hardly varies is divided by a hundredth of the largest deviation, not by its own.
    """
    count = -(-_MEASURED // max(plan.n_graphs for plan in stream.plans))
    chosen = np.unique(np.linspace(0, len(stream.plans) - 1, min(count, len(stream.plans))).round().astype(int))
    # one shape: the others would be compiled for a few batches only
    shape = stream.plans[chosen[0]].n_atoms, stream.plans[chosen[0]].n_neighbors
    plans = [stream.plans[index] for index in chosen]
    found = [
        jax.device_get(property_inputs(potential, params, stream.batch(plan).graph, head))
        for plan in plans
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
    train_data: PropertyData,
    valid_data: PropertyData | None,
    replay_data: Dataset | None,
    settings: FinetuneSettings,
    options: PropertySettings,
    denoise_data: PropertyData | None = None,
) -> PropertyPreparation:
    """Split, add heads, plan batches and gather force-field data.

    Raises:
        ValueError: see ``finetune_property``.
    """
    if valid_data is None:
        train_data, valid_data = _split(train_data, settings)
    check_properties(potential, train_data, valid_data)
    key = jax.random.key(settings.seed)
    params = tree.cast(params, settings.dtype)
    frozen = Frozen(potential, params)
    head = options.head(train_data.key, *target_moments(train_data, options.property_kind))
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
    stream = PropertyStream.create(potential, train_data, size, passes=passes, **limits)
    valid = PropertyStream.create(potential, valid_data, size, **limits)
    total = options.steps or settings.epochs * stream.steps_per_epoch
    params = standardise_inputs(potential, params, head, stream)
    tasks, notes = _tasks(potential, head, stream, valid, frozen, replay_data, denoise_data, key, settings, options)
    optimizer = Optimizer(strategy.optimizer_config(total))
    return PropertyPreparation(
        potential=potential,
        strategy=strategy,
        notes=notes,
        stream=stream,
        valid=valid,
        program=MixtureProgram(Mixture(tuple(tasks), options.mixture), optimizer),
        state=TrainState.create(params, optimizer, key),
        hyper=strategy.hyper(LossWeights()),
        config=MixtureConfig(total, options.validate_every or max(1, total // 20), (head.name, "mae")),
    )


def _split(data: PropertyData, settings: FinetuneSettings) -> tuple[PropertyData, PropertyData]:
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
    stream: PropertyStream,
    valid: PropertyStream,
    frozen: Frozen,
    replay_data: Dataset | None,
    denoise_data: PropertyData | None,
    key: Key,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[list[Task], dict[str, str]]:
    together = settings.strategy == "mft"
    share = options.force_field_share
    tasks = [
        property_task(
            potential,
            head,
            stream,
            jax.random.fold_in(key, 10),
            delta=options.property_delta,
            share=1.0 - share if together else 1.0,
            evaluate=property_errors(potential, valid, head.name),
        )
    ]
    notes = {head.name: f"{len(stream.data)} structures, {len(valid.data)} for validation"}
    if together:
        task, notes["force_field"] = force_field_companion(
            potential, frozen, replay_data, stream, key, settings, options
        )
        tasks.append(task)
    if options.denoise:
        task, notes[DENOISE] = denoising_companion(
            potential, stream, valid, denoise_data, key, sum(task.share for task in tasks), settings, options
        )
        tasks.append(task)
    return tasks, notes
