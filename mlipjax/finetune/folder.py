"""The folder of a fine-tune: which run it belongs to, and whether that run is done."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset, hash_input, structure_hash
from mlipjax.files import write_atomic
from mlipjax.finetune.settings import FinetuneSettings
from mlipjax.potential import Potential
from mlipjax.typing import Params

RUN, REPORT = "run.json", "report.json"


def describe_run(
    potential: Potential,
    params: Params,
    train_data: Dataset,
    valid_data: Dataset | None,
    settings: FinetuneSettings,
) -> dict[str, Any]:
    """What must be equal for a folder to be the same run; JSON types."""
    settings_given: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(settings)))
    for name in ("e0s", "replay", "anchor"):
        path = getattr(settings, name)
        if path is not None and (digest := hash_input(path)) is not None:
            settings_given[f"{name}_sha256"] = digest
    return {
        "settings": settings_given,
        "model_sha256": hash_model(potential, params),
        "train_sha256": hash_dataset(train_data),
        "valid_sha256": None if valid_data is None else hash_dataset(valid_data),
    }


def hash_model(potential: Potential, params: Params) -> str:
    """Fingerprint of a potential and its parameters."""
    digest = hashlib.sha256(repr(potential.config).encode())
    digest.update(np.asarray(potential.e0s).tobytes())
    for path, leaf in tree.flatten_paths(params).items():
        digest.update(path.encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


def hash_dataset(dataset: Dataset) -> str:
    """Fingerprint of labelled structures."""
    digest = hashlib.sha256()
    for system, labels, info in dataset:
        digest.update(structure_hash(system).encode())
        for label in jax.tree.leaves(labels):
            digest.update(np.asarray(label).tobytes())
        digest.update(repr(sorted(info.items(), key=str)).encode())
    return digest.hexdigest()


def open_run(folder: Path, description: dict[str, Any]) -> dict[str, Any] | None:
    """Claim a folder for a run; return the report if the run is done already.

    Raises:
        ValueError: if the folder holds another run, or a model that this run would overwrite.
    """
    if (folder / RUN).is_file():
        found = json.loads((folder / RUN).read_text(encoding="utf-8"))
        if _given(found) != _given(description):
            raise ValueError(f"{folder} holds another run: {_difference(found, description)}. Choose another folder.")
        if (folder / REPORT).is_file():
            return json.loads((folder / REPORT).read_text(encoding="utf-8"))
        return None
    # a kill while the next line wrote leaves a temporary file behind
    if folder.is_dir() and any(path.suffix != ".tmp" for path in folder.iterdir()):
        raise ValueError(f"{folder} is not empty and holds no fine-tune; choose another folder.")
    write_atomic(folder / RUN, json.dumps(description, indent=1))
    return None


_LATER: dict[str, Any] = {"snapshots": 0}
"""Settings that folders of earlier versions do not name, and what they did."""


def _given(description: dict[str, Any]) -> dict[str, Any]:
    """What was chosen: an option that is not given may be one that did not exist when the folder was made."""
    given = {name: value for name, value in description.get("settings", {}).items() if value is not None}
    settings = {**_LATER, **given}
    return {**{name: value for name, value in description.items() if value is not None}, "settings": settings}


def _difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """The first things that differ, in words."""
    differing = [name for name in expected if name != "settings" and found.get(name) != expected[name]]
    parts = [f"another {name.removesuffix('_sha256')} set" for name in differing]
    old, new = {**_LATER, **found.get("settings", {})}, expected["settings"]
    parts += [f"{name} was {old.get(name)!r}, now {new.get(name)!r}" for name in new if old.get(name) != new.get(name)]
    return "; ".join(parts)
