"""Notes on labels when a published model was trained with DFT+U."""

import warnings

import pytest
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mlipjax import read
from mlipjax.models.registry import known_entries
from mlipjax.notices import Notice
from mlipjax.verbs.dispersion import say_level


def labelled(*structures):
    for atoms in structures:
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=0.0 * atoms.positions + 0.1)
    return read(list(structures))


OXIDE, METAL, WATER, RUTILE = bulk("NiO", "rocksalt", a=4.17), bulk("Ni"), molecule("H2O"), bulk("SrO", "rocksalt", a=5)


def test_oxides_of_elements_with_a_u_are_counted():
    with pytest.warns(Notice, match=r"PBE\+U: 1 of 4 structures hold Ni with O or F, which have a U there"):
        say_level("nequix-mp-1", labelled(OXIDE, METAL, WATER, RUTILE))


@pytest.mark.parametrize(
    ("model", "structure"),
    [("nequix-mp-1", METAL), ("nequix-mp-1", WATER), ("universal", OXIDE), ("runs/mine", OXIDE)],
    ids=["metal", "water", "model without U", "own model"],
)
def test_nothing_is_said_where_no_u_is(model, structure):
    dataset = labelled(structure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_level(model, dataset)


def test_every_published_model_says_what_its_energies_are():
    for entry in known_entries():
        assert entry.hubbard_u == bool(entry.hubbard_elements)
        assert ("VASP" in entry.energies) == (entry.functional != "GFN1-xTB" and "wB97M" not in entry.functional)
