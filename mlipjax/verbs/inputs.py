"""Inputs of the verbs: a model by name or in memory, structures from files or in memory; and where results go."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
from ase import Atoms

from mlipjax.data import Dataset, read_last_atoms, say_electrons
from mlipjax.data.atoms import iread_located
from mlipjax.defaults import Precision
from mlipjax.graph import coincidences
from mlipjax.models import load
from mlipjax.models.foreign import foreign_calculator, is_foreign, refusal
from mlipjax.models.heads import head_index, with_first_head
from mlipjax.notices import notice
from mlipjax.potential import Model, Potential
from mlipjax.system import System
from mlipjax.typing import Params

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""Files that ASE reads, slices of them (``FILE@:100``), patterns, folders; one or several."""

Several = Sequence[Atoms] | Dataset | Paths
"""Structures that come back as a list."""

Structures = Atoms | Several
"""One structure, several, or files of them; labels are not needed."""

LeaveOut = Callable[[int, str], object]
"""Called with number and reason of a structure that has no energy and is left out."""

MAX_ATOMS = 2_000_000
"""Most atoms of a structure that is built here."""


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

    @property
    def model(self) -> Model:
        """Potential and parameters."""
        return Model(self.potential, self.params)

    @property
    def first(self) -> Model:
        """The model with the chosen head first: the one that training, errors and probes use."""
        return Model(with_first_head(self.potential, self.potential.heads[self.head]), self.params)


@dataclasses.dataclass(frozen=True)
class ForeignModel:
    """An ASE calculator.

    Attributes:
        name: ``ase:module:factory``.
        calculator: what the factory returned.
    """

    name: str
    calculator: Any


ModelLike = (
    str
    | os.PathLike[str]
    | tuple[Potential, Params]
    | tuple[Potential, Params, dict[str, Any]]
    | NativeModel
    | ForeignModel
)
"""Arguments and results of ``mlipjax.load``, results of a fine-tune, ``ase:module:factory``, and of ``open_model``."""


def open_model(
    model: ModelLike, head: str | None = None, precision: Precision = "highest"
) -> NativeModel | ForeignModel:
    """Load a model; of several heads the one taken is said if none was chosen.

    Args:
        model: name, file or folder; a pair of potential and parameters; or ``ase:module:factory``.
        head: name of the energy head; by default the first.
        precision: of the network's products.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: if it cannot be loaded, or has no such head or precision.
        TypeError: for something else than a model.
    """
    opened = _opened(model)
    if isinstance(opened, ForeignModel):
        if head is not None:
            raise ValueError(f"{opened.name} is a foreign calculator, which has no heads here; found head={head!r}.")
        if precision != "highest":
            raise ValueError(
                f"{opened.name} is a foreign calculator, whose precision is its own; found precision={precision!r}."
            )
        return opened
    opened = dataclasses.replace(opened, potential=opened.potential.replace(precision=precision))
    heads = opened.potential.heads
    if head is None:
        if len(heads) > 1 and not isinstance(model, NativeModel):
            notice(
                f"this model has the heads {', '.join(heads)}; {heads[0]} is used (head={heads[1]!r} takes another)."
            )
        return opened
    return dataclasses.replace(opened, head=head_index(opened.potential, head))


def open_native(model: ModelLike, head: str | None = None, precision: Precision = "highest") -> NativeModel:
    """Load a model whose parameters are needed; arguments and errors as ``open_model``.

    Raises:
        ValueError: also for a foreign calculator.
    """
    opened = open_model(model, head, precision)
    if isinstance(opened, ForeignModel):
        raise refusal(opened.name)
    return opened


def open_for_features(model: ModelLike) -> Model:
    """Load a model whose features are read: its heads share them, so none is chosen, and that is said.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: if it cannot be loaded, or is a foreign calculator.
    """
    opened = _opened(model)
    if isinstance(opened, ForeignModel):
        raise refusal(opened.name)
    if len(heads := opened.potential.heads) > 1 and getattr(opened.potential.config, "n_labels", 0):
        notice(f"features of this model depend on the head, of {', '.join(heads)}; those of {heads[0]} are read.")
    elif len(heads) > 1:
        notice(f"the heads {', '.join(heads)} of this model share their features; none has to be chosen.")
    return opened.model


