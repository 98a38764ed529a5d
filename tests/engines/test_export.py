"""Programs for LAMMPS on many processes: read back and run without this package, in pieces as LAMMPS would."""

import base64
import dataclasses
import json

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from engine_case import saved_model, water
from jaxlib import xla_client
from scipy.spatial import cKDTree
from tiny_mace import TINY

from mlipjax import Calculator
from mlipjax.cli.main import main
from mlipjax.engines.export import PROGRAM, SKIN, Target, hops, local_atoms, write_lammps_export
from mlipjax.models import mace, save
from mlipjax.system import System

lammps_jax = pytest.importorskip("lammps_jax.export", reason="lammps-jax is not installed (extra lammps-jax)")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small potential of two layers, and the folder that it is saved in."""
    folder = tmp_path_factory.mktemp("export") / "model"
    return saved_model(folder), folder


def program(folder):
    """Energy and forces as a function of a program's arrays, and what it says of itself."""
    bundle = json.loads((folder / PROGRAM).read_text())
    text = lammps_jax.program_text(bundle, "energy_and_forces_mlir")
    options = xla_client.CompileOptions.ParseFromString(base64.b64decode(bundle["compile_options_b64"]))
    options.compile_portable_executable = False  # it runs here, on this device
    options.device_assignment = xla_client.DeviceAssignment.create(np.zeros((1, 1), np.int32))
    devices = jax.devices("cpu")[:1]
    compiled = devices[0].client.compile_and_load(text.encode(), xla_client.DeviceList(tuple(devices)), options)

    def run(*arrays):
        found = compiled.execute_sharded([jax.device_put(array, devices[0]) for array in arrays])
        return [np.asarray(part[0]) for part in found.disassemble_into_single_device_arrays()]

    return run, bundle["contract"]


def packed(contract, positions, types, n_own):
    """Input that LAMMPS gives a program: its atoms, and lists that reach into the skin, padded."""
    rows, slots, dtype = contract["max_atoms"], contract["max_neighbors"], contract["precision"]
    assert len(positions) <= rows
    lists, counts = np.full((slots, rows), rows, np.int32), np.zeros(rows, np.int32)
    for atom, near in enumerate(cKDTree(positions).query_ball_point(positions, contract["cutoff"] + SKIN)):
        near.remove(atom)
        lists[: len(near), atom], counts[atom] = near, len(near)
    padding = rows - len(positions)
    where = np.pad(positions, ((0, padding), (0, 0))).astype(dtype)
    sizes = np.int32(n_own), np.int32(len(positions) - n_own)
    return where, np.pad(types, (0, padding)).astype(np.int32), *sizes, lists, counts


def in_pieces(folder, atoms, processes, n_hops):
    """Energy and forces of a structure, computed by one process after the other."""
    run, contract = program(folder)
    energy, forces = 0.0, np.zeros((len(atoms), 3))
    kinds = list(dict.fromkeys(atoms.symbols))
    types = np.array([kinds.index(symbol) for symbol in atoms.symbols])
    for part in np.ndindex(*processes):
        shell = n_hops * contract["cutoff"] + SKIN
        index, positions, n_own = local_atoms(System.from_ase(atoms), part, processes, shell)
        found = run(*packed(contract, positions, types[index], int(n_own)))
        energy += float(found[0])
        np.add.at(forces, index, found[1][: len(index)])  # of ghosts too: LAMMPS sends them back
    return energy, forces


def test_eight_processes_give_the_forces_of_the_whole(model, tmp_path):
    calculator, folder = model
    atoms = water(7)
    assert len(atoms) > 1000
    assert hops(calculator.potential) == 2
    write_lammps_export(tmp_path, str(folder), atoms, Target((2, 2, 2), "cpu", dtype="float64"))
    energy, forces = in_pieces(tmp_path, atoms, (2, 2, 2), 2)
    atoms.calc = calculator
    alone = calculator.potential.reference_energy(atoms.numbers)
    assert energy == pytest.approx(atoms.get_potential_energy() - alone, abs=1e-8)
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
    # ghosts of one cutoff are too few for two layers
    _, wrong = in_pieces(tmp_path, atoms, (2, 2, 2), 1)
    assert np.abs(wrong - forces).max() > 1e-6


