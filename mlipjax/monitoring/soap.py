"""The chart of arXiv 2603.10159 as its reference: SOAP vectors of all elements pooled, five principal components, Q.

SOAP (Bartók, Kondor & Csányi, Phys. Rev. B 87, 184115 (2013)) describes the surroundings of an atom by geometry
alone: no model enters. It comes from dscribe, an optional dependency: ``pip install "mlipjax[soap]"``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

from mlipjax.system import System

SETTINGS = {"r_cut": 5.0, "n_max": 8, "l_max": 6, "sigma": 0.375}
"""Of the paper: cutoff and width in Å."""

COMPONENTS = 5
BAND = 2.0
"""Standard deviations around the mean of a trajectory that the paper draws."""

_MAX_ATOMS = 20_000


@dataclasses.dataclass(frozen=True)
class SoapChart:
    """Principal components of the SOAP vectors of reference frames, all elements in one chart.

    Attributes:
        species: atomic numbers, ascending: an atom of another element has no SOAP vector here.
        mean: (F,) mean vector.
        components: (P, F) orthonormal.
        explained: part of the variance along the components.
        n_atoms: atoms the chart was fitted to.
    """

    species: tuple[int, ...]
    mean: np.ndarray
    components: np.ndarray
    explained: float
    n_atoms: int

    def q(self, systems: Sequence[System]) -> list[np.ndarray]:
        """Q of every atom: squared norm of what its SOAP vector lacks in the plane of the components, (n,) each."""
        return [self.q_of(vectors) for vectors in soap_vectors(systems, self.species)]

    def q_of(self, vectors: np.ndarray) -> np.ndarray:
        """The same for SOAP vectors (n, F) that are known already."""
        centred = vectors - self.mean
        outside = centred - (centred @ self.components.T) @ self.components
        return np.sum(outside.astype(np.float64) ** 2, axis=1)


def fit_soap(systems: Sequence[System]) -> SoapChart:
    """Fit the chart to reference frames.

    Args:
        systems: reference frames; of more than 20 000 atoms as many are drawn.

    Raises:
        ValueError: without frames, or without dscribe.
    """
    if not systems:
        raise ValueError("no frame to fit a SOAP chart to.")
    species = elements_of(systems)
    return fit_vectors(soap_vectors(systems, species), species)


def elements_of(systems: Sequence[System]) -> tuple[int, ...]:
    """Atomic numbers present, ascending."""
    return tuple(int(z) for z in np.unique(np.concatenate([np.asarray(s.atomic_numbers) for s in systems])))


def fit_vectors(frames: Sequence[np.ndarray], species: tuple[int, ...]) -> SoapChart:
    """``fit_soap`` for SOAP vectors of frames, (n, F) each, that are known already."""
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    kept = min(1.0, _MAX_ATOMS / sum(map(len, frames)))
    rows = []
    for vectors in frames:
        n = len(vectors)
        rows.append(vectors[np.sort(rng.choice(n, max(round(kept * n), 1), replace=False))])
    everything = np.concatenate(rows)
    pca: Any = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(everything)
    explained = float(np.sum(pca.explained_variance_ratio_))
    return SoapChart(species, pca.mean_, pca.components_, explained, len(everything))


def soap_vectors(systems: Sequence[System], species: Sequence[int]) -> list[np.ndarray]:
    """SOAP vectors of all atoms of each structure, (n, F) float32 each.

    Raises:
        ValueError: for an element that is not among ``species``, or without dscribe.
    """
    try:
        descriptors: Any = import_module("dscribe.descriptors")
    except ImportError as error:
        raise ValueError('SOAP needs dscribe, which is not installed: pip install "mlipjax[soap]".') from error
    result, cache = [], {}
    for system in systems:
        if unknown := sorted({int(z) for z in system.atomic_numbers} - set(species)):
            raise ValueError(f"the reference frames hold the elements {sorted(species)}, found {unknown} too.")
        periodic = bool(any(system.pbc))
        if periodic not in cache:
            cache[periodic] = descriptors.SOAP(species=sorted(species), periodic=periodic, dtype="float32", **SETTINGS)
        result.append(np.asarray(cache[periodic].create(system.to_ase()), np.float32))
    return result


def element_means(values: Sequence[np.ndarray], systems: Sequence[System]) -> dict[int, np.ndarray]:
    """Mean of a value per atom over the atoms of each element: (n frames,) by atomic number, NaN without such atoms."""
    elements = np.unique(np.concatenate([np.asarray(system.atomic_numbers) for system in systems]))
    result = {int(z): np.full(len(systems), np.nan) for z in elements}
    for frame, (own, system) in enumerate(zip(values, systems, strict=True)):
        numbers = np.asarray(system.atomic_numbers)
        for z in np.unique(numbers):
            result[int(z)][frame] = np.mean(own[numbers == z])
    return result


def band(values: np.ndarray) -> tuple[float, float]:
    """Mean minus and plus two standard deviations of a series: the band the paper draws around a trajectory."""
    mean, width = float(np.mean(values)), BAND * float(np.std(values))
    return mean - width, mean + width
