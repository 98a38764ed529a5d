"""Learning a property of structures from a pretrained potential, alone or together with its force field (S3)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping

import numpy as np

from mlipjax.data import Dataset, hash_input
from mlipjax.data.properties import property_name, targets
from mlipjax.finetuning.folder import hash_dataset, hash_model
from mlipjax.finetuning.properties_tasks import PropertyPreparation, prepare_property
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult, run
from mlipjax.potential import Potential
from mlipjax.settings import FinetuneSettings
from mlipjax.settings.properties import PropertySettings, check_settings
from mlipjax.typing import Params


def finetune_property(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None = None,
    *,
    settings: FinetuneSettings,
    options: PropertySettings | None = None,
    replay_data: Dataset | None = None,
    denoise_data: Dataset | None = None,
    tests: Mapping[str, Dataset] | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: FinetuneListener | None = None,
) -> FinetuneResult:
    """Give a potential a head for a property and train it.

    Args:
        potential: where to start.
        params: its parameters.
        train_data: structures and values (``data.properties``).
        valid_data: decides which parameters are kept; by default a random part of ``train_data``.
        settings: those shared with other fine-tunes; ``strategy`` is scratch, ft, lp or mft.
        options: those of the property.
        replay_data: for mft, labelled structures of the force field, instead of ``settings.replay``.
        denoise_data: structures for denoising, instead of ``options.denoise_data``.
        tests: more data sets on which errors are reported, by name.
        out: folder of the run (``run``); ``None`` keeps nothing on disk.
        listener: is told of plan, steps and epochs.

    Returns:
        The potential with the property's head (``potential.property_values``), its best parameters, and a report.

    Raises:
        ValueError: if settings, data or folder cannot be honoured.
        NonFiniteError: if training diverges.
        InUseError: if another process works in ``out``.
    """
    options = PropertySettings() if options is None else options
    check_settings(settings, options)
    if denoise_data is not None and not options.denoise:
        raise ValueError("denoise_data needs the size of the noise: give denoise in Å.")
    data = {"train": train_data, "valid": valid_data, "denoise": denoise_data}

    def ready() -> PropertyPreparation:
        return prepare_property(
            potential, params, train_data, valid_data, replay_data, settings, options, denoise_data, tests or {}
        )

    given = {**dataclasses.asdict(settings), **dataclasses.asdict(options), "property": property_name(train_data)}
    description = {"settings": json.loads(json.dumps(given)), "model_sha256": hash_model(potential, params)}
    return run(ready, description | _hashes(data, replay_data, settings, options), settings, out, listener)


def _hashes(
    data: Mapping[str, Dataset | None],
    replay_data: Dataset | None,
    settings: FinetuneSettings,
    options: PropertySettings,
) -> dict[str, str | None]:
    """Fingerprints of all structures, which must be equal for a folder to be the same run."""
    hashes = {f"{name}_sha256": None if part is None else _hash_properties(part) for name, part in data.items()}
    hashes["replay_sha256"] = None if replay_data is None else hash_dataset(replay_data)
    for name, file in (("replay", settings.replay), ("denoise", options.denoise_data)):
        if file is not None and (digest := hash_input(file)) is not None:
            hashes[f"{name}_sha256"] = digest
    return hashes


def _hash_properties(data: Dataset) -> str:
    digest = hashlib.sha256()
    for key in data.labels[0].properties:
        digest.update(key.encode() + np.ascontiguousarray(targets(data, key)).tobytes())
    for system in data.systems:
        digest.update(np.asarray(system.atomic_numbers).tobytes() + np.asarray(system.positions).tobytes())
        digest.update(np.asarray(system.cell).tobytes())
    return digest.hexdigest()
