"""Data sets from extended xyz, ASE databases and whatever else ASE reads.

A label that is absent gets weight 0. A label that seems to be there under another name is an error, because a
data set silently read without its forces trains a model on nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlipjax.data.atoms import Located, check_free_units, check_structure, read_source, say_electrons
from mlipjax.data.convergence import unconverged
from mlipjax.data.dataset import Dataset, Example, Placed
from mlipjax.data.label_keys import AUTO, WORDS, LabelKeyError, LabelKeys
from mlipjax.data.label_reader import LabelReader
from mlipjax.data.label_units import Units
from mlipjax.data.sources import Paths, Source, describe_paths, find_sources
from mlipjax.data.store import DESCRIPTION, open_store
from mlipjax.data.weights import LABELS, without_weights
from mlipjax.notices import notice
from mlipjax.system import Labels, System

if TYPE_CHECKING:
    from ase import Atoms

_DEFAULT_KEYS = LabelKeys()
FILE = "file"
"""Information of every structure of a set that was read from several files: the name of its own."""


def read_dataset(
    path: Paths,
    keys: LabelKeys = _DEFAULT_KEYS,
    *,
    required: Sequence[str] = ("energy", "forces"),
    with_labels: bool = True,
) -> Dataset:
    """Read all structures of a file, or of several, with their labels.

    Args:
        path: extended xyz (also ``.gz``, ``.xz``), ASE database (``.db``) or any other format ASE reads, with a slice
            if need be, a pattern, or a folder of such files (see ``sources``); or a folder made by ``write_store``,
            from which a structure is read when it is asked for. Several of these are joined.
        keys: names and units of the labels. Unless they say otherwise energies are totals in eV, forces eV/Å, stress
            eV/Å^3 with tension positive (6 Voigt components xx, yy, zz, yz, xz, xy or a full matrix), virials eV.
            Weights in a frame's information (``weights``) scale that frame's labels.
        required: labels that at least one structure must carry.
        with_labels: ``False`` reads structures alone: no label is looked for, and every weight is 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file cannot be parsed or is empty; if a required label is nowhere; if a label has the wrong
            shape or is not finite; if a structure is none (see ``checks``); if a folder is not what ``write_store``
            made.
        LabelKeyError: (a ``ValueError``) if a label is missing under its name while a similar name exists, or may have
            several names.
    """
    unknown = set(required) - set(LABELS)
    if unknown:
        raise ValueError(f"required labels are among {sorted(LABELS)}; got {sorted(unknown)}.")
    given = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    stores = [part for part in given if _is_store(part)]
    files = [part for part in given if not _is_store(part)]
    if stores and keys != _DEFAULT_KEYS:
        raise ValueError(f"{stores[0]}: labels were named when this folder was made; give no keys for it.")
    if files or not stores:
        examples = list(read_examples(files, keys, with_labels=with_labels))
        if not examples:
            raise ValueError(f"{describe_paths(path)}: no structure in this file.")
        dataset = Dataset.from_examples(examples)
    else:
        dataset, stores = open_store(stores[0]), stores[1:]
    for store in stores:
        dataset = dataset + open_store(store)
    _check_required(dataset, keys, required if with_labels else (), describe_paths(path))
    return dataset


def read_examples(path: Paths, keys: LabelKeys = _DEFAULT_KEYS, *, with_labels: bool = True) -> Iterator[Example]:
    """Read files structure by structure; errors as ``read_dataset``.

    Args:
        path: as for ``read_dataset``.
        keys: names of the labels.
        with_labels: whether labels are looked for.
    """
    reader = LabelReader(keys) if with_labels else None
    sources = find_sources(path)
    several = len({source.path for source in sources}) > 1
    for source in sources:
        for found in _converged(source, keys, several) if with_labels else read_source(source):
            example = _example(found.atoms, found.where, reader)
            info = {FILE: str(found.path), **example.info} if several else example.info
            yield example._replace(info=Placed(info, str(found.path), found.index))
    if reader is not None:
        reader.finish()


def gather(
    frames: Iterable[Atoms],
    keys: LabelKeys = _DEFAULT_KEYS,
    *,
    required: Sequence[str] = (),
    with_labels: bool = True,
) -> Dataset:
    """Collect structures in memory with the labels they carry; errors as ``read_dataset``.

    Args:
        frames: structures, each with a calculator's results or labels under the names of ``keys``.
        keys: names of the labels.
        required: labels that at least one structure must have.
        with_labels: whether labels are looked for.
    """
    reader = LabelReader(keys) if with_labels else None
    examples = []
    for index, atoms in enumerate(frames):
        check_structure(atoms, f"structure {index}")
        examples.append(_example(atoms, f"structure {index}", reader))
    if not examples:
        raise ValueError("found no structure.")
    if reader is not None:
        reader.finish()
    dataset = Dataset.from_examples(examples)
    _check_required(dataset, keys, required if with_labels else (), "the structures given")
    return dataset


def _example(atoms: Atoms, where: str, reader: LabelReader | None) -> Example:
    say_electrons(atoms)
    info = without_weights(atoms.info)
    info |= {name: value.item() for name, value in info.items() if isinstance(value, np.generic)}
    labels = Labels.create(len(atoms)) if reader is None else reader.read(atoms, where)
    return Example(System.from_ase(atoms), labels, info if reader is None else reader.without_labels(info))


def _converged(source: Source, keys: LabelKeys, several: bool) -> Iterator[Located]:
    """Structures without those whose electrons did not converge, where a file says so.

    A file of which nothing is left is an error, unless it is one of several.
    """
    if keys.units != Units():
        check_free_units(source.path)
    dropped, kept, bad = [], 0, None
    try:
        for found in read_source(source, keys.units.positions):
            bad = unconverged(source.path) if bad is None else bad
            if found.index in bad:
                dropped.append(found.index)
            else:
                kept += 1
                yield found
    except ValueError:
        # a program that gives up leaves a file that no one can read
        if bad is not None or not (bad := unconverged(source.path)):
            raise
        dropped = sorted(bad)
    if not dropped:
        return
    numbers = ", ".join(map(str, dropped[:10])) + (", ..." if len(dropped) > 10 else "")
    message = f"{source.path}: the electronic steps of {len(dropped)} structures ({numbers}) did not converge"
    if not kept and not several:
        raise ValueError(f"{message}, so there is no label in this file; compute them again.")
    notice(f"{message}; they are left out.")


def _is_store(path: str | os.PathLike[str]) -> bool:
    """Return whether a folder is one of ``write_store``, maybe damaged; other folders hold files to read."""
    path = Path(path)
    if not path.is_dir():
        return False
    names = [file.name for file in path.iterdir()]
    return not names or DESCRIPTION in names or any(name.endswith(".npy") for name in names)


def _check_required(dataset: Dataset, keys: LabelKeys, required: Sequence[str], where: str) -> None:
    """Refuse energies and forces that are required, or whose name was given, and are nowhere; say it of stresses."""
    counts = dataset.count_labels()
    given = {name: key for name in WORDS if (key := getattr(keys, name)) not in (AUTO, None)}
    for name in dict.fromkeys([*required, *given]):
        label = "stress" if name == "virial" else name
        if counts[label] or getattr(keys, name) is None:
            continue
        missing = f"{where}: none of {len(dataset)} structures has {name} under {given.get(name, name)!r}"
        if label == "stress" and label not in required:
            notice(f"{missing}.")
            continue
        raise LabelKeyError(
            f"{missing} with a weight above 0. Name the key of the {WORDS[name]}, or leave {WORDS[name]} out.", name
        )
