"""Readings of published frames: contacts, what extrapolates, bonds, and the refusal without data."""

import numpy as np
import pytest
from ase import Atoms

from experiments.bias import __main__ as bias
from experiments.lab.s0 import bond_events, extrapolates, load_arms, shortest_contacts
from mlipjax.data import Dataset
from mlipjax.models import registry
from mlipjax.system import Labels, System


def pair(symbols, distance):
    atoms = Atoms(symbols, [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]], cell=[12.0] * 3, pbc=True)
    return System.from_ase(atoms)


def dataset(*systems):
    return Dataset(systems, tuple(Labels.create(s.n_atoms) for s in systems), tuple({} for _ in systems))


def test_contacts_are_found_through_the_boundary_and_only_within_reach():
    atoms = Atoms("HClO", [[0.1, 0.0, 0.0], [11.0, 0.0, 0.0], [6.0, 6.0, 6.0]], cell=[12.0] * 3, pbc=True)
    contacts = shortest_contacts(System.from_ase(atoms))
    assert contacts.keys() == {(1, 17)}
    assert contacts[1, 17] == pytest.approx(1.1)


def test_a_frame_extrapolates_if_a_contact_is_shorter_or_new():
    train = dataset(pair("HCl", 2.0), pair("HCl", 1.8))
    test = dataset(pair("HCl", 1.9), pair("HCl", 1.7), pair("HO", 3.0), pair("HO", 5.0))
    np.testing.assert_array_equal(extrapolates(train, test), [False, True, True, False])


def test_bonds_are_counted_once():
    water = System.from_ase(Atoms("OHH", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]], cell=[12.0] * 3, pbc=True))
    events = bond_events([water, pair("HCl", 1.3), pair("HCl", 1.7), pair("CoCl", 2.4)])
    assert events["O-H"] == [2.0, 0.0, 0.0, 0.0]
    assert events["H-Cl"] == [0.0, 1.0, 0.0, 0.0]
    assert events["Co coordination"] == [0.0, 0.0, 0.0, 1.0]


def test_without_the_published_frames_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "none"))
    assert bias.run(["--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the published frames")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("system", ["liclcocl2", "chclca"])
def test_no_group_is_in_training_and_test(system):
    if not (registry.data_folder() / system).is_dir():
        pytest.skip(f"the published frames of {system} are not at hand (MLIPJAX_DATA)")
    for arm in load_arms(system):
        key = {"naive": "run", "periodic": "round"}.get(arm.name)
        if key is not None:
            train, test = ({info[key] for info in part.infos} for part in (arm.train, arm.test))
            assert not train & test
        assert len(arm.train) > len(arm.test) > 0
