"""Results of probes: frozen dataclasses that say their verdict in a line, draw themselves and become JSON."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar

from matplotlib.figure import Figure

from mlipjax.files import plain


@dataclasses.dataclass(frozen=True)
class ProbeResult(abc.ABC):
    """Base of the results of all probes; subclasses are frozen dataclasses of numpy arrays, numbers and names.

    Units are part of a field's name or of its docstring; energies are eV, lengths Å, forces eV/Å, unless said
    otherwise. ``not_in_json`` names fields that are too large for a report, such as structures.
    """

    not_in_json: ClassVar[tuple[str, ...]] = ()

    @property
    @abc.abstractmethod
    def verdict(self) -> str:
        """One line that a hurried reader can act on: the main number with its unit, and whether to trust it."""

    @abc.abstractmethod
    def figure(self) -> Figure:
        """Draw the result, by a function of ``mlipjax.report.probes`` that takes arrays."""

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and the verdict as JSON knows them: lists for arrays, ``None`` for NaN and infinity."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in self.not_in_json]
        return {name: plain(getattr(self, name)) for name in names} | {"verdict": self.verdict}
