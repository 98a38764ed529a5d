"""Units, signs and orders in which a file gives its labels, from a text such as ``energy=Hartree,length=Bohr``.

The text holds names of what is given in another unit, or one of ``PRESETS``, after which more may follow:

- ``energy``: unit of energies; with ``length`` also that of forces, stresses and virials, which follow from both;
- ``forces``, ``stress``, ``virial``: of their own where they are others, such as ``stress=kBar``;
- ``positions``: of positions and cell;
- ``voigt``: the order of six components of a stress or virial: ``ase``, ``vasp`` or ``lammps``, or all six names.

A minus sign before a unit turns the sign: ``stress=-kBar`` is VASP's, compression positive.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from typing import Any

import numpy as np
from ase import units

ENERGIES = {
    "eV": 1.0, "meV": 1e-3, "keV": 1e3, "Hartree": units.Hartree, "Ha": units.Hartree, "Eh": units.Hartree,
    "Rydberg": units.Rydberg, "Ry": units.Rydberg, "kcal/mol": units.kcal / units.mol, "kJ/mol": units.kJ / units.mol,
}  # fmt: skip
"""Units of energy in eV."""
LENGTHS = {"Å": 1.0, "A": 1.0, "Angstrom": 1.0, "Bohr": units.Bohr, "nm": 10.0, "pm": 0.01}
"""Units of length in Å."""
PRESSURES = {
    "GPa": units.GPa, "MPa": 1e-3 * units.GPa, "kPa": 1e-6 * units.GPa, "Pa": units.Pascal, "kBar": 0.1 * units.GPa,
    "bar": units.bar, "atm": 1.01325 * units.bar,
}  # fmt: skip
"""Units of pressure in eV/Å^3."""
PRESETS = {
    "ase": "energy=eV,length=Å",
    "atomic": "energy=Hartree,length=Bohr",
    "rydberg": "energy=Rydberg,length=Bohr",
    "vasp": "energy=eV,length=Å,stress=-kBar,voigt=vasp",
    "real": "energy=kcal/mol,length=Å,stress=-atm,voigt=lammps",
    "gromacs": "energy=kJ/mol,length=nm,stress=-bar",
}
"""Names for units that programs have in common; positions are in Å in all of them."""
_AXES = ("xx", "yy", "zz", "yz", "xz", "xy")
_ORDERS = {"ase": _AXES, "vasp": ("xx", "yy", "zz", "xy", "yz", "zx"), "lammps": ("xx", "yy", "zz", "xy", "xz", "yz")}
_NAMES = ("energy", "length", "forces", "stress", "virial", "positions", "voigt")


@dataclasses.dataclass(frozen=True)
class Units:
    """Factors from a file's numbers to eV, Å and eV/Å^3 with tension positive.

    Attributes:
        energy, forces, stress, virial, positions: factors.
        order: (6,) places of xx, yy, zz, yz, xz, xy among the six components in the file.
    """

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    virial: float = 1.0
    positions: float = 1.0
    order: tuple[int, ...] = (0, 1, 2, 3, 4, 5)

    def convert(self, kind: str, value: Any) -> Any:
        """Return a label ("energy", "forces", "stress" or "virial") converted; what is no number stays as it is."""
        factor, reordered = getattr(self, kind), kind in ("stress", "virial") and self.order != Units.order
        if factor == 1.0 and not reordered:
            return value
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError):
            return value  # whoever checks labels says what it is
        if reordered and array.shape == (6,):
            array = array[list(self.order)]
        return factor * array


def parse_units(text: str) -> Units:
    """Return the factors that a text stands for (see the module); an empty one stands for eV and Å.

    Raises:
        ValueError: naming the part that is not known, and what there is.
    """
    given: dict[str, str] = {}
    for place, part in enumerate(part.strip() for part in text.split(",") if part.strip()):
        name, equal, unit = (word.strip() for word in part.partition("="))
        if not equal and not place and part.lower() in PRESETS:
            given |= dict(pair.split("=") for pair in PRESETS[part.lower()].split(","))  # pyright: ignore[reportArgumentType]
        elif equal and name.lower() in _NAMES:
            given[name.lower()] = unit
        else:
            raise ValueError(
                f"units={text!r}: {part!r} is not known; give {', '.join(PRESETS)}, or pairs such as energy=Hartree of "
                f"{', '.join(_NAMES)}."
            )
    energy, length = (_factor(given.get(name, ""), known, f"{name}={given.get(name)}") for name, known in
                      (("energy", ENERGIES), ("length", LENGTHS)))  # fmt: skip
    factors = {"energy": energy}
    if "length" in given:
        factors |= {"forces": energy / length, "stress": energy / length**3, "virial": energy}
    for kind, known in (("forces", {}), ("stress", PRESSURES), ("virial", ENERGIES), ("positions", LENGTHS)):
        if kind in given:
            factors[kind] = _factor(given[kind], known, f"{kind}={given[kind]}", powers={"forces": 1, "stress": 3})
    return Units(**factors, order=_order(given.get("voigt", "ase")))


def _factor(unit: str, known: dict[str, float], what: str, powers: dict[str, int] | None = None) -> float:
    """Factor of a unit, of those known or an energy over a power of a length."""
    if not unit:
        return 1.0
    sign, name = (-1.0, unit[1:]) if unit.startswith("-") else (1.0, unit)
    if (found := _lookup(name, known)) is not None:
        return sign * found
    power = (powers or {}).get(what.split("=")[0])
    if power is not None:
        top, _, bottom = name.rpartition("/")
        bottom = re.sub(r"(\^|\*\*)?3$|³$", "", bottom) if power == 3 else bottom
        energy, length = _lookup(top, ENERGIES), _lookup(bottom, LENGTHS)
        if energy is not None and length is not None:
            return sign * energy / length**power
    options = [*known, *(["kcal/mol/Å", "Hartree/Bohr"] if power == 1 else ["eV/Å^3"] if power == 3 else [])]
    close = difflib.get_close_matches(name, options, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(options)}, and others alike."
    raise ValueError(f"units: {what} is not known; {hint}")


def _lookup(name: str, known: dict[str, float]) -> float | None:
    if name in known:
        return known[name]
    return next((value for key, value in known.items() if key.lower() == name.lower()), None)


def _order(text: str) -> tuple[int, ...]:
    names = _ORDERS.get(text.lower(), tuple(re.findall(r"[xyz]{2}", text.lower())))
    places = [next((i for i, name in enumerate(names) if sorted(name) == sorted(axis)), None) for axis in _AXES]
    if len(names) != 6 or None in places:
        raise ValueError(
            f"units: voigt={text} is not known; give ase, vasp, lammps or six names such as xx-yy-zz-xy-yz-zx."
        )
    return tuple(place for place in places if place is not None)
