"""Charts of atomic features, one for each element, read as means over the frames that the atoms are of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.monitoring import COMPONENTS, MonitorState, q_residual
from mlipjax.monitoring.fit import fit_all
from mlipjax.monitoring.soap import element_means
from mlipjax.representation import atom_elements
from mlipjax.system import System

Systems = Sequence[System]

_q = jax.jit(q_residual)


def per_frame(values: np.ndarray, systems: Systems) -> list[np.ndarray]:
    """Values of atoms (M, ...), divided by structure."""
    return np.split(values, np.cumsum([system.n_atoms for system in systems])[:-1])


def mean_features(values: np.ndarray, systems: Systems) -> np.ndarray:
    """One vector for each structure: the mean feature of each element, side by side."""
    frames = zip(per_frame(values.astype(np.float64), systems), systems, strict=True)
    elements = np.unique(atom_elements(systems))
    return np.stack([
        np.concatenate([own[np.asarray(system.atomic_numbers) == z].mean(axis=0) for z in elements])
        for own, system in frames
    ])  # fmt: skip


def principal_map(sets: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[float]]:
    """First two principal components of vectors (n, F) from several sets, and the variance that each explains."""
    everything = np.concatenate(list(sets.values()))
    center = everything.mean(axis=0)
    _, singular, axes = np.linalg.svd(everything - center, full_matrices=False)
    maps = {name: (values - center) @ axes[:2].T for name, values in sets.items()}
    return maps, (singular**2 / np.sum(singular**2))[:2].tolist()


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart for each element, fitted to atoms that are known.

    Attributes:
        state: the charts.
        elements: atomic numbers, ascending.
    """

    state: MonitorState
    elements: tuple[int, ...]

    @classmethod
    def fit(cls, values: Any, systems: Systems, n_known: int | None = None) -> Chart:
        """Fit to the features (M, F) of the atoms of structures, of the first ``n_known`` structures alone if given."""
        numbers = atom_elements(systems)
        elements = tuple(int(z) for z in np.unique(numbers))
        n = sum(system.n_atoms for system in systems[:n_known])
        known = (np.arange(len(numbers)) < n).astype(values.dtype)
        return cls(fit_all(values, np.searchsorted(elements, numbers), known, len(elements), COMPONENTS), elements)

    def read(self, values: Any, systems: Systems) -> dict[int, np.ndarray]:
        """Mean Q of the atoms of each element in each structure: (n,) by atomic number."""
        rows = np.searchsorted(self.elements, atom_elements(systems))
        q = np.asarray(_q(self.state, values, rows), np.float64)
        means = element_means(per_frame(q, systems), systems)
        return {z: means[z] for z in self.elements}
