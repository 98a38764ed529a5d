"""Under which names a file stores energies, forces, stresses and virials.

A name may be given. Otherwise ASE's own name is taken, or one of those that other programs use and that leaves no
doubt; what is taken is said if it is not ASE's. Several sets of labels that differ are refused: one of them may be a
model's prediction.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlipjax.data.label_units import Units
from mlipjax.notices import notice
from mlipjax.system import stress_matrix

if TYPE_CHECKING:
    from ase import Atoms

AUTO = "auto"
"""Take ASE's name, or a well-known one."""
KINDS = ("energy", "forces", "stress", "virial")
WORDS = {"energy": "energies", "forces": "forces", "stress": "stresses", "virial": "virials"}

_LEVEL = r"(?:ref|reference|dft|qm|vasp|cp2k|qe|aims|true|target|label)"
_KNOWN = {
    "energy": rf"{_LEVEL}_(?:total_)?energy|energy_{_LEVEL}|energies_\w+|tot(?:al)?_?energy",
    "forces": rf"{_LEVEL}_forces?|forces?_{_LEVEL}|forces_\w+|force",
    "stress": rf"{_LEVEL}_stress(?:es)?|stress_{_LEVEL}|stresses_\w+",
    "virial": rf"{_LEVEL}_virials?|virials?_{_LEVEL}|virials?",
}
_PATTERNS = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in _KNOWN.items()}
_RESEMBLE = {"energy": "energy", "forces": "force", "stress": "stress", "virial": "virial"}
# names that are taken only if there is nothing else: forces belong to it, but it is not what most data sets mean
_LAST = {"energy": "free_energy"}


@dataclasses.dataclass(frozen=True)
class LabelKeys:
    """Names under which a file stores its labels, and their units.

    Attributes:
        energy: total energies; ``AUTO`` looks for known names, ``None`` leaves energies out on purpose.
        forces: forces, likewise.
        stress: stresses, tension positive, likewise.
        virial: virials, minus stress times volume, in place of stresses; likewise.
        units: of all of them; by default eV, eV/Å and eV/Å^3.
    """

    energy: str | None = AUTO
    forces: str | None = AUTO
    stress: str | None = AUTO
    virial: str | None = AUTO
    units: Units = dataclasses.field(default_factory=Units)


class LabelKeyError(ValueError):
    """A name of labels that cannot be found, or that has to be chosen.

    Attributes:
        kinds: the labels concerned, of ``KINDS``.
    """

    def __init__(self, message: str, *kinds: str) -> None:
        """Keep the message and the labels concerned."""
        super().__init__(message)
        self.kinds = kinds


class Value(NamedTuple):
    """A label as it stands in the file, and its name there."""

    key: str
    value: Any


class KeyFinder:
    """Finds the labels of one structure after another, under the same name in all of them."""

    def __init__(self, keys: LabelKeys) -> None:
        """Remember which names were given."""
        self.keys = keys
        self._taken: dict[str, tuple[str, str]] = {}

    def find(self, atoms: Atoms, kind: str, where: str) -> Value | None:
        """Return a label of a structure, ``None`` if it has none or was left out.

        Raises:
            LabelKeyError: if several names are possible, a similar one may be meant, or structures before this one
                have the label under another name.
        """
        key = getattr(self.keys, kind)
        if key is None:
            return None
        if key != AUTO:
            return next((Value(key, store[key]) for store in _stores(atoms) if key in store), None)
        taken = self._taken.get(kind, (None,))[0]
        found = _automatic(atoms, kind, where, taken)
        if found is not None:
            self._agree(kind, found.key, where)
        return found

    def find_beside(self, atoms: Atoms, kind: str) -> np.ndarray | None:
        """Return a stress or virial (3, 3) that is there although another label is used, if it is one and left in."""
        try:
            found = _automatic(atoms, kind, "", None) if getattr(self.keys, kind) == AUTO else None
        except LabelKeyError:
            return None
        return None if found is None else stress_matrix(np.asarray(found.value, np.float64))

    def is_label(self, name: str) -> bool:
        """Return whether a name is one of labels: one that was given, ASE's, or a well-known one."""
        given = {getattr(self.keys, kind) for kind in KINDS}
        return name in KINDS or name in given or any(pattern.fullmatch(name) for pattern in _PATTERNS.values())

    def check_missing(self, atoms: Atoms, kind: str, where: str) -> None:
        """Refuse a name that looks like a label which is not there.

        Raises:
            LabelKeyError: if there is one.
        """
        key = getattr(self.keys, kind)
        similar = [] if key is None else list(_similar(atoms, kind))
        if similar:
            under = f" under {key if key != AUTO else kind!r}"
            raise LabelKeyError(
                f"{where}: no {kind}{under}, but {similar[0]!r} looks like it. Name it as the key of the "
                f"{WORDS[kind]} if it holds them in ASE's units and sign, or leave {WORDS[kind]} out.",
                kind,
            )

    def _agree(self, kind: str, key: str, where: str) -> None:
        first, place = self._taken.setdefault(kind, (key, where))
        if first != key:
            raise LabelKeyError(
                f"{where}: {WORDS[kind]} under {key!r}, but {place} has them under {first!r}; name one key.", kind
            )
        if place == where and (key != kind or kind == "virial"):
            convention = " (stress is minus virial over volume)" if kind == "virial" else ""
            notice(f"{WORDS[kind]} are read from {key!r}{convention}.")


