"""What the verbs take: a model by name or in memory, structures from a file or in memory."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from mlipjax.data import iread_atoms
from mlipjax.models import load
from mlipjax.models.foreign import foreign_calculator, is_foreign
from mlipjax.models.heads import head_index
from mlipjax.potential import Potential
from mlipjax.typing import Params

Structures = Atoms | Sequence[Atoms] | str | os.PathLike[str]
"""One structure, several, or a file that ASE reads."""


@dataclasses.dataclass(frozen=True)
class NativeModel:
    """A potential of this package.

    Attributes:
        name: what it was asked for by, or its architecture.
        potential, params: as ``mlipjax.load`` returns them.
        head: index of the energy head.
    """

    name: str
    potential: Potential
    params: Params
    head: int


@dataclasses.dataclass(frozen=True)
class ForeignModel:
    """An ASE calculator.

    Attributes:
        name: ``ase:module:factory``.
        calculator: what the factory returned.
    """

    name: str
    calculator: Any


ModelLike = str | os.PathLike[str] | tuple[Potential, Params] | NativeModel | ForeignModel
"""What ``mlipjax.load`` takes, what it returns, ``ase:module:factory``, or what ``open_model`` returned."""


def open_model(model: ModelLike, head: str | None = None) -> NativeModel | ForeignModel:
    """Load a model.

    Args:
        model: name, file or folder; a pair of potential and parameters; or ``ase:module:factory``.
        head: name of the energy head; by default the first.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: if it cannot be loaded, or has no such head.
    """
    if isinstance(model, (NativeModel, ForeignModel)):
        return model
    if isinstance(model, tuple):
        potential, params = model
        return NativeModel(type(potential.config).__name__.removesuffix("Config"), *model, head_index(potential, head))
    name = os.fspath(model)
    if is_foreign(name):
        if head is not None:
            raise ValueError(f"{name} is a foreign calculator and has no heads; found {head!r}.")
        return ForeignModel(name, foreign_calculator(name))
    potential, params = load(name)
    return NativeModel(name, potential, params, head_index(potential, head))


def is_one(structures: Any) -> bool:
    """Whether this is a single ``Atoms``: then one result comes back, not a list."""
    return isinstance(structures, Atoms)


def iterate(structures: Structures | Iterable[Atoms]) -> Iterator[Atoms]:
    """Yield structures one by one, those of a file as they are read.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or cannot be read.
        TypeError: for something else than ``Atoms``.
    """
    if isinstance(structures, Atoms):
        yield structures
        return
    if isinstance(structures, (str, os.PathLike)):
        yield from iread_atoms(Path(structures))
        return
    for item in structures:
        if not isinstance(item, Atoms):
            raise TypeError(f"structures are ase.Atoms or a file of them, found {type(item).__name__}.")
        yield item


def where(structures: Structures | Iterable[Atoms], index: int) -> str:
    """How to call structure ``index`` in a message."""
    if isinstance(structures, (str, os.PathLike)):
        return f"{os.fspath(structures)}, structure {index}"
    return f"structure {index}"
