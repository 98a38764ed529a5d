"""Learning a property of structures from a pretrained potential, alone or together with its force field (S3)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os

import numpy as np

from mlipjax.data import Dataset, hash_input
from mlipjax.data.hashing import hash_dataset
from mlipjax.data.properties import property_name, targets
from mlipjax.finetuning.folder import hash_model
from mlipjax.finetuning.properties_prepare import PropertyInput, PropertyPreparation, prepare_property
from mlipjax.finetuning.run import FinetuneListener, FinetuneResult, run
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings
from mlipjax.settings.properties import PropertySettings, check_settings


def finetune_property(
    model: Model,
    data: PropertyInput,
    *,
    settings: FinetuneSettings,
    options: PropertySettings | None = None,
    out: str | os.PathLike[str] | None = None,
    listener: FinetuneListener | None = None,
) -> FinetuneResult:
    """Give a model a head for a property and train it.

    Args:
        model: where to start.
        data: structures and values, and whatever else is trained or reported on.
        settings: those shared with other fine-tunes; ``strategy`` is scratch, ft, lp or mft.
        options: those of the property.
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
    if data.denoise is not None and not options.denoise:
        raise ValueError("structures for denoising need the size of the noise: give denoise in Å.")
    given = {**dataclasses.asdict(settings), **dataclasses.asdict(options), "property": property_name(data.train)}
    description = {
        "settings": json.loads(json.dumps(given)),
        "model_sha256": hash_model(model),
        **_hashes(data, settings, options),
    }

    def ready() -> PropertyPreparation:
        return prepare_property(model, data, settings, options)

    return run(ready, description, settings, out, listener)


def _hashes(data: PropertyInput, settings: FinetuneSettings, options: PropertySettings) -> dict[str, str | None]:
    """Fingerprints of all structures, which must be equal for a folder to be the same run."""
    sets = {"train": data.train, "valid": data.valid, "denoise": data.denoise}
    hashes = {f"{name}_sha256": None if part is None else _hash_properties(part) for name, part in sets.items()}
    hashes["replay_sha256"] = None if data.replay is None else hash_dataset(data.replay)
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
