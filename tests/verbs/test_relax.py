"""Relaxation: ASE's optimiser is the reference, Stillinger-Weber silicon and Lennard-Jones argon the crystals."""

import json
import re

import numpy as np
import pytest
import tyro
from analytic_case import PARAMS, known_a0, potential_of
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.lj import LennardJones
from ase.constraints import FixAtoms, FixBondLength, FixCartesian
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.optimize import BFGS

import mlipjax
from mlipjax import Calculator
from mlipjax.cli import main
from mlipjax.cli import relax as relax_command
from mlipjax.notices import Notice
from mlipjax.units import GPA
from mlipjax.verbs import relax

SW, LJ = (potential_of("sw"), PARAMS), (potential_of("lj"), PARAMS)


def rattled_silicon(seed=0, strain=0.02):
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", "diamond", a=5.5)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


def by_ase(atoms, potential, cell="none", pressure=0.0):
    found = atoms.copy()
    found.calc = Calculator(*potential)
    filters = {"none": lambda a: a, "full": FrechetCellFilter, "volume": FrechetCellFilter}
    options = {} if cell == "none" else {"hydrostatic_strain": cell == "volume", "scalar_pressure": pressure * GPA}
    BFGS(filters[cell](found, **options), logfile=None).run(fmax=1e-4, steps=500)
    return found


@pytest.mark.parametrize(("cell", "pressure"), [("none", 0.0), ("volume", 0.0), ("full", 0.0), ("full", 8.0)])
def test_energies_and_cells_are_those_of_ase(cell, pressure):
    atoms = rattled_silicon()
    found = relax(SW, atoms, cell=cell, pressure=pressure, fmax=1e-4, steps=2000)
    expected = by_ase(atoms, SW, cell, pressure)
    assert found.converged
    assert found.fmax < 1e-4
    difference = (found.atoms.get_potential_energy() - expected.get_potential_energy()) / len(atoms)
    assert abs(difference) < 1e-5
    np.testing.assert_allclose(found.atoms.cell.cellpar()[:3], expected.cell.cellpar()[:3], atol=1e-3)
    np.testing.assert_allclose(found.atoms.get_stress(), expected.get_stress(), atol=2e-5)
    if cell == "none":
        assert np.array_equal(found.atoms.cell.array, atoms.cell.array)


def test_a_crystal_finds_its_lattice_constant_and_its_symmetry_again():
    found = relax(SW, rattled_silicon(seed=3), cell="full", fmax=1e-4, steps=2000)
    np.testing.assert_allclose(found.atoms.cell.cellpar()[:3] * np.sqrt(2.0), known_a0(), atol=1e-3)
    numbers = found.as_dict()
    assert numbers["before"]["space_group"] == "P-1 (2)"
    assert numbers["after"]["space_group"] == "Fd-3m (227)"
    assert json.loads(json.dumps(numbers)) == numbers


def test_pressure_is_on_the_outside():
    found = relax(SW, bulk("Si", "diamond", a=5.5), cell="volume", pressure=5.0, fmax=1e-5, steps=2000)
    np.testing.assert_allclose(found.atoms.get_stress()[:3] / GPA, -5.0, atol=1e-2)
    assert found.atoms.cell.volume < bulk("Si", "diamond", a=known_a0()).cell.volume
    assert found.energy_change < 0  # of the enthalpy


def test_structures_of_the_same_atoms_go_side_by_side_and_others_too():
    frames = [rattled_silicon(1), bulk("Si", "diamond", a=5.4, cubic=True), rattled_silicon(2)]
    frames[1].rattle(0.05, seed=3)
    found = relax(SW, frames, cell="full", fmax=1e-3, steps=2000)
    for atoms, one in zip(frames, found, strict=True):
        alone = relax(SW, atoms, cell="full", fmax=1e-3, steps=2000)
        assert one.converged
        assert one.atoms.get_potential_energy() == pytest.approx(alone.atoms.get_potential_energy(), abs=1e-6)
        np.testing.assert_array_equal(one.initial.positions, atoms.positions)


