"""Numbers that belong to another structure are no label of this one."""

import dataclasses

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from mlipjax.data.labels import BadLabelError
from mlipjax.oracles import Failure, Labeller, LabelStore
from mlipjax.oracles.ase_calculator import evaluate
from mlipjax.oracles.stale import RecentLabels, is_same_structure
from mlipjax.oracles.workers import SerialExecutor
from mlipjax.system import Labels, System


def crystal(seed=0):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    return System.from_ase(atoms)


class Remembering(Calculator):
    """Computes once, and then says that nothing has to be computed."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Springs to the origin."""
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": 0.5 * float(np.sum(atoms.positions**2)), "forces": -atoms.positions}

    def calculation_required(self, atoms, properties):
        return self.atoms is None

    def get_property(self, name, atoms=None, allow_calculation=True):
        if self.atoms is None:
            self.calculate(atoms)
        return self.results[name]


class Repeating:
    """An oracle whose every other result is that of the structure before."""

    jittable, name, identity = False, "repeating", "repeating"

    def __init__(self):
        self.calls, self.last = 0, None

    def label(self, system):
        self.calls += 1
        if self.calls % 2:
            self.last = Labels.create(system.n_atoms, np.sum(system.positions**2), -np.asarray(system.positions))
        return self.last


def test_what_a_calculator_remembers_is_no_label_of_another_structure():
    calculator = Remembering()
    assert evaluate(calculator, crystal(0)).energy > 0.0
    with pytest.raises(BadLabelError, match="belong to another structure"):
        evaluate(calculator, crystal(1))
    # one that computes anew may be used again and again
    again = EMT()
    energies = [float(evaluate(again, crystal(seed)).energy) for seed in range(3)]
    assert len(set(energies)) == 3


def test_labels_that_come_again_for_another_structure_are_not_stored(tmp_path):
    given = [crystal(seed) for seed in range(4)]
    with Labeller(Repeating(), tmp_path / "labels.db", executor=SerialExecutor(), retries=0) as labeller:
        found = labeller.label(given)
    assert [isinstance(one, Failure) for one in found] == [False, True, False, True]
    assert "those of another structure" in found[1].reason
    assert len(LabelStore(tmp_path / "labels.db")) == 2


def test_the_same_structure_may_have_the_same_labels():
    recent, system = RecentLabels(), crystal()
    labels = Labels.create(system.n_atoms, -1.0, np.ones((system.n_atoms, 3)))
    assert not recent.repeats(system, labels)
    positions = np.asarray(system.positions)
    wrapped = dataclasses.replace(system, positions=positions + np.eye(4, 3) @ system.cell + 0.3)
    assert not recent.repeats(wrapped, labels)
    moved = dataclasses.replace(system, positions=positions + 0.01 * np.eye(4, 3))
    assert recent.repeats(moved, labels)
    # whoever ignores elements or the cell says the same for all of them
    assert not recent.repeats(dataclasses.replace(system, atomic_numbers=np.full(4, 47)), labels)
    assert not recent.repeats(dataclasses.replace(system, pbc=(True, True, False)), labels)
    # far from each other no atom feels another, wherever they are
    free = Labels.create(system.n_atoms, -1.0, np.zeros((system.n_atoms, 3)))
    assert not recent.repeats(system, free)
    assert not recent.repeats(moved, free)


def test_structures_are_one_up_to_lattice_vectors_and_a_shift():
    water = System.from_ase(molecule("H2O"))
    assert is_same_structure(water, dataclasses.replace(water, positions=np.asarray(water.positions) + 5.0))
    assert not is_same_structure(water, dataclasses.replace(water, positions=np.asarray(water.positions)[::-1]))
    assert not is_same_structure(water, crystal())
    stretched = dataclasses.replace(crystal(), cell=1.01 * np.asarray(crystal().cell))
    assert not is_same_structure(crystal(), stretched)
