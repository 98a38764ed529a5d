"""Embedding of a structure in MACE before its first layer: the elements, and in some models total charge and spin.

This package's structures have no charge. Where a model asks for it every structure is neutral and a singlet, which is
also what mace-torch takes without other information: what is embedded then is one vector for all atoms, part of
the table of elements.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from mlipjax.models.importers._torch_model import TorchModel

_GIVEN = {"total_charge": 0.0, "total_spin": 1.0}
"""Features whose value is known; spin is the multiplicity."""
_MOST_FEATURES = 8


def has_embedding(model: TorchModel) -> bool:
    """Return whether a model embeds features of the whole structure."""
    return model.has("joint_embedding")


def element_table(model: TorchModel, shape: tuple[int, int]) -> np.ndarray:
    """Table (n_species, C) of the elements, with all that is embedded besides, in the precision of the file.

    Raises:
        ValueError: if a part is missing or unknown.
    """
    table = model.weight("node_embedding.linear.weight", shape)
    if not has_embedding(model):
        return table
    # the table is multiplied with 1 / sqrt(n_species)
    return (table + _embedded(model, shape[1]) * shape[0] ** 0.5).astype(table.dtype)


def embedded_energies(model: TorchModel, shape: tuple[int, int]) -> np.ndarray:
    """Energies (H, n_species) in eV that a readout of the embedding adds to every atom's.

    Raises:
        ValueError: if a part is missing or unknown.
    """
    if not model.has("embedding_readout"):
        return np.zeros(shape)
    n_heads, n_species = shape
    linear = model.array("embedding_readout.linear.weight")
    channels = linear.size // n_heads
    table = element_table(model, (n_species, channels)).astype(np.float64)
    kernel = model.weight("embedding_readout.linear.weight", (channels, n_heads)).astype(np.float64)
    return (table @ kernel).T * (n_species * channels) ** -0.5


def _embedded(model: TorchModel, channels: int) -> np.ndarray:
    """Embedding of a neutral singlet: (C,), float64."""
    specs = model.get("joint_embedding.specs")
    if not isinstance(specs, dict) or not 0 < len(specs) <= _MOST_FEATURES:
        raise model.unsupported("an embedding without features")
    parts = []
    for name, spec in specs.items():
        if name not in _GIVEN or spec["per"] != "graph" or spec["type"] != "categorical":
            raise model.unsupported(f"an embedding of {str(name)[:80]!r} that is no class of the structure")
        rows = model.weight(f"joint_embedding.embedders.{name}.weight", (spec["num_classes"], spec["emb_dim"]))
        place = int(_GIVEN[name] + spec.get("offset", 0))
        if not 0 <= place < len(rows):
            raise model.unsupported(f"an embedding of {name} without a class for {_GIVEN[name]:g}")
        parts.append(rows[place].astype(np.float64))
    inputs = np.concatenate(parts)
    x = model.weight("joint_embedding.project.0.weight", (channels, len(inputs))).astype(np.float64) @ inputs
    return x * expit(x)