def test_fixed_atoms_stay_and_count_for_nothing():
    atoms = fcc111("Ar", (2, 2, 3), a=5.3, vacuum=8.0)
    atoms.rattle(0.1, seed=1)
    fixed = np.arange(4)
    atoms.set_constraint(FixAtoms(fixed))
    found = relax(LJ, atoms, fmax=1e-3, steps=2000)
    assert found.converged
    np.testing.assert_array_equal(found.atoms.positions[fixed], atoms.positions[fixed])
    assert np.linalg.norm(found.atoms.get_forces(apply_constraint=False)[fixed], axis=1).max() > 1e-3
    assert len(found.atoms.constraints) == 1
    assert found.as_dict()["after"]["max_force_eV_per_A"] <= found.fmax + 1e-9
    expected = by_ase(atoms, LJ)
    assert found.atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-4)


def test_a_coordinate_that_a_constraint_holds_stays():
    atoms = rattled_silicon()
    atoms.set_constraint(FixCartesian(0, (True, False, False)))
    found = relax(SW, atoms, fmax=1e-3, steps=2000)
    assert found.converged
    assert found.atoms.positions[0, 0] == atoms.positions[0, 0]
    assert np.abs(found.atoms.positions - atoms.positions)[:, 1:].min() > 1e-4
    assert found.as_dict()["after"]["max_force_eV_per_A"] <= found.fmax + 1e-9


def test_the_vacuum_of_a_slab_keeps_its_height():
    atoms = fcc111("Ar", (1, 1, 3), a=5.5, vacuum=8.0)
    with pytest.warns(Notice, match="along its periodic vectors only"):
        found = relax(LJ, atoms, cell="full", fmax=1e-3, steps=2000)
    assert found.converged
    np.testing.assert_allclose(found.atoms.cell[2], atoms.cell[2], atol=1e-12)
    assert np.linalg.norm(found.atoms.cell[0]) < np.linalg.norm(atoms.cell[0])
    assert abs(found.atoms.get_stress()[:2]).max() < 1e-4


def test_momenta_that_are_not_used_are_said():
    atoms = rattled_silicon(6)
    atoms.set_momenta(np.ones((len(atoms), 3)))
    with pytest.warns(Notice, match="its momenta are not used; what is relaxed is at rest"):
        assert not relax(SW, atoms, fmax=1e-2).atoms.has("momenta")


def test_a_cell_relaxes_relative_to_fixed_atoms():
    atoms = rattled_silicon(5)
    atoms.set_constraint(FixAtoms([0]))
    with pytest.warns(Notice, match="1 fixed atoms keep their place relative to the cell"):
        found = relax(SW, atoms, cell="full", fmax=1e-3, steps=2000)
    np.testing.assert_allclose(
        found.atoms.get_scaled_positions(wrap=False)[0], atoms.get_scaled_positions(wrap=False)[0], atol=1e-12
    )


def test_the_path_leads_from_start_to_end_downhill():
    found = relax(SW, rattled_silicon(4), cell="full", fmax=1e-2, keep_path=True)
    energies = [atoms.get_potential_energy() for atoms in found.path]
    assert len(found.path) == found.steps
    assert energies[0] == pytest.approx(found.initial.get_potential_energy(), abs=1e-9)
    assert energies[-1] == pytest.approx(found.atoms.get_potential_energy(), abs=1e-9)
    np.testing.assert_allclose(found.path[-1].positions, found.atoms.positions, atol=1e-12)
    assert energies[-1] < energies[0]


def test_what_is_not_converged_says_so():
    found = relax(SW, rattled_silicon(6), steps=3, fmax=1e-6)
    assert not found.converged
    assert found.fmax > 1e-6
    assert found.steps == 3


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda a: None, {"pressure": 1.0}, 'choose cell="volume" or cell="full"'),
        (lambda a: None, {"cell": "shape"}, "none, volume or full"),
        (lambda a: None, {"fmax": 0.0}, "positive"),
        (lambda a: None, {"steps": 0}, "1 or more"),
        (lambda a: a.set_pbc(False), {"cell": "full"}, "structure 0: only a structure that is periodic"),
        (lambda a: a.set_pbc((1, 1, 0)), {"cell": "full", "pressure": 1.0}, "periodic along all three"),
        (lambda a: a.set_constraint(FixBondLength(0, 1)), {}, "structure 0: the constraint FixBondLength"),
        (lambda a: a.set_constraint(FixAtoms([0, 1])), {}, "all 2 atoms are fixed"),
        (lambda a: a.set_chemical_symbols("SiGe"), {}, "structure 0: this potential does not know Ge"),
        (lambda a: None, {"head": "r2scan"}, "found 'r2scan'"),
    ],
)
def test_what_cannot_be_honoured_is_refused(change, options, message):
    atoms = rattled_silicon()
    change(atoms)
    with pytest.raises(ValueError, match=message):
        relax(SW, atoms, **options)


