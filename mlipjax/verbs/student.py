"""New potentials for the elements of labels: by the name of a size, a file of settings, or as a model is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset
from mlipjax.graph import neighbor_table
from mlipjax.models.build import potential_from_config, potential_to_config
from mlipjax.potential import Model
from mlipjax.reading import read_json
from mlipjax.verbs.inputs import open_native

SIZES: dict[str, dict[str, Any]] = {
    "small": {"hidden_irreps": "32x0e + 16x1o + 8x2e", "n_layers": 3, "cutoff": 4.5},
    "medium": {"hidden_irreps": "64x0e + 32x1o + 16x2e", "n_layers": 3, "cutoff": 5.0},
}
"""Settings of NequIP (``models.NequIPConfig``) by name. "small" is the size of the embedded model."""
_SAMPLE = 64
"""Structures of which neighbours and forces are averaged."""


def make_student(student: str | os.PathLike[str], train: Dataset, e0s: Mapping[int, float], seed: int) -> Model:
    """Build a potential with fresh parameters, or open one.

    Messages are divided by the root of the number of neighbours in the data and energies scaled by the root of the mean
    square of forces, so that a fresh network gives numbers of the right size (Batzner et al., Nat. Commun. 13, 2453
    (2022)).

    Args:
        student: a key of ``SIZES``; a JSON file of settings, of NequIP or, with ``"architecture": "mace"``, of MACE; or
            a model.
        train: labelled structures.
        e0s: eV, by atomic number, from which energies are counted.
        seed: of parameters.

    Raises:
        ValueError, FileNotFoundError: if it cannot be read, or does not know an element.
    """
    given = SIZES.get(os.fspath(student))
    if given is None and Path(student).suffix != ".json":
        model = open_native(student).first
        train.check_elements(model.potential.check_elements)
        return model
    settings = read_json(Path(student)) if given is None else dict(given)
    if not isinstance(settings, dict):
        raise ValueError(f"{student}: expected settings by name, such as {json.dumps(SIZES['small'])}.")
    architecture = settings.pop("architecture", "nequip")
    settings = {"cutoff": 5.0, "scale": _force_scale(train), "species": list(train.elements), **settings}
    settings.setdefault("avg_n_neighbors", _neighbors(train, settings["cutoff"]))
    description = {"format": 1, "architecture": architecture, "config": settings}
    heads = settings.get("heads", ["energy"])
    try:
        potential = potential_from_config(
            {**description, "e0s": {head: [float(e0s.get(z, 0.0)) for z in train.elements] for head in heads}}
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"student {student}: {error}") from None
    return Model(potential, jax.device_get(potential.init(jax.random.key(seed))))


def describe_student(student: str | os.PathLike[str]) -> Any:
    """What decides a student, in JSON types: its settings, or its architecture and a fingerprint of its parameters."""
    from mlipjax.finetuning.folder import hash_model

    if os.fspath(student) in SIZES:
        return os.fspath(student)
    if Path(student).suffix == ".json":
        return read_json(Path(student))
    model = open_native(student).first
    return {"model_sha256": hash_model(model), "architecture": potential_to_config(model.potential)["architecture"]}


def _force_scale(train: Dataset) -> float:
    forces = np.concatenate([np.asarray(labels.forces) for labels in train.labels[:_SAMPLE]])
    return float(np.sqrt(np.mean(forces**2))) or 1.0


def _neighbors(train: Dataset, cutoff: float) -> float:
    tables = [neighbor_table(system, cutoff) for system in train.systems[:_SAMPLE]]
    return max(sum(table.n_edges for table in tables) / sum(table.n_atoms for table in tables), 1.0)
