"""Names under which a file stores energies, forces, stresses and virials."""

from __future__ import annotations

import dataclasses

AUTO = "auto"
"""Take ASE's name, or a well-known one."""
KINDS = ("energy", "forces", "stress", "virial")
WORDS = {"energy": "energies", "forces": "forces", "stress": "stresses", "virial": "virials"}


@dataclasses.dataclass(frozen=True)
class LabelKeys:
    """Names under which a file stores its labels.

    Attributes:
        energy: total energies in eV; ``AUTO`` looks for known names, ``None`` leaves energies out on purpose.
        forces: forces in eV/Å, likewise.
        stress: stresses in eV/Å^3, tension positive, likewise.
        virial: virials in eV, minus stress times volume, in place of stresses; likewise.
    """

    energy: str | None = AUTO
    forces: str | None = AUTO
    stress: str | None = AUTO
    virial: str | None = AUTO


class LabelKeyError(ValueError):
    """A name of labels that cannot be found, or that has to be chosen.

    Attributes:
        kinds: the labels concerned, of ``KINDS``.
    """

    def __init__(self, message: str, *kinds: str) -> None:
        """Keep the message and the labels concerned."""
        super().__init__(message)
        self.kinds = kinds
