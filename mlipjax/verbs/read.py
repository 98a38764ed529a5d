"""Labelled structures, from files or from ``ase.Atoms`` that carry their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict

from ase import Atoms

from mlipjax.data import Dataset, LabelKeyError, LabelKeys, gather, read_dataset
from mlipjax.data.label_keys import AUTO
from mlipjax.data.label_units import parse_units
from mlipjax.verbs.inputs import Structures, paths_in, refuse_coincidences

NONE = "none"
"""Leave labels of a kind out."""


class LabelNames(TypedDict, total=False):
    """Names and units of labels in files, as keywords of every verb that reads some: those of ``read``."""

    energy_key: str
    forces_key: str
    stress_key: str
    virial_key: str
    units: str


def names_among(options: dict[str, Any]) -> LabelNames:
    """Names and units of labels among the options of a verb, which they are taken out of."""
    return LabelNames(**{name: options.pop(name) for name in LabelNames.__annotations__ if name in options})


def read(
    data: Structures,
    *,
    energy_key: str = AUTO,
    forces_key: str = AUTO,
    stress_key: str = AUTO,
    virial_key: str = AUTO,
    units: str = "ase",
    required: Sequence[str] = (),
) -> Dataset:
    """Read labelled structures.

    Args:
        data: files that ASE reads, slices of them (``FILE@:100``), patterns, folders, or a folder of arrays that was
            made of them; ``Atoms`` with results; or a data set, which comes back as it is.
        energy_key: name of the total energies; "auto" takes energy, or a well-known name such as REF_energy and says
            so; "none" leaves energies out.
        forces_key: name of the forces; likewise.
        stress_key: name of the stresses (tension positive); likewise.
        virial_key: name of the virials (minus stress times volume), used in place of stresses; likewise.
        units: of the labels in files, if not eV, eV/Å and eV/Å^3: "energy=Hartree,length=Bohr", say, or "atomic"
            (``data.label_units``).
        required: labels, of "energy", "forces" and "stress", that one structure at least must have.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a file cannot be read, or labels are wrong, missing or in doubt.

    Examples:
        >>> import mlipjax
        >>> from ase.build import molecule
        >>> labelled = mlipjax.predict("universal", [molecule("H2O"), molecule("CH4")])
        >>> mlipjax.read(labelled).count_labels()
        {'energy': 2, 'forces': 2, 'stress': 0}
    """
    keys = label_keys(
        energy_key=energy_key, forces_key=forces_key, stress_key=stress_key, virial_key=virial_key, units=units
    )
    if isinstance(data, Dataset):
        if keys != LabelKeys():
            raise ValueError("names and units of labels are for files; those of this data set have been read already.")
        return data
    with naming_options():
        return _gathered(data, keys, required=required)


@contextmanager
def naming_options() -> Iterator[None]:
    """Let errors about names of labels say which options help."""
    try:
        yield
    except LabelKeyError as error:
        options = ", ".join(f'{kind}_key="NAME"' for kind in error.kinds)
        raise LabelKeyError(f'{error} The option is {options} ("{NONE}" leaves them out).', *error.kinds) from error


def read_structures(data: Structures) -> Dataset:
    """Read structures whose labels, if there are any, are not looked at; arguments and errors as ``read``.

    Raises:
        ValueError: also if atoms of a structure coincide.
    """
    found = data if isinstance(data, Dataset) else _gathered(data, LabelKeys(), with_labels=False)
    refuse_coincidences(found.systems, found.where)
    return found


def _gathered(data: Any, keys: LabelKeys, **options: Any) -> Dataset:
    if paths := paths_in(data):
        return read_dataset(paths, keys, **{"required": (), **options})
    return gather([data] if isinstance(data, Atoms) else data, keys, **options)


def label_keys(*, units: str = "ase", **names: str) -> LabelKeys:
    """The names of labels, where "none" leaves labels of a kind out; keys are ``energy_key``, ``forces_key``, ..."""
    keys = {name.removesuffix("_key"): None if key == NONE else key for name, key in names.items()}
    return LabelKeys(**keys, units=parse_units(units))
