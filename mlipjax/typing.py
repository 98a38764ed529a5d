"""Array names used in public signatures: each states shape and unit once.

Axis letters: ``N`` atoms (of all structures in a batch), ``K`` neighbour slots per atom,
``G`` structures, ``R`` replicas, ``F`` features. Energies are eV, lengths Å, forces eV/Å,
stress eV/Å^3 (tension positive, as in ASE), cells hold lattice vectors as rows.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

Params = Mapping[str, Any]
"""Nested dictionary of arrays: the trainable parameters of a potential."""

Key = PRNGKeyArray

Positions = Float[Array, "N 3"]  # Å
Forces = Float[Array, "N 3"]  # eV/Å
Cell = Float[Array, "3 3"]  # Å, lattice vectors as rows
Cells = Float[Array, "G 3 3"]  # Å
Stress = Float[Array, "G 3 3"]  # eV/Å^3, tension positive
Energies = Float[Array, " G"]  # eV
NodeEnergies = Float[Array, " N"]  # eV
Features = Float[Array, "N F"]
AtomicNumbers = Int[Array, " N"]

Neighbors = Int[Array, "N K"]
Shifts = Int[Array, "N K 3"]  # lattice translations of the neighbour
EdgeMask = Bool[Array, "N K"]

__all__ = [
    "Array",
    "AtomicNumbers",
    "Bool",
    "Cell",
    "Cells",
    "EdgeMask",
    "Energies",
    "Features",
    "Float",
    "Forces",
    "Int",
    "Key",
    "Neighbors",
    "NodeEnergies",
    "Params",
    "Positions",
    "Shifts",
    "Stress",
]
