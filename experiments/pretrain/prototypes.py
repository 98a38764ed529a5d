"""Crystal structure types as data, and crystals of any elements in them.

A type is a space group, the shape of its conventional cell and one line per occupied site. Sites of one letter hold one
element: ``X`` and ``Y`` are anions of a compound, ``M`` and ``T`` the middle of its planar and tetrahedral groups,
other letters are metals or anything else. Free coordinates are those of a
well-known member, rounded: structures are relaxed afterwards. Cells are scaled so that the closest pair of atoms is at
the sum of its covalent radii.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.spacegroup import crystal
from matscipy.neighbours import neighbour_list

from mlipjax.elements import covalent_radii

_REACH = 1.1
"""In units of a, beyond an atom's own image."""
_CATIONS_MEET = 0.8
LEAST_BOND = 1.4
"""Å: crystals of hydrogen and its like are not as dense as their radii say."""

# name: space group | b/a c/a (of cubic types none), then gamma if it is not 90 | sites
_TABLE = """
fcc:          225 |                | A 0 0 0
bcc:          229 |                | A 0 0 0
hcp:          194 | 1 1.63 120     | A 1/3 2/3 1/4
dhcp:         194 | 1 3.25 120     | A 0 0 0; A 1/3 2/3 1/4
sc:           221 |                | A 0 0 0
diamond:      227 |                | A 0 0 0
beta tin:     141 | 1 0.55         | A 0 0 0
arsenic:      166 | 1 2.8 120      | A 0 0 0.23
graphite:     194 | 1 2.7 120      | A 0 0 1/4; A 1/3 2/3 1/4
omega:        191 | 1 0.61 120     | A 0 0 0; A 1/3 2/3 1/2
A15:          223 |                | A 0 0 0; B 1/4 0 1/2
rocksalt:     225 |                | A 0 0 0; X 1/2 1/2 1/2
CsCl:         221 |                | A 0 0 0; X 1/2 1/2 1/2
zincblende:   216 |                | A 0 0 0; X 1/4 1/4 1/4
wurtzite:     186 | 1 1.63 120     | A 1/3 2/3 0; X 1/3 2/3 0.375
NiAs:         194 | 1 1.4 120      | A 0 0 0; X 1/3 2/3 1/4
MnP:          62  | 0.57 0.9       | A 0.005 1/4 0.2; X 0.19 1/4 0.57
litharge:     129 | 1 1.26         | X 0 0 0; A 0 1/2 0.24
tungsten carbide: 187 | 1 0.98 120 | A 0 0 0; X 1/3 2/3 1/2
BN:           194 | 1 2.66 120     | A 1/3 2/3 1/4; X 2/3 1/3 1/4
FeSi:         198 |                | A 0.137 0.137 0.137; X 0.842 0.842 0.842
CuAu:         123 | 1 1.35         | A 0 0 0; B 1/2 1/2 1/2
NaTl:         227 |                | A 0 0 0; B 1/2 1/2 1/2
fluorite:     225 |                | A 0 0 0; X 1/4 1/4 1/4
rutile:       136 | 1 0.65         | A 0 0 0; X 0.305 0.305 0
anatase:      141 | 1 2.51         | A 0 0 0; X 0 0 0.208
CdI2:         164 | 1 1.6 120      | A 0 0 0; X 1/3 2/3 1/4
MoS2:         194 | 1 3.9 120      | A 1/3 2/3 1/4; X 1/3 2/3 0.62
pyrite:       205 |                | A 0 0 0; X 0.385 0.385 0.385
cristobalite: 227 |                | A 0 0 0; X 1/8 1/8 1/8
cuprite:      224 |                | X 0 0 0; A 1/4 1/4 1/4
cotunnite:    62  | 0.59 1.19      | A 0.25 1/4 0.11; X 0.14 1/4 0.43; X 0.03 1/4 0.83
MoSi2:        139 | 1 2.45         | A 0 0 0; B 0 0 1/3
AlB2:         191 | 1 1.08 120     | A 0 0 0; B 1/3 2/3 1/2
Cu2Sb:        129 | 1 1.5          | A 3/4 1/4 0; A 1/4 1/4 0.73; B 1/4 1/4 0.3
C15:          227 |                | A 1/8 1/8 1/8; B 1/2 1/2 1/2
C14:          194 | 1 1.63 120     | A 1/3 2/3 0.062; B 0 0 0; B 5/6 2/3 1/4
Cu3Au:        221 |                | A 0 0 0; B 0 1/2 1/2
DO3:          225 |                | A 0 0 0; B 1/4 1/4 1/4; B 1/2 1/2 1/2
DO19:         194 | 1 0.8 120      | A 1/3 2/3 1/4; B 5/6 2/3 1/4
ReO3:         221 |                | A 0 0 0; X 1/2 0 0
BiI3:         148 | 1 2.76 120     | A 0 0 0.167; X 0.342 0.01 0.087
skutterudite: 204 |                | A 1/4 1/4 1/4; X 0 0.335 0.16
CaCu5:        191 | 1 0.8 120      | A 0 0 0; B 1/3 2/3 0; B 1/2 0 1/2
CaB6:         221 |                | A 0 0 0; X 0.2 1/2 1/2
ThMn12:       139 | 1 0.56         | A 0 0 0; B 0.36 0 0; B 0.275 1/2 0; B 1/4 1/4 1/4
corundum:     167 | 1 2.73 120     | A 0 0 0.352; X 0.306 0 1/4
La2O3:        164 | 1 1.56 120     | A 1/3 2/3 0.235; X 0 0 0; X 1/3 2/3 0.63
Bi2Te3:       166 | 1 6.95 120     | A 0 0 0.4; X 0 0 0; X 0 0 0.21
perovskite:   221 |                | A 0 0 0; B 1/2 1/2 1/2; X 1/2 1/2 0
GdFeO3:       62  | 1.4 0.96       | A 0.05 1/4 0.99; B 0 0 1/2; X 0.47 1/4 0.09; X 0.29 0.04 0.71
hexagonal perovskite: 194 | 1 0.85 120 | A 1/3 2/3 3/4; B 0 0 0; X 0.15 0.3 1/4
ilmenite:     148 | 1 2.77 120     | A 0 0 0.355; B 0 0 0.145; X 0.317 0.023 0.245
calcite:      167 | 1 3.42 120     | A 0 0 0; M 0 0 1/4; X 0.257 0 1/4
delafossite:  166 | 1 5.7 120      | A 0 0 0; B 0 0 1/2; X 0 0 0.108
NaFeO2:       166 | 1 4.95 120     | A 0 0 0; B 0 0 1/2; X 0 0 0.24
chalcopyrite: 122 | 1 1.97         | A 0 0 0; B 0 0 1/2; X 0.25 1/4 1/8
spinel:       227 |                | A 0 0 0; B 5/8 5/8 5/8; X 0.388 0.388 0.388
K2NiF4:       139 | 1 3.3          | A 0 0 0.355; B 0 0 0; X 0 1/2 0; X 0 0 0.155
zircon:       141 | 1 0.91         | A 0 3/4 1/8; T 0 1/4 3/8; X 0 0.066 0.195
scheelite:    88  | 1 2.17         | A 0 1/4 5/8; T 0 1/4 1/8; X 0.15 0.009 0.211
K2PtCl6:      225 |                | A 1/4 1/4 1/4; B 0 0 0; X 0.24 0 0
elpasolite:   225 |                | A 1/4 1/4 1/4; B 0 0 0; C 1/2 1/2 1/2; X 0.25 0 0
half-Heusler: 216 |                | A 0 0 0; B 1/4 1/4 1/4; X 1/2 1/2 1/2
Heusler:      225 |                | A 1/4 1/4 1/4; B 0 0 0; C 1/2 1/2 1/2
PbFCl:        129 | 1 1.75         | A 1/4 1/4 0.2; Y 1/4 3/4 0; X 1/4 1/4 0.65
TiNiSi:       62  | 0.6 1.15       | A 0.02 1/4 0.18; B 0.14 1/4 0.56; C 0.76 1/4 0.62
ZrNiAl:       189 | 1 0.51 120     | A 0.59 0 0; B 0.25 0 1/2; C 1/3 2/3 0; C 0 0 1/2
LiGaGe:       186 | 1 1.6 120      | A 0 0 1/4; B 1/3 2/3 0.46; C 1/3 2/3 0.05
ThCr2Si2:     139 | 1 2.6          | A 0 0 0; B 0 1/2 1/4; X 0 0 0.37
ZrCuSiAs:     129 | 1 2.2          | A 1/4 1/4 0.14; Y 3/4 1/4 0; X 1/4 1/4 0.66; B 3/4 1/4 1/2
antiperovskite: 221 |              | X 1/2 1/2 1/2; B 0 0 0; A 1/2 1/2 0
"""


