"""The embedded model's training set: frames packed into the arrays of one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax.data import Dataset, Example
from mlipjax.system import Labels, System


def pack(frames: Sequence[Any]) -> dict[str, np.ndarray]:
    """Concatenate frames: atoms along the first axis, one row per frame for the rest; a missing stress is NaN."""
    results = [atoms.calc.results for atoms in frames]
    missing = np.full(6, np.nan)
    names = {key: sorted({a.info[key] for a in frames}) for key in ("family", "group", "config_type")}
    ids = {key: [names[key].index(a.info[key]) for a in frames] for key in names}
    return {
        "positions": np.concatenate([a.positions for a in frames]).astype(np.float32),
        "numbers": np.concatenate([a.numbers for a in frames]).astype(np.uint8),
        "forces": np.concatenate([r["forces"] for r in results]).astype(np.float32),
        "n_atoms": np.array([len(a) for a in frames], np.uint16),
        "cell": np.array([a.cell.array for a in frames], np.float32),
        "pbc": np.array([a.pbc for a in frames]),
        "energy": np.array([r["energy"] for r in results], np.float64),
        "stress": np.array([r.get("stress", missing) for r in results], np.float32),
        **{f"{key}_names": np.array(names[key]) for key in names},
        **{f"{key}_id": np.array(ids[key], np.uint32) for key in ids},
    }


def unpack(arrays: dict[str, Any]) -> Iterator[Atoms]:
    """Undo :func:`pack`: structures with labels in ``calc`` and ``family``, ``group``, ``config_type`` in ``info``."""
    ends = np.cumsum(arrays["n_atoms"].astype(int))
    for k, end in enumerate(ends):
        rows = slice(end - int(arrays["n_atoms"][k]), end)
        atoms = Atoms(
            numbers=arrays["numbers"][rows],
            positions=arrays["positions"][rows].astype(np.float64),
            cell=arrays["cell"][k].astype(np.float64),
            pbc=arrays["pbc"][k],
        )
        labels = {"energy": float(arrays["energy"][k]), "forces": arrays["forces"][rows].astype(np.float64)}
        if np.isfinite(arrays["stress"][k]).all():
            labels["stress"] = arrays["stress"][k].astype(np.float64)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        atoms.info = {
            key: str(arrays[f"{key}_names"][arrays[f"{key}_id"][k]]) for key in ("family", "group", "config_type")
        }
        yield atoms


def read(path: Path) -> Dataset:
    """Read the packed structures as a data set."""
    with np.load(path, allow_pickle=False) as file:
        frames = list(unpack(dict(file)))
    return Dataset.from_examples(Example(System.from_ase(a), Labels.from_ase(a), dict(a.info)) for a in frames)
