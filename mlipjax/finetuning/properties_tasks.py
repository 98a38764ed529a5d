"""Head of a property, and tasks: the property, the force field that the model is to keep, noise to take out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, read_dataset
from mlipjax.data.properties import targets
from mlipjax.finetuning.retain import check_level, known_data, split_replay
from mlipjax.nn.readouts import STATISTICS, PropertyHead
from mlipjax.potential import Model, Potential, property_inputs
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import Denoising, ForceField, LabelledBatches, PropertyValue, Task
from mlipjax.train.batches import frames_per_step, property_batches
from mlipjax.train.judge import denoising_errors, force_field_errors, property_errors
from mlipjax.typing import Key, Params

DENOISE = "denoise"
_EVALUATED = 32


@dataclasses.dataclass(frozen=True)
class TaskMaker:
    """Makes the tasks of one fine-tune, each with a note in words of what its data are.

    Attributes:
        potential: with all heads.
        key: of the whole fine-tune.
        settings, options: sizes, shares and losses.
    """

    potential: Potential
    key: Key
    settings: FinetuneSettings
    options: PropertySettings

    def batches(
        self, data: Dataset, size: int | None = None, *, passes: float = 1.0, reach: float = 0.0
    ) -> LabelledBatches:
        """Return batches for properties, in the precision of the run and within its memory."""
        return property_batches(
            self.potential,
            data,
            size or self.options.property_batch_size,
            passes=passes,
            reach=reach,
            **self.settings.batching(),
        )

    def of_property(self, head: PropertyHead, train: LabelledBatches, valid: LabelledBatches) -> tuple[Task, str]:
        """Return the task of the property itself."""
        together = self.settings.strategy == "mft"
        task = Task(
            head.name,
            PropertyValue(self.potential, head, self.options.property_delta),
            train,
            jax.random.fold_in(self.key, 10),
            groups=(head.group,),
            share=1.0 - self.options.force_field_share if together else 1.0,
            errors=property_errors(self.potential, valid, head.name),
        )
        return task, f"{len(train.dataset)} structures, {len(valid.dataset)} for validation"

    def of_force_field(self, frozen: Model, replay: Dataset | None, elements: Sequence[int]) -> tuple[Task, str]:
        """Return the task that keeps the force field: a fifth of its structures validates.

        Args:
            frozen: the model before training, which knows them.
            replay: structures, instead of those that the settings name.
            elements: of generated ones.

        Raises:
            ValueError: if labels are of another level of theory.
        """
        settings, options = self.settings, self.options
        given = settings.replay if replay is None else replay
        dataset, note = known_data(frozen, given, elements, settings, False if options.pseudo_labels else None)
        check_level("replay", dataset, frozen, settings)
        size = settings.batch_size or frames_per_step(dataset)
        # the same division for all seeds: they compare on equal terms, and share compiled shapes
        train, valid = split_replay(dataset, 0)
        passes = max(1, round((options.steps or 0) * options.force_field_share * size / len(train)))
        # a sample is enough to follow a run; more held-out structures would take longer than the steps between
        held_out = LabelledBatches.create(self.potential, valid, size, **settings.batching()).part(_EVALUATED)
        task = Task(
            "force_field",
            ForceField(self.potential, settings.make_loss()),
            LabelledBatches.create(self.potential, train, size, passes=passes, **settings.batching()),
            jax.random.fold_in(self.key, 11),
            groups=(f"readout_{self.potential.heads[0]}",),
            prefactors=options.force_field_prefactors(settings),
            share=options.force_field_share,
            errors=force_field_errors(self.potential, held_out),
        )
        return task, f"{len(train)} {note}, {len(valid)} more held out"

    def of_noise(self, given: Dataset | None, train: Dataset, valid: Dataset, others: float) -> tuple[Task, str]:
        """Return the task of taking noise out of positions; it needs no labels.

        Args:
            given: structures of its own, a tenth of which validates.
            train, valid: the property's, taken without any.
            others: sum of the shares of the other tasks.
        """
        options, what = self.options, "the property's structures"
        if given is None and options.denoise_data is not None:
            given = read_dataset(options.denoise_data, required=(), with_labels=False)
        if given is not None:
            # like those of the force field, divided in the same way for all seeds
            order = np.random.default_rng(0).permutation(len(given))
            n_valid = max(1, len(given) // 10)
            if n_valid == len(given):
                raise ValueError("denoising needs two structures or more, one of them for validation.")
            valid, train = (given.subset(np.sort(part)) for part in np.split(order, [n_valid]))
            what = f"{len(train)} structures of their own, {len(valid)} more held out"
        objective = Denoising(self.potential, self.potential.property_head(DENOISE), options.denoise)
        evaluated, size = valid.subset(range(min(len(valid), _EVALUATED))), options.denoise_batch_size
        held_out = self.batches(evaluated, size, reach=objective.reach)
        task = Task(
            DENOISE,
            objective,
            self.batches(train, size, passes=2.0, reach=objective.reach),
            jax.random.fold_in(self.key, 12),
            groups=(objective.head.group,),
            share=options.denoise_share * others / (1.0 - options.denoise_share),
            errors=denoising_errors(objective, held_out, jax.random.key(0)),
            draw=objective.draw,
        )
        return task, f"{what}, displaced by {options.denoise:g} Å anew in every step"


_MEASURED = 512


def add_property(model: Model, head: PropertyHead, key: Key) -> Model:
    """Return the model with one more property head, freshly initialised; all else is as it was.

    Raises:
        ValueError: if the potential has a property of that name.
    """
    potential, params = model
    if head.name in {other.name for other in potential.properties}:
        raise ValueError(f"the model predicts {head.name!r} already; give the new property another name.")
    dtype = jax.tree.leaves(params)[0].dtype
    potential = potential.replace(properties=(*potential.properties, head))
    fresh = potential.init_property(key, head.name, dtype)
    # the same leaf order as a model that was initialised with this head
    leaves = sorted(tree.flatten_paths({**params, head.group: fresh}).items())
    return Model(potential, tree.unflatten_paths(dict(leaves)))


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
