"""Labels of structures as they stand in a file, in this program's shapes, units and signs.

Names of labels may be given. Otherwise ASE's own name is taken, or one of those that other programs use and that leaves
no doubt; what is taken is said if it is not ASE's. Several sets of labels that differ are refused: one of them may be a
model's prediction.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlipjax.data.label_keys import AUTO, WORDS, LabelKeyError, LabelKeys
from mlipjax.data.labels import check_label
from mlipjax.data.weights import frame_weights
from mlipjax.notices import notice
from mlipjax.system import Labels, stress_matrix

if TYPE_CHECKING:
    from ase import Atoms

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

_ENTROPY = 1e-3  # eV/atom; a smaller difference of energy and free energy is no one's concern
_UNUSED = {"charge": 0.0, "total_charge": 0.0, "spin": 1.0, "total_spin": 1.0, "multiplicity": 1.0}
_MOMENT = 0.1  # Bohr magnetons


class LabelReader:
    """Reads the labels of one structure after another."""

    def __init__(self, keys: LabelKeys) -> None:
        """Prepare for a file, or several of the same kind.

        Raises:
            ValueError: if names are given both for stresses and for virials.
        """
        named = [key not in (AUTO, None) for key in (keys.stress, keys.virial)]
        if all(named):
            raise ValueError(
                f"stresses come from {keys.stress!r} or from the virials {keys.virial!r}; name one of them."
            )
        # what was named, or left out on purpose, is not looked for under the other name
        self._kinds = ("virial",) if named[1] else ("stress", "virial") if keys.stress == AUTO else ("stress",)
        self._finder = _KeyFinder(keys)
        self._zeroed_said = False

    def read(self, atoms: Atoms, where: str) -> Labels:
        """Return the labels of a structure; one that is missing has weight 0.

        Raises:
            ValueError: naming file and structure, if a label's name, shape or value cannot be used.
        """
        found = {name: self._label(atoms, name, where) for name in ("energy", "forces")}
        found["stress"] = self._label(atoms, "stress", where) if "stress" in self._kinds else None
        from_virial = False
        if found["stress"] is None and "virial" in self._kinds:
            found["stress"] = self._from_virial(atoms, where)
            from_virial = found["stress"] is not None
        for name, kinds in (("energy", ("energy",)), ("forces", ("forces",)), ("stress", self._kinds)):
            for kind in kinds if found[name] is None else ():
                self._finder.check_missing(atoms, kind, where)
        energy = None if found["energy"] is None else float(found["energy"])
        labels = Labels.create(len(atoms), energy, found["forces"], found["stress"])
        weights = frame_weights(atoms.info, where, from_virial=from_virial)
        if found["forces"] is not None and _zeroed(atoms, found["forces"]):
            weights["forces"] = 0.0
            self._say_zeroed(where)
        _say_unused(atoms, found["energy"])
        return labels.replace(  # pyright: ignore[reportAttributeAccessIssue]
            **{f"{name}_weight": getattr(labels, f"{name}_weight") * weight for name, weight in weights.items()}
        )

    def _say_zeroed(self, where: str) -> None:
        """Once, for the first of what may be thousands of structures."""
        if not self._zeroed_said:
            notice(
                f"{where}, and maybe others: the forces of fixed atoms are exactly zero, as a relaxation writes them; "
                "the forces of such structures are left out (weight 0), their energies are kept."
            )
        self._zeroed_said = True

    def _label(self, atoms: Atoms, name: str, where: str) -> np.ndarray | None:
        found = self._finder.find(atoms, name, where)
        return None if found is None else check_label(name, found.value, len(atoms), where, found.key)

    def _from_virial(self, atoms: Atoms, where: str) -> np.ndarray | None:
        virial = self._label(atoms, "virial", where)
        if virial is None:
            return None
        if atoms.cell.rank < 3:
            if not virial.any():
                return None
            raise ValueError(f"{where}: a virial needs a cell with a volume, and there is none; leave virials out.")
        return check_label("stress", -virial / atoms.get_volume(), len(atoms), where)


def _zeroed(atoms: Atoms, forces: np.ndarray) -> bool:
    """Say if forces are zero on just the atoms (or components) that constraints fix: then they are no labels there."""
    from ase.constraints import FixAtoms, FixCartesian

    fixed = np.zeros(forces.shape, bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, bool)
    return bool(fixed.any() and not forces[fixed].any() and (forces[~fixed].any() or fixed.all()))


def _say_unused(atoms: Atoms, energy: np.ndarray | None) -> None:
    """Say what a file holds of a structure's electrons, which no model here takes into account."""
    results = {} if atoms.calc is None else atoms.calc.results
    for key, usual in _UNUSED.items():
        value = atoms.info.get(key, usual)
        if isinstance(value, (int, float, np.number)) and value not in (usual, 0):
            notice(f"structures name a {key} other than {usual:g}; models here do not take it into account.")
    moments = _numbers(results.get("magmoms", atoms.arrays.get("initial_magmoms")))
    if np.abs(moments).max(initial=0.0) > _MOMENT:
        notice("structures carry magnetic moments; models here do not take them into account.")
    free = _numbers(results.get("free_energy"))
    if energy is not None and free.size == 1:
        difference = float(free.reshape(())) - float(energy)
        if results.get("energy") == energy and abs(difference) > _ENTROPY * len(atoms):
            notice(
                "energies are those at zero width of smearing ('energy'); forces are the slopes of 'free_energy', "
                "which differs by more than 1 meV/atom. Name 'free_energy' as the key of the energies to train on it."
            )


def _numbers(value: Any) -> np.ndarray:
    """Array of the numbers that are there; an empty one if there is nothing, or something else."""
    try:
        return np.asarray(() if value is None else value, np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)


class Value(NamedTuple):
    """A label as it stands in the file, and its name there."""

    key: str
    value: Any


class _KeyFinder:
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