class Prototype(NamedTuple):
    """A structure type.

    Attributes:
        name: of it, or of a member.
        cell: primitive cell in units of a, (3, 3).
        scaled: (n, 3) fractional coordinates.
        roles: (n,) letter of every atom.
    """

    name: str
    cell: np.ndarray
    scaled: np.ndarray
    roles: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """Atoms of each letter."""
        return dict(Counter(self.roles.tolist()))

    def occupied(self, elements: dict[str, int]) -> Atoms:
        """Put an element, by atomic number, on every letter's sites, the closest pair at its covalent distance."""
        numbers = np.array([elements[role] for role in self.roles.tolist()])
        atoms = Atoms(numbers, scaled_positions=self.scaled, cell=self.cell, pbc=True)
        radii = covalent_radii(numbers)
        bonds = np.maximum(radii[:, None] + radii, LEAST_BOND)
        anion = np.isin(self.roles, ANIONS)
        if anion.any():
            # ions of one charge meet, if at all, closer than atoms of a metal do
            bonds = np.where(~anion[:, None] & ~anion, _CATIONS_MEET * bonds, bonds)
        first, second, distances = neighbour_list("ijd", atoms, _REACH)
        atoms.set_cell(atoms.cell.array * (bonds[first, second] / distances).max(), scale_atoms=True)
        return atoms


