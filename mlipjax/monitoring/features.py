"""Features of all atoms of a set of structures, from one forward pass of the network each."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import jax
import numpy as np

from mlipjax import tree
from mlipjax.graph import GraphBatch, batches_of
from mlipjax.potential import Model, Potential
from mlipjax.system import System
from mlipjax.typing import Features, Params

Layers = Literal["last", "all"]
"""Features that are charted: those the energy is read from, or those of every layer side by side."""


@dataclasses.dataclass(frozen=True)
class FeatureBatch:
    """Features of a padded batch.

    Attributes:
        indices: structures in it.
        graph: the batch without its neighbour table (zero slots).
        features: (N, F) on the host, zero for padding.
    """

    indices: tuple[int, ...]
    graph: GraphBatch
    features: np.ndarray


@dataclasses.dataclass(frozen=True)
class FrameFeatures:
    """Features of n structures, in batches.

    Attributes:
        batches: together every structure once.
        n_frames: number of structures.
    """

    batches: tuple[FeatureBatch, ...]
    n_frames: int

    def atoms(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features (M, F), atomic numbers (M,) and structure (M,) of all atoms, in the order of the structures."""
        parts: list[Any] = [None] * self.n_frames
        for batch in self.batches:
            for row, index in enumerate(batch.indices):
                own = np.asarray(batch.graph.atom_mask) & (np.asarray(batch.graph.graph_index) == row)
                parts[index] = batch.features[own], np.asarray(batch.graph.atomic_numbers)[own]
        frame = np.repeat(np.arange(self.n_frames), [len(numbers) for _, numbers in parts])
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), frame


def feature_columns(potential: Potential, layers: Layers) -> slice:
    """Columns of ``Prediction.features`` that are charted."""
    slices = potential.feature_slices
    return slices[-1] if layers == "last" else slice(0, slices[-1].stop)


def graph_features(potential: Potential, params: Params, graph: GraphBatch, layers: Layers) -> Features:
    """Charted features (N, F) of a batch: one forward pass, without forces.

    Args:
        potential: whose features are charted.
        params: its parameters.
        graph: structures.
        layers: that are charted.
    """
    return potential.node_energy(params, graph, graph.positions)[1][:, feature_columns(potential, layers)]


_compiled = jax.jit(graph_features, static_argnums=(0, 3))


def frame_features(
    model: Model,
    systems: Sequence[System],
    *,
    layers: Layers = "last",
    dtype: Any = "float32",
    batch_size: int = 16,
) -> FrameFeatures:
    """Compute the features of structures.

    Args:
        model: whose features.
        systems: at least one structure.
        layers: which features.
        dtype: ``"float32"`` or ``"float64"`` (needs JAX's 64-bit mode).
        batch_size: structures computed together, fewer where they are large.

    Raises:
        ValueError: for no structure, an element the potential does not know, or float64 without 64-bit mode.
    """
    if not systems:
        raise ValueError("no structure to compute features of.")
    potential = model.potential
    potential.check_elements(np.unique(np.concatenate([np.asarray(system.atomic_numbers) for system in systems])))
    params = tree.cast(model.params, dtype)
    batches = []
    for indices, graph in batches_of(systems, potential.cutoff, batch_size=batch_size, dtype=dtype):
        features = np.asarray(_compiled(potential, params, graph, layers))
        batches.append(FeatureBatch(indices, _without_table(graph), features))
    return FrameFeatures(tuple(batches), len(systems))


def _without_table(graph: GraphBatch) -> GraphBatch:
    """A batch without neighbours, so that thousands of frames fit into memory."""
    n = len(graph.atomic_numbers)
    none: Any = np.zeros((n, 0), np.int32)
    shifts: Any = np.zeros((n, 0, 3), np.int32)
    return dataclasses.replace(graph, neighbors=none, shifts=shifts, edge_mask=none.astype(bool), reverse=none)
