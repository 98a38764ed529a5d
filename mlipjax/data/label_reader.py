"""Labels of structures as they stand in a file, in this program's shapes, units and signs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.data.atoms import numbers
from mlipjax.data.label_keys import AUTO, KeyFinder, LabelKeys, unknown_numbers
from mlipjax.data.label_units import Units
from mlipjax.data.labels import check_label
from mlipjax.data.products import NAMES, read_product
from mlipjax.data.weights import frame_weights
from mlipjax.notices import notice
from mlipjax.system import Labels

if TYPE_CHECKING:
    from ase import Atoms

_ALIKE = 0.01  # stresses and virials of one calculation differ by rounding
_ENTROPY = 1e-3  # eV/atom; a smaller difference of energy and free energy is no one's concern


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
        self._contradicted = False
        self._labelled = False
        self._unknown: tuple[str, str] | None = None

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
        elif found["stress"] is not None and "virial" in self._kinds:
            self._compare_virial(atoms, found["stress"], where)
        for name, kinds in (("energy", ("energy",)), ("forces", ("forces",)), ("stress", self._kinds)):
            for kind in kinds if found[name] is None else ():
                self._finder.check_missing(atoms, kind, where)
        energy = None if found["energy"] is None else float(found["energy"])
        products = None
        if not NAMES.isdisjoint(atoms.arrays):
            products = read_product(atoms, where, in_ase_units=self._units == Units())
        labels = Labels.create(len(atoms), energy, found["forces"], found["stress"], properties=products)
        self._labelled = self._labelled or products is not None or any(label is not None for label in found.values())
        if not self._labelled and self._unknown is None:
            self._unknown = (where, ", ".join(unknown_numbers(atoms)))
        weights = frame_weights(atoms.info, where, from_virial=from_virial)
        if found["forces"] is not None and _zeroed(atoms, found["forces"]):
            weights["forces"] = 0.0
            if not self._zeroed_said:  # once, for the first of what may be thousands of structures
                notice(
                    f"{where}, and maybe others: the forces of fixed atoms are exactly zero, as a relaxation writes "
                    "them; the forces of such structures are left out (weight 0), their energies are kept."
                )
            self._zeroed_said = True
        _say_entropy(atoms, found["energy"])
        return labels.replace(  # pyright: ignore[reportAttributeAccessIssue]
            **{f"{name}_weight": getattr(labels, f"{name}_weight") * weight for name, weight in weights.items()}
        )

    def finish(self) -> None:
        """Say what the first structure holds under unknown names, if no structure had a label under a known one."""
        if not self._labelled and self._unknown is not None and self._unknown[1]:
            where, names = self._unknown
            notice(
                f"{where}, and all others: no label has a known name; there are numbers called {names}. If they are "
                "labels, name them (energy_key, forces_key, stress_key, virial_key)."
            )

    def _compare_virial(self, atoms: Atoms, stress: np.ndarray, where: str) -> None:
        """Once, for the first structure that holds both and means different things by them."""
        virial = None if self._contradicted or atoms.cell.rank < 3 else self._finder.find_beside(atoms, "virial")
        if virial is not None and np.abs(virial / -atoms.get_volume() - stress).max() > _ALIKE * np.abs(stress).max():
            self._contradicted = True
            notice(
                f"{where}, and maybe others: the virials are not minus volume times the stresses; stresses are used "
                '(stress_key="none" takes the virials, virial_key="none" keeps the stresses).'
            )

    def without_labels(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Information without labels: those that were read have another place, unit or sign now."""
        return {name: value for name, value in info.items() if not self._finder.is_label(name)}

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
    """Tell whether forces are zero on just the atoms (or components) that constraints fix: no labels there."""
    from ase.constraints import FixAtoms, FixCartesian

    fixed = np.zeros(forces.shape, bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            fixed[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            fixed[constraint.index] |= np.asarray(constraint.mask, bool)
    return bool(fixed.any() and not forces[fixed].any() and (forces[~fixed].any() or fixed.all()))


def _say_entropy(atoms: Atoms, energy: np.ndarray | None) -> None:
    """Say that a file's energies are not those that its forces belong to, if they differ."""
    results = {} if atoms.calc is None else atoms.calc.results
    free = numbers(results.get("free_energy"))
    if energy is not None and free.size == 1:
        difference = float(free.reshape(())) - float(energy)
        if results.get("energy") == energy and abs(difference) > _ENTROPY * len(atoms):
            notice(
                "energies are those at zero width of smearing ('energy'); forces are the slopes of 'free_energy', "
                "which differs by more than 1 meV/atom. Name 'free_energy' as the key of the energies to train on it."
            )
