"""Energies, forces and stresses of one calculation belong together by the work on the way between structures."""

import functools

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlipjax
from mlipjax import tree
from mlipjax.data import Dataset, Example
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.work import check_work
from mlipjax.system import Labels, System
from mlipjax.train import LabelledBatches, predict

N = 24


def strained_crystal(seed):
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True)
    atoms.set_cell(atoms.cell.array * (1.0 + np.random.default_rng(seed).normal(0.0, 0.015)), scale_atoms=True)
    return atoms


def crystal(seed):
    return bulk("SiC", "zincblende", a=4.36, cubic=True)


def ethanol(seed):
    return molecule("CH3CH2OH")


@functools.cache
def frames(make):
    """Rattled structures and what the embedded model says of them."""
    potential, params = mlipjax.load("universal")
    systems = []
    for seed in range(N):
        atoms = make(seed)
        atoms.rattle(0.05, seed=seed)
        systems.append(System.from_ase(atoms))
    dataset = Dataset.from_examples(Example(system, Labels.create(system.n_atoms), {}) for system in systems)
    batches = LabelledBatches.create(potential, dataset, 8)
    found = predict(potential, tree.cast(params, "float32"), batches)
    return systems, list(found)


def checked(make, *, energy=1.0, force=1.0, stress=1.0, move=0.0):
    """Findings on labels that are the model's own numbers times factors."""
    systems, found = frames(make)
    rng = np.random.default_rng(7)
    examples = []
    for system, one in zip(systems, found, strict=True):
        forces = force * one.forces + rng.normal(scale=0.02, size=one.forces.shape)
        value = energy * one.energy + rng.normal(scale=0.002)
        periodic = any(system.pbc)
        labels = Labels.create(system.n_atoms, value, forces, stress * one.stress if periodic else None)
        # a periodic structure may be written with its atoms in any cell
        positions = np.asarray(system.positions) + move * rng.integers(-1, 2, (system.n_atoms, 1)) * system.cell[0]
        examples.append(Example(System(positions, system.atomic_numbers, system.cell, system.pbc), labels, {}))
    return check_work(Compared("train", tuple(range(N)), Dataset.from_examples(examples), found))


def found_factor(finding):
    return float(finding.message.split(" ± ")[0].split()[-1])


@pytest.mark.parametrize("make", [crystal, strained_crystal, ethanol])
def test_labels_of_one_calculation_are_right_whatever_the_level(make):
    assert checked(make) == []
    assert checked(make, energy=1.15, force=1.15, stress=1.15) == []
    assert checked(make, energy=0.8, force=0.8, stress=0.8) == []


@pytest.mark.parametrize("make", [crystal, strained_crystal, ethanol])
def test_a_factor_on_forces_and_stresses_alone_is_found(make):
    (finding,) = checked(make, force=1.15, stress=1.15)
    assert (finding.severity, finding.check) == ("warning", "work")
    assert found_factor(finding) == pytest.approx(1.0 / 1.15, abs=0.02)


def test_a_factor_on_energies_alone_is_found():
    (finding,) = checked(crystal, energy=1.2)
    assert found_factor(finding) == pytest.approx(1.2, abs=0.03)


def test_the_cell_in_which_an_atom_is_written_does_no_work():
    assert checked(strained_crystal, move=1.0) == []
    assert len(checked(strained_crystal, force=1.15, stress=1.15, move=1.0)) == 1


def test_other_atoms_are_no_pair():
    systems, found = frames(crystal)
    turned = [
        System(s.positions, np.roll(np.sort(s.atomic_numbers), row % 7), s.cell, s.pbc) for row, s in enumerate(systems)
    ]
    labels = [Labels.create(8, one.energy, 1.5 * one.forces) for one in found]
    examples = [Example(system, label, {}) for system, label in zip(turned, labels, strict=True)]
    assert check_work(Compared("train", tuple(range(N)), Dataset.from_examples(examples), found)) == []
