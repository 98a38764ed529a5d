"""Labels that structures have from each other are named with whose they are; right ones are not, whatever the model."""

import os
from pathlib import Path

import numpy as np
import pytest
from ase.io import iread

from mlipjax.data import Dataset
from mlipjax.doctor.compared import Compared, Row
from mlipjax.doctor.exchanged import AS_IS, PER_ATOM, find_exchanged
from mlipjax.system import System

N = 48
DATA = Path(os.environ.get("MLIPJAX_DATA", "/nowhere"))
EMPTY = Compared("train", (), Dataset.from_examples([]), [])


def structure(n_atoms):
    return System(np.zeros((n_atoms, 3)), np.full(n_atoms, 14), 9.0 * np.eye(3), (True,) * 3)


def energies(rng, error, spread=3.0, most=30):
    """Structures of 2 to 30 atoms (or all of 2); the model errs with heavy tails, in eV/atom."""
    sizes = rng.integers(2, most + 1, N)
    labels = sizes * (-5.0 + spread * rng.normal(size=N))
    models = labels + sizes * error * rng.standard_t(2.0, size=N)
    return [
        Row(i, np.array([label]), np.array([model]), structure(int(n)))
        for i, (label, model, n) in enumerate(zip(labels, models, sizes, strict=True))
    ]


def stresses(rng, error, spread=0.05):
    labels = spread * rng.normal(size=(N, 6))
    models = labels + error * rng.standard_t(2.0, size=(N, 6))
    return [Row(i, label, model, structure(8)) for i, (label, model) in enumerate(zip(labels, models, strict=True))]


def exchanged(rows, places):
    """Rows of which each of some has the label of the next of them."""
    whose = dict(zip(places, np.roll(places, -1), strict=True))
    return [row._replace(label=rows[whose.get(row.index, row.index)].label) for row in rows], whose


KINDS = {"energies": (energies, 3e-3, PER_ATOM), "stress": (stresses, 1e-3, AS_IS)}


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("n", [8, 24, N])
def test_structures_are_named_with_those_whose_labels_they_have(what, n):
    make, error, measure = KINDS[what]
    rng = np.random.default_rng(n)
    rows, whose = exchanged(make(rng, error), rng.permutation(N)[:n])
    (finding,) = find_exchanged(EMPTY, what, rows, measure)
    assert (finding.severity, finding.check) == ("fatal", "order")
    named = {index for _, index in finding.frames}
    assert len(named & set(whose)) >= 0.7 * n
    assert len(named - set(whose)) <= 0.05 * N
    told = dict(map(int, pair.split(" that of ")) for pair in finding.message.split(": ")[1].split(", ")[:6])
    assert sum(whose.get(index) == other for index, other in told.items()) >= 5


@pytest.mark.parametrize("what", KINDS)
def test_a_model_that_errs_a_lot_in_a_few_structures_finds_nothing(what):
    make, error, measure = KINDS[what]
    for seed in range(40):
        for scale in (1.0, 10.0, 100.0):
            assert find_exchanged(EMPTY, what, make(np.random.default_rng(seed), scale * error), measure) == []


def test_labels_that_lie_close_together_are_nobodys():
    """Of energies that differ by as much as the model errs, any fits any structure: nothing can be said."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows, _ = exchanged(energies(rng, 3e-3, spread=5e-3, most=2), rng.permutation(N)[:12])
        assert find_exchanged(EMPTY, "energies", rows, PER_ATOM) == []
    assert find_exchanged(EMPTY, "energies", energies(rng, 0.0)[:5], PER_ATOM) == []


@pytest.mark.parametrize("name", ["mptrj_1k", "alexandria_1k", "mpf_tp"])
def test_energies_of_real_sets_are_no_false_alarm(name):
    """Labels of real crystals, a model that errs with heavy tails."""
    file = DATA / "materials" / f"{name}.extxyz"
    if not file.is_file():
        pytest.skip("needs the data that MLIPJAX_DATA names")
    rows = [
        Row(i, np.array([atoms.get_potential_energy()]), np.zeros(1), System.from_ase(atoms))
        for i, atoms in enumerate(iread(file, ":128"))
    ]
    for seed in range(30):
        rng = np.random.default_rng(seed)
        chosen = [rows[i] for i in sorted(rng.permutation(len(rows))[:64])]
        for error in (2e-3, 0.02, 0.2):
            wrong = [
                row._replace(model=row.label + row.system.n_atoms * error * rng.standard_t(2.0, 1)) for row in chosen
            ]
            assert find_exchanged(EMPTY, "energies", wrong, PER_ATOM) == []