def make_argon():
    return LennardJones(sigma=3.405, epsilon=0.0104, rc=8.5, smooth=True)


@pytest.mark.parametrize("cell", ["none", "full"])
def test_a_foreign_calculator_goes_through_ase(cell):
    atoms = bulk("Ar", "fcc", a=5.5, cubic=True)
    atoms.rattle(0.05, seed=2)
    found = relax(f"ase:{__name__}:make_argon", atoms, cell=cell, fmax=1e-4, steps=1000)
    assert found.converged
    assert found.path == ()
    expected = atoms.copy()
    expected.calc = make_argon()
    BFGS(expected if cell == "none" else FrechetCellFilter(expected), logfile=None).run(fmax=1e-5, steps=1000)
    assert found.atoms.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-5 * len(atoms))
    np.testing.assert_allclose(found.atoms.cell.lengths(), expected.cell.lengths(), atol=2e-3)


@pytest.fixture(scope="module")
def file_and_model(tmp_path_factory):
    from tiny_nequip import SMALLEST, random_params

    from mlipjax.models import nequip

    folder = tmp_path_factory.mktemp("relax")
    potential = nequip(SMALLEST, np.zeros(3))
    mlipjax.save(folder / "model", potential, random_params(potential, dtype=np.float32))
    symbol = {1: "H", 6: "C", 8: "O"}.get(potential.species[0], "H")
    frames = [Atoms(symbol + "2", [[0, 0, 0], [0, 0, d]], cell=[6, 6, 6], pbc=True) for d in (1.2, 1.4)]
    write(folder / "pairs.extxyz", frames)
    return folder


def test_the_command_prints_and_writes(file_and_model, tmp_path, capsys):
    folder, out = file_and_model, tmp_path / "out"
    arguments = ["--model", str(folder / "model"), "--structure", str(folder / "pairs.extxyz"), "--steps", "3"]
    arguments += ["--fmax", "1e-9", "--write", str(tmp_path / "end.extxyz"), "--out", str(out)]
    relax_command.run(tyro.cli(relax_command.Relax, args=arguments))
    said = capsys.readouterr().out
    assert said.count("NOT CONVERGED after 3 evaluations") == 2
    assert "space group" in said
    assert "…" not in said
    assert max(map(len, said.splitlines()[:20])) <= 80
    results = json.loads((out / "results.json").read_text())
    assert results["converged"] is False
    frames = read(tmp_path / "end.extxyz", ":")
    assert [atoms.info["model"] for atoms in frames] == [str(folder / "model")] * 2
    for atoms, numbers in zip(frames, results["structures"], strict=True):
        assert atoms.get_potential_energy() == pytest.approx(numbers["after"]["energy_eV"])
        assert atoms.get_forces().shape == (2, 3)
        assert atoms.get_stress().shape == (6,)
    assert len(read(out / "path.extxyz", ":")) == 6
    with pytest.raises(ValueError, match=r"end\.cif: structures are written as extended xyz"):
        relax_command.run(tyro.cli(relax_command.Relax, args=[*arguments[:4], "--write", "end.cif"]))


def test_the_command_names_its_option_where_there_is_no_cell(tmp_path, capsys):
    write(tmp_path / "water.xyz", molecule("H2O"))
    arguments = ["relax", "--model", "universal", "--structure", str(tmp_path / "water.xyz"), "--cell", "full"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    assert re.search(r"water\.xyz, structure 0: .*Choose --cell none\.", capsys.readouterr().err)
