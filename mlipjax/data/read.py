"""Data sets from extended xyz, ASE databases and whatever else ASE reads.

A label that is absent gets weight 0. A label that seems to be there under another name is an error, because a
data set silently read without its forces trains a model on nothing.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.atoms import iread_atoms
from mlipjax.data.dataset import Dataset, Example
from mlipjax.data.store import open_store
from mlipjax.system import Labels, System

if TYPE_CHECKING:
    from ase import Atoms


@dataclasses.dataclass(frozen=True)
class LabelKeys:
    """Names under which a file stores its labels; ``None`` leaves that label out on purpose."""

    energy: str | None = "energy"
    forces: str | None = "forces"
    stress: str | None = "stress"


_DEFAULT_KEYS = LabelKeys()
_WORDS = {"energy": ("energy",), "forces": ("force",), "stress": ("stress", "virial")}


def read_dataset(
    path: str | os.PathLike[str],
    keys: LabelKeys = _DEFAULT_KEYS,
    *,
    required: Sequence[str] = ("energy", "forces"),
) -> Dataset:
    """Read all structures of a file with their labels.

    Args:
        path: extended xyz (also ``.gz``, ``.xz``), ASE database (``.db``) or any other format ASE reads; or a folder
            made by ``write_store``, from which a structure is read when it is asked for.
        keys: names of the labels. Energies are totals in eV, forces eV/Å, stress eV/Å^3 with tension positive
            (6 Voigt components xx, yy, zz, yz, xz, xy or a full matrix). ``energy_weight``, ``forces_weight``
            and ``stress_weight`` in a frame's information scale that frame's label.
        required: labels that at least one structure must carry.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file cannot be parsed or is empty; if a required label is nowhere; if a label is
            missing under its name while a similar name exists; if a label has the wrong shape or is not
            finite; if a structure has no atoms, an element ``X``, or is periodic along a zero vector; if the folder
            is not what ``write_store`` made.
    """
    path = Path(path)
    unknown = set(required) - set(_WORDS)
    if unknown:
        raise ValueError(f"required labels are among {sorted(_WORDS)}; got {sorted(unknown)}.")
    if path.is_dir():
        if keys != _DEFAULT_KEYS:
            raise ValueError(f"{path}: labels were named when this folder was made; it takes no LabelKeys.")
        dataset = open_store(path)
    else:
        dataset = Dataset.from_examples(read_examples(path, keys))
    if not len(dataset):
        raise ValueError(f"{path}: no structure in this file.")
    counts = dataset.count_labels()
    for name in required:
        if not counts[name] and getattr(keys, name) is not None:
            raise ValueError(
                f"{path}: none of {len(dataset)} structures has {name} under {getattr(keys, name)!r}. "
                f"Give the right name in LabelKeys, or {name}=None to do without."
            )
    return dataset


def read_examples(path: str | os.PathLike[str], keys: LabelKeys = _DEFAULT_KEYS) -> Iterator[Example]:
    """Read a file structure by structure; arguments and errors as ``read_dataset``."""
    for index, atoms in enumerate(iread_atoms(path)):
        where = f"{path}, structure {index}"
        info = {name: _plain(value) for name, value in atoms.info.items()}
        yield Example(System.from_ase(atoms), _labels(atoms, keys, where), info)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _labels(atoms: Atoms, keys: LabelKeys, where: str) -> Labels:
    found = {name: _find(atoms, name, getattr(keys, name), where) for name in _WORDS}
    labels = Labels.create(len(atoms), found["energy"], found["forces"], found["stress"])
    weights = {}
    for name in _WORDS:
        weight = float(atoms.info.get(f"{name}_weight", 1.0))
        if not (np.isfinite(weight) and weight >= 0.0):
            raise ValueError(f"{where}: {name}_weight is {weight}; weights are finite and not negative.")
        weights[f"{name}_weight"] = getattr(labels, f"{name}_weight") * weight
    return labels.replace(**weights)  # type: ignore[attr-defined]


def _find(atoms: Atoms, name: str, key: str | None, where: str) -> Any:
    """Return one label of one structure in canonical shape, or ``None`` if it is absent."""
    if key is None:
        return None
    stores = _stores(atoms)
    for store in stores:
        if key in store:
            return _canonical(store[key], name, key, len(atoms), where)
    for store in stores:
        for other, value in store.items():
            if _resembles(other, value, name, len(atoms)):
                raise ValueError(
                    f"{where}: no {name} under {key!r}, but {other!r} looks like it. Pass LabelKeys({name}="
                    f"{other!r}) if it holds {name} in ASE's units and sign, {name}=None to leave {name} out."
                )
    return None


def _stores(atoms: Atoms) -> list[Mapping[str, Any]]:
    results = atoms.calc.results if atoms.calc is not None else {}
    return [results, atoms.info, atoms.arrays]


def _resembles(other: str, value: Any, name: str, n_atoms: int) -> bool:
    if not any(word in other.lower() for word in _WORDS[name]) or other.endswith("_weight"):
        return False
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.number):
        return False
    fits = {"energy": value.size == 1, "forces": value.shape == (n_atoms, 3), "stress": value.size in (6, 9)}
    return fits[name]


def _canonical(value: Any, name: str, key: str, n_atoms: int, where: str) -> np.ndarray:
    """Return a label as float64 of shape (), (n, 3) or (3, 3)."""
    from ase.stress import voigt_6_to_full_3x3_stress

    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{where}: {name} under {key!r} is not a number but {value!r}.")
    array = array.astype(np.float64)
    expected = {"energy": ((), (1,)), "forces": ((n_atoms, 3),), "stress": ((6,), (9,), (3, 3))}[name]
    if array.shape not in expected:
        raise ValueError(f"{where}: {name} under {key!r} has shape {array.shape}; expected {expected[0]}.")
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: {name} under {key!r} is not finite; remove the label or the structure.")
    if name == "stress":
        return voigt_6_to_full_3x3_stress(array) if array.shape == (6,) else array.reshape(3, 3)
    return array.reshape(()) if name == "energy" else array
