"""Bands, states, heat and the file of phonopy, against phonopy's own numbers and against thermodynamics."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from analytic_case import evaluator, known_a0
from ase.build import bulk

from mlipjax.probes.band_path import band_path
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.phonons import phonons
from mlipjax.probes.supercells import primitive
from mlipjax.probes.thermal import PLANCK, thermal_properties
from mlipjax.probes.vacancy import vacancy_formation
from mlipjax.system import System
from mlipjax.units import BOLTZMANN

GOLDEN = json.loads(Path(__file__).with_name("phonopy_golden.json").read_text(encoding="utf-8"))


def silicon(**shape):
    return System.from_ase(bulk("Si", "diamond", a=known_a0(), **shape))


@pytest.fixture(scope="module")
def skewed():
    """The cell of the golden numbers, with an atom outside of it."""
    crystal = silicon()
    cell = np.array(GOLDEN["cells"]["14 degrees"]["matrix"]) @ crystal.cell
    positions = crystal.positions + np.array([[0.0, 0.0, 0.0], cell[0] - 2.0 * cell[2]])
    crystal = dataclasses.replace(crystal, cell=cell, positions=positions)
    displacement, mesh = GOLDEN["displacement"], GOLDEN["thermal"]["mesh"]
    return phonons(evaluator("sw"), crystal, repeat=tuple(GOLDEN["repeat"]), displacement=displacement, mesh=mesh)


def test_heat_is_that_of_phonopy(skewed):
    known = GOLDEN["thermal"]
    found = thermal_properties(skewed.mesh_THz, np.array(known["temperatures_K"]))
    assert found.n_left_out == 0
    for name in ("free_energy_eV", "entropy_eV_per_K", "heat_capacity_eV_per_K"):
        np.testing.assert_allclose(getattr(found, name), known[name], rtol=2e-5, atol=1e-9)


def test_the_file_holds_what_phonopy_finds_in_its_order(skewed, tmp_path):
    skewed.write_phonopy(path := tmp_path / "phonopy.yaml")
    text = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert text["force_constants"]["shape"] == [2, 16]
    found = np.array(text["force_constants"]["elements"]).reshape(2, 16, 3, 3)
    np.testing.assert_allclose(found, GOLDEN["force_constants"], atol=1e-4)
    assert text["supercell_matrix"] == np.diag(GOLDEN["repeat"]).tolist()
    coordinates = np.array([point["coordinates"] for point in text["unit_cell"]["points"]])
    assert ((coordinates >= 0.0) & (coordinates < 1.0)).all()
    away = (coordinates @ np.array(text["unit_cell"]["lattice"]) - skewed.cell.positions) @ np.linalg.inv(
        skewed.cell.cell
    )
    np.testing.assert_allclose(away, np.round(away), atol=1e-9)


def test_phonopy_reads_the_file(skewed, tmp_path):
    phonopy = pytest.importorskip("phonopy", reason="phonopy is no dependency")
    skewed.write_phonopy(path := tmp_path / "phonopy.yaml")
    theirs = phonopy.load(path, log_level=0).run_qpoints(GOLDEN["wave_vectors"]).frequencies
    np.testing.assert_allclose(theirs, skewed.at(GOLDEN["wave_vectors"]), atol=1e-4)


def test_entropy_and_heat_capacity_are_derivatives_of_the_free_energy():
    frequencies = np.random.default_rng(0).uniform(0.5, 30.0, (5, 6))
    at, step = np.array([30.0, 300.0, 900.0]), 0.01
    below, here, above = (thermal_properties(frequencies, at + change) for change in (-step, 0.0, step))
    slope = (above.free_energy_eV - below.free_energy_eV) / (2.0 * step)
    np.testing.assert_allclose(here.entropy_eV_per_K, -slope, rtol=1e-6)
    heat = at * (above.entropy_eV_per_K - below.entropy_eV_per_K) / (2.0 * step)
    np.testing.assert_allclose(here.heat_capacity_eV_per_K, heat, rtol=1e-5)


def test_cold_and_hot_limits_and_what_is_left_out():
    frequencies = np.array([[-2.0, 0.0, 4.0, 6.0]])
    found = thermal_properties(frequencies, np.array([0.0, 1e6]))
    assert found.n_left_out == 2
    assert found.free_energy_eV[0] == pytest.approx(0.5 * PLANCK * 10.0)
    assert found.entropy_eV_per_K[0] == found.heat_capacity_eV_per_K[0] == 0.0
    assert found.heat_capacity_eV_per_K[1] == pytest.approx(2.0 * BOLTZMANN, rel=1e-6)


def test_a_conventional_cell_gives_the_bands_of_the_primitive_one():
    cubic = phonons(evaluator("sw"), silicon(cubic=True))
    small = phonons(evaluator("sw"), silicon())
    assert "of the primitive cell: 2 of the 8 atoms given" in cubic.verdict
    assert "primitive" not in small.verdict
    assert cubic.path.lattice == small.path.lattice == "FCC"
    assert cubic.path.labels == ("Γ", "X", "W", "K", "Γ", "L", "U", "W", "L", "K|U", "X")
    np.testing.assert_allclose(cubic.bands_THz, small.bands_THz, atol=1e-4)
    np.testing.assert_allclose(cubic.thermal.free_energy_eV, small.thermal.free_energy_eV, atol=1e-7)
    # a supercell that was asked for is one of the cell given
    assert phonons(evaluator("sw"), silicon(cubic=True), repeat=(1, 1, 1)).bands_THz.shape[1] == 24


def test_a_crystal_without_symmetry_stays_as_it_is():
    crystal = silicon(cubic=True)
    moved = dataclasses.replace(crystal, positions=crystal.positions + np.random.default_rng(1).normal(0, 0.1, (8, 3)))
    assert primitive(moved) is moved
    found = primitive(crystal)
    assert found.n_atoms == 2
    # the same crystal, as it is turned: each of its atoms lies on one of those given
    away = found.positions[:, None] - crystal.positions
    scaled = away @ np.linalg.inv(crystal.cell)
    assert (np.abs(scaled - np.round(scaled)).max(axis=2).min(axis=1) < 1e-9).all()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_half_of_the_mesh_says_all(n):
    found = phonons(evaluator("sw"), silicon(), repeat=(2, 2, 2), mesh=n)
    whole = found.at([(np.array(index) + 0.5) / n for index in itertools.product(range(n), repeat=3)])
    shown = np.repeat(found.mesh_THz.ravel(), whole.size // found.mesh_THz.size)
    np.testing.assert_allclose(np.sort(shown), np.sort(whole.ravel()), atol=1e-6)


def test_a_path_belongs_to_the_lattice_however_it_is_described():
    a = band_path(System(np.zeros((1, 3)), np.array([12]), bulk("Mg", "hcp").cell.array, (True,) * 3))
    assert (a.lattice, a.labels[:4]) == ("HEX", ("Γ", "M", "K", "Γ"))
    turned = np.array([[1, 0, 0], [2, 1, 0], [0, 1, 1]])
    b = band_path(System(np.zeros((1, 3)), np.array([12]), turned @ bulk("Mg", "hcp").cell.array, (True,) * 3))
    assert b.labels == a.labels
    np.testing.assert_allclose(b.distances, a.distances, atol=1e-9)
    assert np.all(np.diff(a.distances) >= 0.0)


def test_a_lattice_that_wants_to_shear_is_unstable_and_drawn_below_zero():
    cubic = System(np.zeros((1, 3)), np.array([18]), 3.5 * np.eye(3), (True,) * 3)
    found = phonons(evaluator("lj"), cubic, repeat=(4, 4, 4), mesh=8)
    assert "UNSTABLE" in found.verdict
    assert found.thermal.n_left_out > 0
    assert "imaginary below zero" in found.figure().axes[0].get_ylabel()


def test_json_has_bands_and_heat_by_name_and_no_large_arrays(skewed):
    found = json.loads(json.dumps(skewed.as_dict()))
    assert set(found["thermal"]) >= {"temperatures_K", "heat_capacity_eV_per_K"}
    assert len(found["path"]["points"]) == len(found["bands_THz"])
    assert "force_constants" not in found


def test_masses_of_the_file_count_in_the_primitive_cell_too():
    """Heavy atoms vibrate slower by the root of the mass; a sublattice of isotopes is no other crystal."""
    crystal, options = silicon(cubic=True), {"mesh": 4}
    usual = phonons(evaluator("sw"), crystal, **options)
    standard = 28.085
    heavy = dataclasses.replace(crystal, masses=np.full(8, 4.0 * standard))
    found = phonons(evaluator("sw"), heavy, **options)
    assert found.cell.n_atoms == 2
    np.testing.assert_allclose(found.mesh_THz, 0.5 * usual.mesh_THz, rtol=1e-6)
    isotopes = dataclasses.replace(crystal, masses=np.tile([1.0, 2.0], 4) * standard)
    found = phonons(evaluator("sw"), isotopes, **options)
    assert found.cell.n_atoms == 2
    assert sorted(found.masses) == [standard, 2.0 * standard]
    one = dataclasses.replace(crystal, masses=standard * np.array([2.0] + [1.0] * 7))
    assert primitive(one).n_atoms == 8


def test_atoms_that_do_not_feel_each_other_are_no_crystal():
    far = System.from_ase(bulk("Si", "sc", a=9.0))
    with pytest.raises(ValueError, match="too far apart to feel each other"):
        phonons(evaluator("sw"), far, repeat=(1, 1, 1))
    with pytest.raises(ValueError, match="too far apart to feel each other"):
        elastic_constants(evaluator("sw"), far)
    with pytest.raises(ValueError, match="nothing is left of this cell"):
        vacancy_formation(evaluator("sw"), far)