def test_a_skewed_cell_smaller_than_the_ghost_shell_is_right_in_single_precision(model, tmp_path):
    calculator, folder = model
    atoms = bulk("HO", "rocksalt", a=4.0) * (2, 1, 1)
    atoms.rattle(0.1, seed=1)
    write(tmp_path / "crystal.extxyz", atoms)
    command = ["export", "--model", str(folder), "--structure", str(tmp_path / "crystal.extxyz"), "--platform", "cpu"]
    assert main([*command, "--out", str(tmp_path / "bundle"), "--json", str(tmp_path / "sizes.json")]) == 0
    energy, forces = in_pieces(tmp_path / "bundle", atoms, (1, 1, 1), 2)
    atoms.calc = calculator
    assert energy == pytest.approx(
        atoms.get_potential_energy() - calculator.potential.reference_energy(atoms.numbers), abs=1e-5
    )
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-5)
    _, contract = program(tmp_path / "bundle")
    sizes = json.loads((tmp_path / "sizes.json").read_text())
    assert [contract[name] for name in ("max_atoms", "max_neighbors")] == [sizes["max_atoms"], sizes["max_neighbors"]]
    assert (contract["unit_style"], contract["newton"], contract["n_species"]) == ("metal", "on", 2)
    same = read(tmp_path / "bundle" / "start.data", format="lammps-data")
    np.testing.assert_allclose(same.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-9)
    assert "pair_coeff      * * model.lammps-jax.json" in (tmp_path / "bundle" / "in.lammps").read_text()


def test_mace_and_its_heads_are_exported_too(tmp_path):
    config = dataclasses.replace(TINY, heads=("one", "two"))
    potential = mace(config, np.array([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]]))
    save(tmp_path / "model", potential, params := potential.init(jax.random.key(1)))
    atoms = bulk("HO", "rocksalt", a=4.0)
    atoms.rattle(0.1, seed=1)
    write_lammps_export(tmp_path, str(tmp_path / "model"), atoms, Target(platform="cpu", head="two", dtype="float64"))
    energy, forces = in_pieces(tmp_path, atoms, (1, 1, 1), 2)
    atoms.calc = Calculator(potential, params, head="two")
    assert energy == pytest.approx(
        atoms.get_potential_energy() - potential.reference_energy(atoms.numbers, 1), abs=1e-9
    )
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)


@pytest.mark.parametrize("processes", [(1, 1, 1), (2, 1, 3)])
def test_every_atom_is_owned_once_and_ghosts_fill_the_shell(processes):
    rng = np.random.default_rng(0)
    system = System(rng.uniform(-3, 9, (40, 3)), np.ones(40, np.int32), np.diag([6.0, 7.0, 8.0]), (True, True, False))
    owned, shell = [], 4.0
    for part in np.ndindex(*processes):
        index, positions, n_own = local_atoms(system, part, processes, shell)
        owned += index[:n_own].tolist()
        moved = (positions - system.positions[index]) @ np.linalg.inv(system.cell)
        np.testing.assert_allclose(moved, np.round(moved), atol=1e-12)
        assert np.abs(moved[:, 2]).max() < 1e-12  # no images along z
        # all images within the shell of an own atom are here
        everywhere = Atoms(positions=system.positions, cell=system.cell, pbc=system.pbc) * (7, 7, 1)
        everywhere.positions -= 3 * np.diag(system.cell) * np.array(system.pbc)
        distances = np.linalg.norm(everywhere.positions[:, None] - positions[None, :n_own], axis=-1)
        needed = everywhere.positions[(distances < shell).any(axis=1)]
        assert cKDTree(positions).query(needed)[0].max() < 1e-9
    assert sorted(owned) == list(range(40))


def test_what_cannot_be_exported_is_refused(model, tmp_path):
    _, folder = model
    with pytest.raises(ValueError, match="does not know Cu"):
        write_lammps_export(tmp_path / "out", str(folder), bulk("Cu"))
    with pytest.raises(ValueError, match="put the structure in a box"):
        write_lammps_export(tmp_path / "out", str(folder), molecule("H2O"))
    with pytest.raises(ValueError, match="foreign calculator"):
        write_lammps_export(tmp_path / "out", "ase:ase.calculators.emt:EMT", bulk("Cu"))
    assert not (tmp_path / "out").exists()