def _opened(model: ModelLike) -> NativeModel | ForeignModel:
    if isinstance(model, (NativeModel, ForeignModel)):
        return model
    if isinstance(model, tuple):
        potential, params = model[:2]  # what a fine-tune returns has its report behind them
        return NativeModel(type(potential.config).__name__.removesuffix("Config"), potential, params, 0)
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            f"a model is a name, a file, a folder or the pair (potential, params), found {type(model).__name__}."
        )
    name = os.fspath(model)
    if is_foreign(name):
        return ForeignModel(name, foreign_calculator(name))
    return NativeModel(name, *load(name), 0)


def is_one(structures: Any) -> bool:
    """Return whether this is a single ``Atoms``: then one result comes back, not a list."""
    return isinstance(structures, Atoms)


def is_nothing(structures: Any) -> bool:
    """Return whether no structures, and no files of them, were given."""
    return isinstance(structures, tuple) and not structures


def paths_in(structures: Any) -> list[str]:
    """The files that a verb was given; none if it was given structures.

    Raises:
        TypeError: for some of both.
    """
    if isinstance(structures, (str, os.PathLike)):
        return [os.fspath(structures)]
    if isinstance(structures, (Atoms, Dataset)) or not isinstance(structures, Sequence):
        return []
    paths = [os.fspath(part) for part in structures if isinstance(part, (str, os.PathLike))]
    if paths and len(paths) < len(structures):
        raise TypeError("structures are given as files or as ase.Atoms, not some of both; read the files first.")
    return paths


def iterate_named(structures: Structures | Iterable[Atoms]) -> Iterator[tuple[Atoms, str]]:
    """Yield structures, those of files as they are read, with the names that messages give them: file and number there.

    Charges and moments, which are not used, are said.

    Raises:
        FileNotFoundError, ValueError: if a file is not there or cannot be read.
        TypeError: for something else than ``Atoms``.
    """
    if paths := paths_in(structures):
        named = ((found.atoms, found.where) for found in iread_located(paths))
    else:
        named = ((atoms, f"structure {index}") for index, atoms in enumerate(_in_memory(structures)))
    for atoms, name in named:
        say_electrons(atoms)
        yield atoms, name


def _in_memory(structures: Any) -> Iterator[Atoms]:
    if isinstance(structures, Dataset):
        for system, _, info in structures:
            atoms = system.to_ase()
            atoms.info = dict(info)
            yield atoms
        return
    for item in [structures] if isinstance(structures, Atoms) else structures:
        if not isinstance(item, Atoms):
            raise TypeError(f"structures are ase.Atoms or a file of them, found {type(item).__name__}.")
        yield item


def last_of(structures: Structures) -> Atoms:
    """The one structure that a verb starts from: of several the last one, which is said.

    Raises:
        FileNotFoundError, ValueError: if there is none, a file cannot be read, or atoms of the structure coincide.
    """
    if paths := paths_in(structures):
        last = read_last_atoms(paths)
    else:
        frames = [atoms for atoms, _ in iterate_named(structures)]
        if not frames:
            raise ValueError("found no structure.")
        if len(frames) > 1:
            notice(f"{len(frames)} structures are given; the last one is taken.")
        last = frames[-1]
    refuse_coincidences([System.from_ase(last)], lambda _: described(structures))
    return last


def refuse_coincidences(systems: Iterable[System], name: Callable[[int], str]) -> None:
    """Refuse structures in which atoms coincide: they have no energy.

    Args:
        systems: structures.
        name: what messages call each of them, by its place.

    Raises:
        ValueError: naming the first such structure and its atoms.
    """
    for index, why in coincidences(systems).items():
        raise ValueError(f"{name(index)}: {why}")


def check_known(model: NativeModel | ForeignModel, structures: Structures, numbers: Iterable[int]) -> None:
    """Refuse elements (of atomic ``numbers``) of the one structure taken that the model does not know, naming its file.

    Raises:
        ValueError: naming them.
    """
    if isinstance(model, NativeModel):
        try:
            model.potential.check_elements(numbers)
        except ValueError as error:
            raise ValueError(f"{described(structures)}: {error}") from None


