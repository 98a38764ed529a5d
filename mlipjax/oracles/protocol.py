"""Oracles: sources of the labels that a model is adapted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.typing import Array, Float

N_ELEMENTS = 119
"""Length of tables indexed by atomic number (0 is padding)."""


@runtime_checkable
class Oracle(Protocol):
    """Labels one structure at a time; ``Labeller`` adds workers, retries and the store.

    Attributes:
        jittable: whether the oracle is also a :class:`JittableOracle`.
        name: short, for reports.
        identity: everything that decides the numbers, as text. Labels are stored under it, so two oracles that
            may answer differently must have different identities.
    """

    @property
    def jittable(self) -> bool:
        """See the class."""
        ...

    @property
    def name(self) -> str:
        """See the class."""
        ...

    @property
    def identity(self) -> str:
        """See the class."""
        ...

    def label(self, system: System) -> Labels:
        """Total energy (eV), forces (eV/Å) and, where defined, stress (eV/Å^3) of one structure.

        Raises any exception when the structure cannot be labelled. Must be picklable together with the oracle if
        labels are to be computed in other processes.
        """
        ...


@runtime_checkable
class JittableOracle(Oracle, Protocol):
    """An oracle that can live inside a compiled loop.

    Attributes:
        cutoff: Å; the graphs it labels must hold every pair of atoms closer than this.
    """

    @property
    def cutoff(self) -> float:
        """See the class."""
        ...

    @property
    def isolated_energies(self) -> Mapping[int, float]:
        """Atomic number -> energy of the isolated atom in eV; elements that are absent have zero."""
        ...

    def label_graph(self, graph: GraphBatch, offsets: Float[Array, " elements"] | None = None) -> Labels:
        """Label a batch; pure, differentiable and usable under ``jit`` and ``vmap``.

        Args:
            graph: structures with all pairs closer than ``cutoff``; longer pairs are ignored.
            offsets: (119,) eV by atomic number, added for every atom (see :func:`energy_offsets`).

        Returns:
            ``energy`` (G,): interaction energy (the oracle's isolated atoms subtracted) plus offsets. Padding
            structures, and the stress of structures without volume, have weight 0.
        """
        ...


@dataclass(frozen=True)
class Failure:
    """Stands in a list of labels where a structure could not be labelled.

    Attributes:
        reason: message of the last attempt.
        attempts: how many were made.
    """

    reason: str
    attempts: int


def energy_offsets(oracle: JittableOracle, potential: Potential) -> np.ndarray:
    """Per-element energies that turn an oracle's interaction energies into those of a student.

    The label a student learns is the oracle's total energy minus the *student's* isolated atoms, so every atom
    contributes ``E0_oracle(Z) - E0_student(Z)``. Formed in float64 here, on the host. Inside a float32 program the
    sum over atoms is rounded to seven digits: let the student take over the oracle's isolated-atom energies
    (``potential.replace(e0s=...)``) where they are far apart.

    Returns:
        (119,) eV, indexed by atomic number; zero for elements the student does not know.
    """
    offsets = np.zeros(N_ELEMENTS)
    for row, number in enumerate(potential.species):
        offsets[number] = oracle.isolated_energies.get(number, 0.0) - potential.e0s[0][row]
    return offsets


def check_cutoff(oracle: JittableOracle, cutoff: float) -> None:
    """Refuse graphs made with too short a cutoff, from which an oracle would compute wrong energies in silence.

    Raises:
        ValueError: if ``cutoff`` (Å) is shorter than the oracle's.
    """
    if cutoff < oracle.cutoff:
        raise ValueError(
            f"the oracle {oracle.name} needs all pairs closer than {oracle.cutoff:g} Å, the graphs hold those closer"
            f" than {cutoff:g} Å; build them with the larger cutoff"
        )
