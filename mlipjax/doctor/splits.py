"""Checks across data sets: the same structure, nearly the same structure, or the same trajectory in both."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from ase.geometry import cell_to_cellpar

from mlipjax.data import GROUP_KEYS, Dataset, find_duplicates
from mlipjax.data.hashing import first_seen
from mlipjax.doctor.findings import Finding
from mlipjax.elements import listed
from mlipjax.lattice import minimum_image
from mlipjax.system import System

NEAR = 0.05
"""Root-mean-square displacement in Å below which two structures count as nearly the same: thermal motion of light
atoms exceeds it within some 10 fs."""

_SAME = 1e-3
# Pairs compared at most: beyond, structures are taken at equal distances.
_PAIRS = 20_000
# Distances between this many atoms tell structures apart.
_ATOMS = 200
# Validation on less says little about which epoch is best: structures, and numbers of their labels.
_FEW_STRUCTURES, _FEW_NUMBERS = 5, 100
_KIND = "config_type"


def check_splits(datasets: Mapping[str, Dataset]) -> list[Finding]:
    """Run all checks across data sets, and look for repetitions inside each."""
    duplicates = _check_duplicates(datasets)
    known = {frozenset(finding.frames) for finding in duplicates}
    near = [finding for finding in _check_near_duplicates(datasets) if frozenset(finding.frames) not in known]
    return [*duplicates, *near, *_check_leakage(datasets)]


def _check_duplicates(datasets: Mapping[str, Dataset]) -> list[Finding]:
    """The same structure in two sets is fatal; twice in one set it merely counts twice."""
    findings = []
    if across := find_duplicates(datasets):
        frames = tuple(dict.fromkeys(frame for pair in across for frame in pair))
        message = f"{len(across)} structures are in two data sets"
        remedy = "Remove them from one: an error measured on training data says nothing."
        findings.append(Finding("fatal", "duplicates", message, remedy, frames))
    for name, dataset in datasets.items():
        first = first_seen(dataset.systems)
        repeated = np.flatnonzero(first != np.arange(len(first))).tolist()
        if repeated:
            message = f"{len(repeated)} structures repeat earlier ones of the same set"
            remedy = "Remove them unless they are meant to count more."
            findings.append(Finding("warning", "duplicates", message, remedy, tuple((name, i) for i in repeated)))
    return findings


def _check_near_duplicates(datasets: Mapping[str, Dataset]) -> list[Finding]:
    """Structures of two sets that differ by less than ``NEAR`` test nothing: neighbours in time, rotated copies."""
    near: dict[tuple[str, int], None] = {}
    closest, n_pairs = np.inf, 0
    for (first, a), (second, b) in itertools.combinations(datasets.items(), 2):
        others, share = _by_composition(b), max(1, int(np.sqrt(_PAIRS)))
        for key, indices in _by_composition(a).items():
            prints = {j: fingerprint(b.systems[j]) for j in _thinned(others.get(key, []), share)}
            for i in _thinned(indices, share) if prints else ():
                own = fingerprint(a.systems[i])
                for j, other in prints.items():
                    distance = displacement(a.systems[i], b.systems[j])
                    if distance <= _SAME:
                        continue  # a duplicate, reported as such
                    distance = min(distance, distance_change(own, other))
                    if distance < NEAR:
                        closest, n_pairs = min(closest, distance), n_pairs + 1
                        near |= dict.fromkeys([(first, i), (second, j)])
    if not near:
        return []
    message = (
        f"{n_pairs} pairs of structures in two data sets differ by less than {NEAR} Å (rms), down to {closest:.3f}"
    )
    remedy = "Split by trajectory, not by frame: neighbours in time are no test."
    return [Finding("warning", "near-duplicates", message, remedy, tuple(near))]


def _check_leakage(datasets: Mapping[str, Dataset]) -> list[Finding]:
    """One trajectory in two data sets."""
    for key in GROUP_KEYS:
        carried = {
            name: {str(info[key]) for info in dataset.infos}
            for name, dataset in datasets.items()
            if len(dataset) and all(key in info for info in dataset.infos)
        }
        for (first, a), (second, b) in itertools.combinations(carried.items(), 2):
            shared = sorted(a & b)
            if shared:
                frames = tuple(
                    (name, index)
                    for name in (first, second)
                    for index, info in enumerate(datasets[name].infos)
                    if str(info[key]) in shared
                )
                message = f"{key!r} {', '.join(shared[:5])} is in both {first} and {second}"
                remedy = f"Split by {key!r}, or rename it if it names no trajectory."
                return [Finding("warning", "leakage", message, remedy, frames)]
    return []


def check_validation(train: Dataset, valid: Dataset | None) -> list[Finding]:
    """Return whether validation data are enough, and like the training data, to decide which epoch is kept."""
    remedy = (
        "Give validation structures of every kind, or hold out a larger part of the training data (valid_fraction=0.2)."
    )
    if valid is None:
        message = "there are no validation structures: the last epoch is kept, and nothing says how good it is"
        return [Finding("warning", "validation", message, remedy)]
    found = []
    numbers = sum(label.forces.size for label in valid.labels if label.forces_weight > 0.0)
    if len(valid) < _FEW_STRUCTURES or 0 < numbers < _FEW_NUMBERS:
        found.append(f"{len(valid)} structures with {numbers} components of forces decide which epoch is kept")
    if missing := set(train.elements) - set(valid.elements):
        found.append(f"the validation structures lack {listed(sorted(missing))}")
    kinds = [{str(info.get(_KIND)) for info in part.infos} for part in (train, valid)]
    if lacking := sorted(kinds[0] - kinds[1]):
        found.append(f"they hold no structures of {_KIND} {', '.join(lacking[:5])}")
    return [Finding("warning", "validation", "; ".join(found), remedy)] if found else []


def displacement(a: System, b: System) -> float:
    """Root-mean-square displacement in Å between two structures of equal atoms, up to a translation.

    Infinite if atoms, their order, periodicity or (by more than a percent) the cell differ.
    """
    if a.pbc != b.pbc or not np.array_equal(a.atomic_numbers, b.atomic_numbers):
        return np.inf
    cell, other = np.asarray(a.cell, np.float64), np.asarray(b.cell, np.float64)
    if not np.allclose(cell, other, rtol=0.01, atol=0.01):
        return np.inf
    delta = np.asarray(b.positions, np.float64) - np.asarray(a.positions, np.float64)
    # relative to one atom first, so that a common translation does not wrap atoms apart
    delta = minimum_image(delta - delta[0], 0.5 * (cell + other), a.pbc)
    return float(np.sqrt(np.mean(np.sum((delta - delta.mean(axis=0)) ** 2, axis=1))))


class Fingerprint(NamedTuple):
    """Invariants of rotations and translations.

    Attributes:
        shape: lengths (Å) and angles (degrees) of the cell, zeros without one, and the periodicity.
        distances: (n (n - 1) / 2,) Å between atoms (nearest images), float32.
    """

    shape: np.ndarray
    distances: np.ndarray


def fingerprint(system: System) -> Fingerprint:
    """Distances between the atoms, in their order; of large structures between some of them."""
    positions, cell = np.asarray(system.positions, np.float64), np.asarray(system.cell, np.float64)
    chosen = np.asarray(_thinned(list(range(len(positions))), _ATOMS))
    first, second = chosen[np.array(np.triu_indices(len(chosen), 1))]
    lengths = np.linalg.norm(minimum_image(positions[second] - positions[first], cell, system.pbc), axis=1)
    return Fingerprint(np.concatenate([cell_to_cellpar(cell), system.pbc]), lengths.astype(np.float32))


def distance_change(a: Fingerprint, b: Fingerprint) -> float:
    """About the rms displacement in Å between two structures of equal atoms, up to rotation, reflection, translation.

    If atoms move independently by ``s`` in each direction, distances change by ``sqrt(2) s`` and atoms by
    ``sqrt(3) s`` (rms). Infinite if the cells differ by more than a percent.
    """
    alike = len(a.distances) == len(b.distances) and np.allclose(a.shape, b.shape, rtol=0.01, atol=0.01)
    if not alike or not len(a.distances):
        return np.inf
    return float(np.sqrt(1.5 * np.mean((a.distances - b.distances) ** 2)))


def _by_composition(dataset: Dataset) -> dict[bytes, list[int]]:
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, system in enumerate(dataset.systems):
        groups[np.asarray(system.atomic_numbers, np.int32).tobytes()].append(index)
    return groups


def _thinned(indices: list[int], n: int) -> list[int]:
    if len(indices) <= n:
        return indices
    return [indices[i] for i in np.linspace(0, len(indices) - 1, n).round().astype(int)]
