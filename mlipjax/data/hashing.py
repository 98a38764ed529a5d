"""Names for structures: exact ones for stores of labels and for runs, tolerant ones to find duplicates."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from mlipjax.data.dataset import Dataset
from mlipjax.files import digest
from mlipjax.system import System


class Duplicate(NamedTuple):
    """The same structure in two data sets: ``(name of the data set, index)`` twice."""

    first: tuple[str, int]
    second: tuple[str, int]


def structure_hash(system: System) -> str:
    """SHA-256 (hex) of elements, positions, cell and periodicity, in the order of the atoms.

    Positions and cell count to 1e-8 Å. Atoms in another order give another hash: forces stored under it must
    fit atom by atom.
    """
    # + 0.0 turns -0.0 into 0.0
    rounded = (np.round(np.asarray(array, dtype="<f8"), 8) + 0.0 for array in (system.positions, system.cell))
    return digest(np.asarray(system.atomic_numbers, dtype="<i4"), *rounded, bytes(system.pbc))


def hash_dataset(dataset: Dataset) -> str:
    """Fingerprint of labelled structures."""
    digest = hashlib.sha256()
    for system, labels, info in zip(dataset.systems, dataset.labels, dataset.infos, strict=True):
        digest.update(structure_hash(system).encode())
        for label in jax.tree.leaves(labels):
            digest.update(np.asarray(label).tobytes())
        digest.update(repr(sorted(info.items(), key=str)).encode())
    return digest.hexdigest()


def canonical_hash(system: System, tolerance: float = 1e-4) -> str:
    """SHA-256 (hex) that also ignores the order of the atoms and the periodic image each was written in.

    Positions and cell are put on a grid of ``tolerance`` Å, so that files with different numbers of digits
    agree (but for the rare coordinate that lies on a grid boundary). Translated, rotated or otherwise
    equivalent structures count as different, and so does the same crystal in other lattice vectors.
    """
    from ase.geometry import complete_cell

    cell = np.asarray(system.cell, np.float64)
    basis = complete_cell(cell)
    lengths = np.linalg.norm(basis, axis=1)
    fractional = np.linalg.solve(basis.T, np.asarray(system.positions, np.float64).T).T
    steps = np.maximum(np.rint(lengths / tolerance).astype(np.int64), 1)
    grid = np.rint(fractional * steps).astype(np.int64)
    grid = np.where(system.pbc, grid % steps, grid)
    rows = np.column_stack([np.asarray(system.atomic_numbers, np.int64), grid])
    rows = rows[np.lexsort(rows.T[::-1])]
    cell_grid = np.rint(cell / tolerance).astype(np.int64)
    return digest(rows, cell_grid, bytes(system.pbc))


def find_duplicates(datasets: Mapping[str, Dataset]) -> list[Duplicate]:
    """Return structures that occur in more than one of the named data sets, for instance in train and test.

    Repetitions inside one data set are not reported.
    """
    systems = itertools.chain.from_iterable(dataset.systems for dataset in datasets.values())
    first = first_seen(systems)
    lengths = [len(dataset) for dataset in datasets.values()]
    owners, starts = np.repeat(np.arange(len(lengths)), lengths), np.cumsum([0, *lengths])
    names = list(datasets)

    def place(row: int) -> tuple[str, int]:
        return names[owners[row]], int(row - starts[owners[row]])

    return [Duplicate(place(first[row]), place(row)) for row in np.flatnonzero(owners[first] != owners).tolist()]


def first_seen(systems: Iterable[System]) -> np.ndarray:
    """(n,) number of the first structure that equals each (``canonical_hash``): its own, unless it repeats one."""
    # half of the digits tell structures apart as well and are half the memory
    digests = np.fromiter((canonical_hash(system)[:32] for system in systems), "S32")
    _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
    return first[inverse]