def unconstrained(structures: Structures, why: str) -> System:
    """The structure of a probe that moves all atoms itself: constraints are left out, which is said with the reason.

    Raises:
        FileNotFoundError, ValueError: as ``last_of``.
    """
    atoms = last_of(structures)
    if atoms.constraints:
        names = ", ".join(sorted({type(constraint).__name__ for constraint in atoms.constraints}))
        notice(f"{described(structures)}: its constraints ({names}) are not used: {why}.")
    return System.from_ase(atoms)


def repeated(atoms: Atoms, repeat: Sequence[int]) -> Atoms:
    """A supercell; a structure that is repeated once along every vector is itself.

    Raises:
        ValueError: for a structure without a cell, no positive numbers, or more than ``MAX_ATOMS`` atoms.
    """
    if tuple(repeat) == (1, 1, 1):
        return atoms
    if min(repeat) < 1 or atoms.cell.rank < 3:
        raise ValueError(f"cannot repeat this structure {tuple(repeat)} times: that needs a cell and positive numbers.")
    check_atoms(len(atoms), repeat)
    return atoms.repeat(tuple(repeat))


def check_atoms(n_atoms: int, repeat: Sequence[int]) -> None:
    """Refuse a supercell that is too large, before it is built.

    Raises:
        ValueError: saying how many atoms it would have.
    """
    total = n_atoms * math.prod(repeat)
    if total > MAX_ATOMS:
        raise ValueError(
            f"repeat={tuple(repeat)} makes {total} atoms of {n_atoms}; at most {MAX_ATOMS} are possible. Repeat less "
            "often."
        )


def told_paths(structures: Any) -> str | list[str] | None:
    """The files among what a verb was given, for a report: one as itself, several as a list."""
    paths = paths_in(structures)
    return paths if len(paths) > 1 else paths[0] if paths else None


def name_of(structures: Any) -> str:
    """Return the name of structures in a message or figure: by their file, as far as there is one."""
    paths = [Path(path) for path in paths_in(structures)]
    if not paths:
        return "the structure" if is_one(structures) else "the structures"
    first = paths[0].name or str(paths[0])
    return first if len(paths) == 1 else f"{first} and {len(paths) - 1} more"


def described(structures: Any) -> str:
    """The whole names of files for a message, or what else the structures are called."""
    return ", ".join(paths_in(structures)) or name_of(structures)


def iterate_computable(
    structures: Structures | Iterable[Atoms], leave_out: LeaveOut | None = None
) -> Iterator[tuple[Atoms, str]]:
    """Yield structures with their names, as ``iterate_named``, but for those in which atoms coincide.

    Args:
        structures: as for ``iterate_named``.
        leave_out: called for a structure that is left out; ``None`` to refuse it.

    Raises:
        ValueError: for such a structure, if none may be left out.
    """
    for number, (atoms, name) in enumerate(iterate_named(structures)):
        try:
            refuse_coincidences([System.from_ase(atoms)], lambda _, name=name: name)
        except ValueError as error:
            if leave_out is None:
                raise
            leave_out(number, str(error))
            continue
        yield atoms, name


def in_dtype(dtype: str) -> AbstractContextManager[Any]:
    """64-bit mode where a network needs it; without need the mode stays as it is.

    Raises:
        ValueError: if ``dtype`` is neither "float32" nor "float64".
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}.")
    return jax.enable_x64(True) if dtype == "float64" else nullcontext()


_FILES = (".xyz", ".extxyz")


def folder_and_file(
    out: str | os.PathLike[str] | None, write: str | os.PathLike[str] | None, name: str
) -> tuple[Path | None, Path | None]:
    """The folder for results, and the file for structures.

    Args:
        out: a folder, in which structures are written as ``name``; or, as for ``write``, a name that ends in .extxyz
            or .xyz.
        write: file for structures alone.
        name: of the file in a folder.

    Raises:
        ValueError: if both are given.
    """
    if out is None or write is not None:
        if out is not None:
            raise ValueError("give either a folder for everything (out) or a file for the structures alone (write).")
        return None, None if write is None else Path(write)
    out = Path(out)
    if out.suffix in _FILES or out.is_file():
        return None, out
    return out, out / name
