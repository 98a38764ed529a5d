"""Labels of structures as they stand in a file, in this program's shapes, units and signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.label_keys import AUTO, KeyFinder, LabelKeys
from mlipjax.data.labels import check_label
from mlipjax.data.weights import frame_weights
from mlipjax.notices import notice
from mlipjax.system import Labels

if TYPE_CHECKING:
    from ase import Atoms

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
        self._finder = KeyFinder(keys)
        self._units = keys.units
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

    def without_labels(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Information without labels: those that were read have another place, unit or sign now."""
        return {name: value for name, value in info.items() if not self._finder.is_label(name)}

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
        if found is None:
            return None
        return check_label(name, self._units.convert(name, found.value), len(atoms), where, found.key)

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
    """Whether forces are zero on just the atoms (or components) that constraints fix: then they are no labels there."""
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
