"""Features of atoms in any layer of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlipjax.monitoring import frame_features
from mlipjax.potential import Model, Potential
from mlipjax.system import System


def layer_index(potential: Potential, layer: int) -> int:
    """Number of a layer from the bottom, 0, 1, ..., for one that may be counted from the top (-1 is the last).

    Raises:
        ValueError: if the model has no such layer.
    """
    n = len(potential.feature_slices)
    if not -n <= layer < n:
        raise ValueError(f"there is no layer {layer}: this model has {n}, numbered 0 to {n - 1} or {-n} to -1.")
    return layer % n


def node_features(
    model: Model,
    systems: Sequence[System],
    *,
    layer: int = -1,
    dtype: Any = "float32",
    batch_size: int = 16,
) -> np.ndarray:
    """Invariant features (M, F) of all atoms after one layer, in the order of the structures.

    Layers have vector and tensor channels too, which turn with the structure; only the scalar ones, which the energy is
    made of in the end, can be compared between atoms.

    Args:
        model: whose features.
        systems: at least one structure.
        layer: from the bottom (0, 1, ...) or the top (-1, -2, ...).
        dtype: ``"float32"`` or ``"float64"`` (needs JAX's 64-bit mode).
        batch_size: structures computed together.

    Raises:
        ValueError: for a layer the model does not have, no structure, or an element the potential does not know.
    """
    index, slices = layer_index(model.potential, layer), model.potential.feature_slices
    last = index == len(slices) - 1
    frames = frame_features(model, systems, layers="last" if last else "all", dtype=dtype, batch_size=batch_size)
    features = frames.atoms()[0]
    return features if last else features[:, slices[index]]


def atom_elements(systems: Sequence[System]) -> np.ndarray:
    """Atomic numbers (M,) of all atoms, in the order of the structures."""
    return np.concatenate([np.asarray(system.atomic_numbers) for system in systems])


def atom_structures(systems: Sequence[System]) -> np.ndarray:
    """Structure (M,) of all atoms."""
    return np.repeat(np.arange(len(systems)), [system.n_atoms for system in systems])


def choose_structures(systems: Sequence[System], max_atoms: int, seed: int = 0) -> np.ndarray:
    """Draw structures, ascending, until they hold ``max_atoms`` atoms: all of them if they hold no more.

    Distances between all pairs of atoms, silhouettes and t-SNE take time with the square of their number.

    Args:
        systems: to draw from.
        max_atoms: that the drawn ones hold at least.
        seed: of the draw.
    """
    sizes = np.array([system.n_atoms for system in systems])
    order = np.random.default_rng(seed).permutation(len(systems))
    within = order[np.cumsum(sizes[order]) <= max_atoms]
    return np.sort(within if len(within) else order[:1])