def _stores(atoms: Atoms) -> list[Mapping[str, Any]]:
    results = atoms.calc.results if atoms.calc is not None else {}
    return [results, atoms.info, atoms.arrays]


def _automatic(atoms: Atoms, kind: str, where: str, taken: str | None) -> Value | None:
    stores = _stores(atoms)
    own = None if kind == "virial" else next((Value(kind, s[kind]) for s in stores if kind in s), None)
    known = [
        Value(name, value)
        for store in stores
        for name, value in store.items()
        if _PATTERNS[kind].fullmatch(name) and _fits(value, kind, len(atoms))
    ]
    if own is None and not known and _LAST.get(kind) in stores[0]:
        return Value(_LAST[kind], stores[0][_LAST[kind]])
    candidates = [*([] if own is None else [own]), *known]
    if not candidates:
        return None
    for other in candidates[1:]:
        if not _same(candidates[0].value, other.value, kind):
            names = " and ".join(repr(candidate.key) for candidate in (candidates[0], other))
            raise LabelKeyError(
                f"{where}: {names} both hold {WORDS[kind]}, and they differ; one may be a model's. Name the key of the "
                f"{WORDS[kind]} that are the labels.",
                kind,
            )
    return next((candidate for candidate in candidates if candidate.key == taken), candidates[0])


def unknown_numbers(atoms: Atoms) -> list[str]:
    """Names of whatever has the shape of an energy, forces or a stress; a whole number counts or names something."""
    known = ("positions", "momenta", "numbers")
    return [
        str(name)
        for store in _stores(atoms)
        for name, value in store.items()
        if name not in known
        and not isinstance(value, int | np.integer)
        and any(_fits(value, kind, len(atoms)) for kind in ("energy", "forces", "stress"))
    ]


def _similar(atoms: Atoms, kind: str) -> Iterator[str]:
    for store in _stores(atoms):
        for name, value in store.items():
            weight = name.endswith("_weight")
            if _RESEMBLE[kind] in name.lower() and not weight and _fits(value, kind, len(atoms)):
                yield name


def _fits(value: Any, kind: str, n_atoms: int) -> bool:
    """Return whether a value has the shape of a label."""
    try:
        array = np.asarray(value)
    except ValueError:  # a ragged list
        return False
    if not np.issubdtype(array.dtype, np.number):
        return False
    if kind == "energy":
        return array.size == 1
    return array.shape == (n_atoms, 3) if kind == "forces" else array.shape in ((6,), (9,), (3, 3))


def _same(first: Any, second: Any, kind: str) -> bool:
    """Return whether two names hold the same labels; a stress may stand in two shapes."""
    try:
        a, b = np.asarray(first, float), np.asarray(second, float)
    except (TypeError, ValueError):
        return False
    if kind in ("stress", "virial"):
        a, b = (stress_matrix(one) if one.size in (6, 9) else one for one in (a, b))
    return a.size == b.size and np.allclose(a.ravel(), b.ravel(), rtol=1e-6, atol=1e-6)
