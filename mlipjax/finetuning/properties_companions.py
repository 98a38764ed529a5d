"""Tasks that are trained beside a property: the force field that a model is to keep, and noise to take out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset, read_dataset
from mlipjax.finetuning.retain import Frozen, batches_for, check_level, known_data, split_replay
from mlipjax.potential import Potential
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import Denoising, ForceField, Task
from mlipjax.train.batches import property_batches
from mlipjax.train.errors import denoising_errors, force_field_errors
from mlipjax.typing import Key

DENOISE = "denoise"
_EVALUATED = 32


def force_field_companion(
    potential: Potential,
    frozen: Frozen,
    replay_data: Dataset | None,
    elements: Sequence[int],
    key: Key,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[Task, str]:
    """The task that keeps the force field: a fifth of its structures validates.

    Raises:
        ValueError: if labels are of another level of theory.
    """
    given = settings.replay if replay_data is None else replay_data
    dataset, note = known_data(frozen, given, elements, settings, False if options.pseudo_labels else None)
    check_level("replay", dataset, frozen, settings)
    # the same division for all seeds: they compare on equal terms, and share compiled shapes
    train, valid = split_replay(dataset, 0)
    passes = max(1, round((options.steps or 0) * options.force_field_share * settings.batch_size / len(train)))
    held_out = batches_for(potential, valid, settings, settings.batch_size)
    task = Task(
        "force_field",
        ForceField(potential, settings.make_loss()),
        batches_for(potential, train, settings, settings.batch_size, passes=passes),
        jax.random.fold_in(key, 11),
        groups=(f"readout_{potential.heads[0]}",),
        prefactors=options.force_field_prefactors(settings),
        share=options.force_field_share,
        # a sample is enough to follow a run; more held-out structures would take longer than the steps between
        errors=force_field_errors(potential, held_out.part(_EVALUATED)),
    )
    return task, f"{len(train)} {note}, {len(valid)} more held out"


def denoising_companion(
    potential: Potential,
    given: Dataset | tuple[Dataset, Dataset],
    key: Key,
    others: float,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> tuple[Task, str]:
    """The task of taking noise out of positions; needs no labels.

    Args:
        potential: with the head ``DENOISE``.
        given: training and validation structures of the property; or structures of their own, a tenth of which
            validates.
        key: of the whole fine-tune.
        others: sum of the shares of the other tasks.
        settings, options: noise, share, batch size.
    """
    what = "the property's structures"
    if isinstance(given, tuple) and options.denoise_data is not None:
        given = read_dataset(options.denoise_data, required=(), with_labels=False)
    if isinstance(given, Dataset):
        # like those of the force field, divided in the same way for all seeds
        order = np.random.default_rng(0).permutation(len(given))
        n_valid = max(1, len(given) // 10)
        if n_valid == len(given):
            raise ValueError("denoising needs two structures or more, one of them for validation.")
        held_out, own = (given.subset(np.sort(part)) for part in np.split(order, [n_valid]))
        given, what = (own, held_out), f"{len(own)} structures of their own, {len(held_out)} more held out"
    objective = Denoising(potential, potential.property_head(DENOISE), options.denoise)
    train, held_out = given
    size = options.denoise_batch_size or options.property_batch_size
    limits: dict[str, Any] = {"dtype": settings.dtype, "max_slots": settings.max_slots, "reach": objective.reach}
    evaluated = held_out.subset(range(min(len(held_out), _EVALUATED)))
    errors = denoising_errors(objective, property_batches(potential, evaluated, size, **limits), jax.random.key(0))
    task = Task(
        DENOISE,
        objective,
        property_batches(potential, train, size, passes=2.0, **limits),
        jax.random.fold_in(key, 12),
        groups=(objective.head.group,),
        share=options.denoise_share * others / (1.0 - options.denoise_share),
        errors=errors,
    )
    return task, f"{what}, displaced by {options.denoise:g} Å anew in every step"
