"""Which elements go together: compounds that common oxidation states balance, and any mixture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from experiments.pretrain.prototypes import ANIONS, Prototype

ELEMENTS = tuple(z for z in range(1, 95) if not 84 <= z <= 88)
"""Of the teacher: all to plutonium but Po, At, Rn, Fr, Ra."""
# Common oxidation states of cations.
_STATES = {
    1: "H Li Na K Rb Cs Cu Ag Tl",
    2: "Be Mg Ca Sr Ba Mn Fe Co Ni Cu Zn Cd Hg Pd Pt Sn Pb Eu Yb Ti V Cr",
    3: "B Al Ga In Sc Y La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Ti V Cr Mn Fe Co Ni Rh Ir Ru Mo Au Tl Bi Sb As P N"
    " Ac U Np Pu Pa Os Nb Ta W",
    4: "C Si Ge Sn Pb Ti Zr Hf V Nb Ta Mo W Mn Tc Re Ru Os Ir Pd Pt Ce Th U Pa Np Pu S Se Te Rh Cr Tb Pr Xe",
    5: "P As Sb Bi V Nb Ta Mo W Re Os Cl Br I N Pa U Np",
    6: "S Se Te Cr Mo W Re Os U Np Xe Tc Pu",
    7: "Cl Br I Mn Tc Re",
}
# (charge, weight in a draw)
_ANIONS = {
    "O": (-2, 7.0), "F": (-1, 2.5), "S": (-2, 2.5), "Cl": (-1, 2.0), "Se": (-2, 1.5), "N": (-3, 1.5), "Te": (-2, 1.0),
    "Br": (-1, 1.0), "I": (-1, 1.0), "P": (-3, 1.0), "As": (-3, 0.8), "H": (-1, 0.8), "Sb": (-3, 0.6), "C": (-4, 0.5),
    "Si": (-4, 0.6), "Ge": (-4, 0.5), "B": (-3, 0.4), "Bi": (-3, 0.3),
}  # fmt: skip
_CENTRES = {"M": "B C N", "T": "B Si Ge P As V S Se Cr Mo W Mn Re Cl Be Al"}
_NOBLE = (2, 10, 18, 36, 54)
_RARE = (*_NOBLE, *range(89, 95))
_STATE_OF = {
    z: [state for state, names in _STATES.items() if chemical_symbols[z] in names.split()] for z in range(1, 95)
}


def cation(rng: np.random.Generator) -> int:
    """Draw any element but a noble gas; actinides and hydrogen seldom."""
    weights = np.array([0.0 if z in _NOBLE else 0.3 if z in _RARE or z == 1 else 1.0 for z in ELEMENTS])
    return int(rng.choice(ELEMENTS, p=weights / weights.sum()))


def anion(rng: np.random.Generator) -> int:
    """Draw an anion."""
    weights = np.array([weight for _, weight in _ANIONS.values()])
    return atomic_numbers[str(rng.choice(list(_ANIONS), p=weights / weights.sum()))]


def compose(rng: np.random.Generator, prototype: Prototype) -> dict[str, int]:
    """Elements for the letters of a structure type: a balanced compound, if it has anions, or any mixture."""
    counts = prototype.counts
    if rng.random() < 0.15 or not set(counts) & set(ANIONS):
        return _distinct(rng, counts)
    found = [_ionic(rng, counts) for _ in range(30)]
    return min(found, key=lambda elements: imbalance(elements, counts))


def _ionic(rng: np.random.Generator, counts: dict[str, int]) -> dict[str, int]:
    first = anion(rng)
    draw: dict[str, Callable[[], int]] = {"X": lambda: first, "Y": lambda: anion(rng)}
    for letter, names in _CENTRES.items():
        draw[letter] = lambda names=names: atomic_numbers[str(rng.choice(names.split()))]
    return {letter: draw[letter]() if letter in draw else cation(rng) for letter in counts}


def _distinct(rng: np.random.Generator, counts: dict[str, int]) -> dict[str, int]:
    if len(counts) == 1 and rng.random() < 0.5:
        return {letter: int(rng.choice(ELEMENTS)) for letter in counts}
    return {letter: cation(rng) for letter in counts}


def imbalance(elements: dict[str, int], counts: dict[str, int]) -> float:
    """Smallest charge per atom that common oxidation states leave; infinite where an element has none."""
    totals = {0}
    for letter, z in elements.items():
        symbol = chemical_symbols[z]
        states = [_ANIONS[symbol][0]] if letter in ANIONS else _STATE_OF[z]
        totals = {total + counts[letter] * state for total in totals for state in states}
    return min((abs(total) for total in totals), default=np.inf) / sum(counts.values())