@cache
def prototypes() -> tuple[Prototype, ...]:
    """All structure types, in the order of the table."""
    return tuple(_read(line) for line in _TABLE.strip().splitlines())


def _read(line: str) -> Prototype:
    name, rest = line.split(":")
    group, shape, sites = rest.split("|")
    b, c, *gamma = [float(word) for word in shape.split()] or [1.0, 1.0]
    places = [site.split() for site in sites.split(";")]
    letters = [place[0] for place in places]
    options: Any = {
        # distinct elements, so that letters can be told apart afterwards
        "symbols": [_MARKS[letter] for letter in letters],
        "basis": [[_fraction(word) for word in place[1:]] for place in places],
        "spacegroup": int(group),
        "cellpar": [1.0, b, c, 90, 90, *(gamma or [90])],
        "setting": 2 if name in _SECOND_ORIGIN else 1,
        "primitive_cell": True,
    }
    atoms = crystal(**options)
    marks = {number: letter for letter, number in zip(_MARKS, Atoms(list(_MARKS.values())).numbers, strict=True)}
    roles = np.array([marks[number] for number in atoms.numbers])
    return Prototype(name.strip(), atoms.cell.array, atoms.get_scaled_positions(), roles)


ANIONS = ("X", "Y")
_MARKS = {"A": "Li", "B": "Be", "C": "B", "M": "C", "T": "N", "X": "O", "Y": "F"}
_SECOND_ORIGIN = ("C15", "Cu2Sb", "PbFCl", "ZrCuSiAs", "scheelite", "zircon")


def _fraction(word: str) -> float:
    top, _, bottom = word.partition("/")
    return float(top) / float(bottom or 1)
