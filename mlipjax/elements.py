"""Chemical elements by atomic number: symbols, masses and radii, from the tables of ASE."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def symbols(numbers: Iterable[Any]) -> list[str]:
    """Symbols of elements, in the order given."""
    from ase.data import chemical_symbols

    return [chemical_symbols[int(z)] for z in numbers]


def listed(numbers: Iterable[Any]) -> str:
    """Symbols of elements in a message: "Li, F"."""
    return ", ".join(symbols(numbers))


def atomic_masses(numbers: Any) -> np.ndarray:
    """Standard atomic weights in amu (n,), float64.

    Raises:
        ValueError: for a number that is not an element with a known mass.
    """
    from ase.data import atomic_masses as table

    numbers = np.asarray(numbers, dtype=np.int64)
    wrong = sorted({int(z) for z in numbers if not (1 <= z < len(table)) or not np.isfinite(table[z])})
    if wrong:
        raise ValueError(f"no atomic mass known for atomic numbers {wrong}; expected elements 1 to {len(table) - 1}.")
    return np.asarray(table[numbers], dtype=np.float64)


def covalent_radii(numbers: Any = slice(None)) -> np.ndarray:
    """Covalent radii in Å, 0.2 where unknown, float64 (Cordero et al., Dalton Trans. 2832 (2008)).

    Args:
        numbers: (n,) atomic numbers; without, the table of all elements by atomic number.
    """
    from ase.data import covalent_radii as table

    return np.asarray(table, np.float64)[numbers if isinstance(numbers, slice) else np.asarray(numbers, np.int64)]
