"""Tasks that are trained beside a property: the force field that a model is to keep, and noise to take out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset, read_dataset
from mlipjax.data.properties import PropertyData
from mlipjax.finetuning.retain import Frozen, check_level, pseudo_label, split_replay
from mlipjax.finetuning.structures import element_structures
from mlipjax.potential import Potential
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import LabelledBatches
from mlipjax.train.multitask import Task
from mlipjax.train.multitask_batches import PropertyStream
from mlipjax.train.multitask_tasks import (
    denoising_errors,
    denoising_task,
    force_field_errors,
    force_field_task,
)
from mlipjax.typing import Key

DENOISE = "denoise"
_EVALUATED = 32


def force_field_companion(
    potential: Potential,
    frozen: Frozen,
    replay_data: Dataset | None,
    stream: PropertyStream,
    key: Key,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[Task, str]:
    """The task that keeps the force field: a fifth of its structures validates."""
    dataset, note = force_field_data(frozen, stream.data.elements, replay_data, settings, options)
    # the same division for all seeds: they compare on equal terms, and share compiled shapes
    train, valid = split_replay(dataset, 0)
    limits: dict[str, Any] = {"dtype": settings.dtype, "max_slots": settings.max_slots}
    passes = max(1, round((options.steps or 0) * options.force_field_share * settings.batch_size / len(train)))
    batches = LabelledBatches.create(potential, train, settings.batch_size, passes=passes, **limits)
    held_out = LabelledBatches.create(potential, valid, settings.batch_size, **limits)
    task = force_field_task(
        potential,
        batches,
        settings.make_loss(),
        jax.random.fold_in(key, 11),
        prefactors=options.force_field_prefactors(settings),
        share=options.force_field_share,
        # a sample is enough to follow a run; more held-out structures would take longer than the steps between
        evaluate=force_field_errors(potential, sample(held_out, _EVALUATED)),
    )
    return task, f"{len(train)} {note}, {len(valid)} more held out"


def sample(batches: LabelledBatches, n: int) -> LabelledBatches:
    """About ``n`` structures of a data set as a data set of its own, in the same shapes."""
    part = batches.part(n)
    if part is batches:
        return batches
    chosen = {index: place for place, index in enumerate(part.planned)}
    return dataclasses.replace(
        part,
        dataset=part.dataset.subset(part.planned),
        tables=part.tables.subset(part.planned),
        plans=tuple(
            dataclasses.replace(plan, indices=tuple(chosen[index] for index in plan.indices)) for plan in part.plans
        ),
    )


def force_field_data(
    frozen: Frozen,
    elements: Sequence[int],
    replay_data: Dataset | None,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[Dataset, str]:
    """Structures with true labels of the model's own level, or with labels of the frozen model; and what they are.

    Raises:
        ValueError: if labels are of another level of theory, or missing where they are asked for.
    """
    if replay_data is None and settings.replay is None:
        systems = element_structures(elements, settings.replay_size, settings.seed)
        return pseudo_label(frozen, systems, settings), "generated structures, labels of the frozen model"
    dataset = read_dataset(settings.replay or "", required=()) if replay_data is None else replay_data
    frozen.potential.check_elements(dataset.elements)
    if options.pseudo_labels or not any(dataset.count_labels().values()):
        return pseudo_label(frozen, dataset.systems, settings), "given structures, labels of the frozen model"
    check_level("replay", dataset, frozen, settings)
    return dataset, "given structures with their labels"


def denoising_companion(
    potential: Potential,
    stream: PropertyStream,
    valid: PropertyStream,
    given: PropertyData | None,
    key: Key,
    others: float,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[Task, str]:
    """The task of taking noise out of positions; needs no labels.

    Args:
        potential: with the head ``DENOISE``.
        stream, valid: the property's, whose structures are displaced.
        given: other structures instead; a tenth of them validates.
        key: of the whole fine-tune.
        others: sum of the shares of the other tasks.
        settings, options: noise, share, batch size.
    """
    size = options.denoise_batch_size or options.property_batch_size
    data, held_out, what = stream.data, valid.data, "the property's structures"
    if given is None and options.denoise_data is not None:
        given = PropertyData.from_systems(
            read_dataset(options.denoise_data, required=(), with_labels=False).systems, DENOISE
        )
    if given is not None:
        # like those of the force field, divided in the same way for all seeds
        order = np.random.default_rng(0).permutation(len(given))
        n_valid = max(1, len(given) // 10)
        if n_valid == len(given):
            raise ValueError("denoising needs two structures or more, one of them for validation.")
        held_out, data = (given.subset(np.sort(part)) for part in np.split(order, [n_valid]))
        what = f"{len(data)} structures of their own, {len(held_out)} more held out"
    streams = [
        PropertyStream.create(
            potential,
            part,
            size,
            passes=passes,
            dtype=settings.dtype,
            max_slots=settings.max_slots,
            noise=options.denoise,
        )
        for part, passes in ((data, 2.0), (held_out.subset(range(min(len(held_out), _EVALUATED))), 1.0))
    ]
    task = denoising_task(
        potential,
        potential.property_head(DENOISE),
        streams[0],
        jax.random.fold_in(key, 12),
        share=options.denoise_share * others / (1.0 - options.denoise_share),
        evaluate=denoising_errors(potential, streams[1], DENOISE, jax.random.key(0)),
    )
    return task, f"{what}, displaced by {options.denoise:g} Å anew in every step"
