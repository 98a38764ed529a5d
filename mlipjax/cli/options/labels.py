"""Options of every command that reads labels from files, and how files are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlipjax.data import Dataset, LabelKeyError, LabelKeys

_AUTO, _NONE = "auto", "none"


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """Names of labels in the files.

    Attributes:
        energy_key: name of the total energies (eV) in the files; "auto" takes energy, or a well-known name such as
            REF_energy and says so; "none" leaves energies out.
        forces_key: name of the forces (eV/Å); likewise.
        stress_key: name of the stresses (eV/Å^3, tension positive); likewise.
        virial_key: name of the virials (eV, minus stress times volume), used in place of stresses; likewise.
    """

    energy_key: str = _AUTO
    forces_key: str = _AUTO
    stress_key: str = _AUTO
    virial_key: str = _AUTO

    def keys(self) -> LabelKeys:
        """Return what the options say."""
        from mlipjax.data import LabelKeys

        given = dataclasses.asdict(self)
        return LabelKeys(
            **{name.removesuffix("_key"): None if value == _NONE else value for name, value in given.items()}
        )

    def read(self, paths: Path | Sequence[Path], required: Sequence[str] = ("energy", "forces")) -> Dataset:
        """Read labelled structures; arguments and errors as ``mlipjax.data.read_dataset``.

        Raises:
            ValueError: with the options that help, if the names of labels are in doubt.
        """
        from mlipjax.data import LabelKeyError, read_dataset

        try:
            return read_dataset(paths, self.keys(), required=required)
        except LabelKeyError as error:
            raise ValueError(f"{error} {options_for(error)}") from error


def options_for(error: LabelKeyError) -> str:
    """Which options help with names of labels."""
    options = " ".join(f"--{kind}-key NAME" for kind in error.kinds)
    return f"The option is {options} ({_NONE} leaves them out)."


def plain_paths(paths: Sequence[Path]) -> Path | list[Path] | None:
    """One file as itself, several as a list, for a report."""
    return None if not paths else paths[0] if len(paths) == 1 else list(paths)


def set_name(paths: Sequence[Path]) -> str:
    """A short name for the data set of these files."""
    return paths[0].name if len(paths) == 1 else f"{paths[0].name} and {len(paths) - 1} more"


__all__ = ["LabelOptions", "options_for", "plain_paths", "set_name"]
