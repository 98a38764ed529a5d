"""D3(BJ): every door adds the same numbers to a model, those of the reference implementation."""

import dataclasses
import pickle

import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, graphene, molecule
from ase.calculators.lj import LennardJones
from tiny_nequip import SMALL, random_params

import mlipjax
from mlipjax.cli.main import main
from mlipjax.data import Dataset, Example
from mlipjax.graph import batch_graphs
from mlipjax.models import nequip
from mlipjax.notices import Notice
from mlipjax.oracles import Labeller, SerialExecutor, Teacher
from mlipjax.potential import Model
from mlipjax.system import Labels, System
from mlipjax.verbs.inputs import ForeignModel

pytest.importorskip("dftd3", reason="the package dftd3 is not installed (pip install mlipjax[dispersion])")

from dftd3.ase import DFTD3

from mlipjax.dispersion import D3BJ, parse_dispersion
from mlipjax.oracles.dispersion import WithoutDispersion

D3 = "d3bj:PBE"
CLOSE = {"rtol": 0.0, "atol": 1e-8}


def structures():
    rng = np.random.default_rng(0)
    found = (molecule("CH3CH2OH"), bulk("C", a=3.57), graphene(vacuum=6.0), bulk("NaCl", "rocksalt", a=5.7))
    return [jolted(rng, atoms) for atoms in found]


def jolted(rng, atoms):
    atoms.positions += rng.normal(size=atoms.positions.shape) * 0.05
    return atoms


@pytest.fixture(scope="module")
def model():
    potential = nequip(SMALL)
    return Model(potential, random_params(potential))


def reference(atoms):
    """Energy, forces and stress of the package's own calculator."""
    atoms = atoms.copy()
    atoms.calc = DFTD3(method="PBE", damping="d3bj")
    stress = atoms.get_stress() if atoms.cell.rank == 3 and atoms.pbc.any() else None
    return atoms.get_potential_energy(), atoms.get_forces(), stress


def assert_added(with_it, without, atoms):
    energy, forces, stress = reference(atoms)
    np.testing.assert_allclose(with_it.get_potential_energy() - without.get_potential_energy(), energy, **CLOSE)
    np.testing.assert_allclose(with_it.get_forces() - without.get_forces(), forces, **CLOSE)
    if stress is not None:
        np.testing.assert_allclose(with_it.get_stress() - without.get_stress(), stress, **CLOSE)


@pytest.mark.parametrize("index", range(4))
def test_numbers_are_the_reference_implementations(index):
    atoms = structures()[index]
    system, d3 = System.from_ase(atoms), D3BJ("PBE")
    found, (energy, forces, stress) = d3.of(system), reference(atoms)
    np.testing.assert_allclose(found.energy, energy, **CLOSE)
    np.testing.assert_allclose(found.forces, forces, **CLOSE)
    np.testing.assert_allclose(d3.energies(system).sum(), energy, **CLOSE)
    if stress is not None:
        np.testing.assert_allclose(found.virial[[0, 1, 2, 1], [0, 1, 2, 2]] / system.volume, stress[:4], **CLOSE)


@pytest.mark.parametrize("vector", [(0.0, 0.0, 0.0), (0.0, 0.0, 3.0), (1.0, 0.5, 30.0)])
@pytest.mark.parametrize("shift", [0.0, 14.0])
def test_a_slab_is_whole_whatever_its_third_lattice_vector_and_place(vector, shift):
    slab = fcc111("Al", (1, 1, 3), vacuum=6.0)
    in_the_middle = reference(slab)
    slab.positions[:, 2] += shift
    slab.cell[2] = vector
    found = D3BJ("PBE").of(System.from_ase(slab))
    np.testing.assert_allclose(found.energy, in_the_middle[0], **CLOSE)
    np.testing.assert_allclose(found.forces, in_the_middle[1], **CLOSE)


def test_a_batch_under_jit_is_its_structures(model):
    water, salt = System.from_ase(molecule("H2O")), System.from_ase(bulk("NaCl", "rocksalt", a=5.7))
    with jax.enable_x64(True):
        graph = batch_graphs([water, salt], 4.5, n_atoms=8, n_graphs=3, dtype=np.float64)
        added, shares = jax.device_get(jax.jit(D3BJ("PBE").of_batch)(graph))
    singles = [D3BJ("PBE").of(system) for system in (water, salt)]
    np.testing.assert_allclose(added.energy, [*(one.energy for one in singles), 0.0], **CLOSE)
    np.testing.assert_allclose(added.forces[:3], singles[0].forces, **CLOSE)
    np.testing.assert_allclose(added.forces[3:], np.pad(singles[1].forces, ((0, 3), (0, 0))), **CLOSE)
    np.testing.assert_allclose(added.virial[1], singles[1].virial, **CLOSE)
    np.testing.assert_allclose(shares[:3], D3BJ("PBE").energies(water), **CLOSE)


def test_predict_and_calculator_add_it(model):
    for atoms in structures():
        if set(atoms.numbers) <= set(model[0].species):
            plain = mlipjax.predict(model, atoms, dtype="float64")
            assert_added(mlipjax.predict(model, atoms, dtype="float64", dispersion=D3), plain, atoms)
            atoms.calc = mlipjax.Calculator(*model, dispersion=D3)
            assert_added(atoms, plain, atoms)
            np.testing.assert_allclose(
                atoms.calc.results["energies"].sum(), atoms.get_potential_energy(), rtol=0, atol=1e-8
            )


def test_a_calculator_keeps_it_when_it_is_copied_and_refuses_second_derivatives(model):
    atoms = molecule("H2O")
    calculator = mlipjax.Calculator(*model, dispersion=D3)
    expected = calculator.get_potential_energy(atoms)
    assert pickle.loads(pickle.dumps(calculator)).get_potential_energy(atoms) == expected
    assert calculator.parameters["dispersion"] == D3
    with pytest.raises(ValueError, match="second derivatives"):
        calculator.get_hessian(atoms)


def test_relax_ends_where_forces_with_it_vanish(model):
    pair = Atoms("Ar2", [[0.0, 0.0, 0.0], [0.0, 0.0, 4.2]], cell=[12.0] * 3, pbc=[True, True, False])
    foreign = ForeignModel("ase:lj", LennardJones(sigma=3.4, epsilon=0.01, rc=8.0))
    relaxed = mlipjax.relax(foreign, pair, dispersion=D3, fmax=1e-4)
    bare = mlipjax.relax(foreign, pair, fmax=1e-4)
    assert relaxed.converged
    assert relaxed.atoms.get_distance(0, 1) < bare.atoms.get_distance(0, 1) - 0.02
    water = molecule("H2O")
    relaxed = mlipjax.relax(model, water, dispersion=D3, fmax=0.05).atoms
    at_rest = mlipjax.predict(model, relaxed, dtype="float64", dispersion=D3)
    np.testing.assert_allclose(relaxed.get_potential_energy(), at_rest.get_potential_energy(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(relaxed.get_forces(), at_rest.get_forces(), rtol=0, atol=1e-7)


def test_dynamics_feel_it_and_a_restart_without_it_is_refused(model, tmp_path):
    slab = graphene(vacuum=6.0)
    options = {"temperature": 100.0, "steps": 4, "every": 4, "dtype": "float64", "write": tmp_path / "md.extxyz"}
    end = mlipjax.simulate(model, slab, "nve", dispersion=D3, **options).atoms[0]
    expected = mlipjax.predict(model, end, dtype="float64", dispersion=D3)
    np.testing.assert_allclose(end.get_forces(), expected.get_forces(), rtol=0, atol=1e-7)
    np.testing.assert_allclose(end.get_potential_energy(), expected.get_potential_energy(), rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="dispersion was 'd3bj:PBE'"):
        mlipjax.simulate(model, slab, "nve", **options | {"steps": 8})


def labelled(model, frames):
    """Frames with the labels of a model, plus dispersion."""
    return mlipjax.read(mlipjax.predict(model, frames, dtype="float64", dispersion=D3))


def test_evaluate_compares_with_it(model):
    data = labelled(model, [molecule("H2O"), molecule("CH4")])
    assert mlipjax.evaluate(model, data, dtype="float64", dispersion=D3)["force_mae_meV_per_A"] < 1e-6
    assert mlipjax.evaluate(model, data, dtype="float64")["energy_mae_meV_per_atom"] > 0.5


@pytest.mark.slow
def test_a_fine_tune_does_not_learn_it(model):
    data = labelled(model, [bulk("C", a=a) for a in (3.5, 3.55, 3.6, 3.65)])
    options = {"epochs": 1, "valid_fraction": 0.0, "anchor": "none", "learning_rate": 1e-9}
    without = mlipjax.finetune(model, data, dispersion=D3, **options).report
    with_it = mlipjax.finetune(model, data, **options).report
    assert without["before"]["energy_mae_meV_per_atom"] < 0.1 < with_it["before"]["energy_mae_meV_per_atom"]


def test_labels_without_it_miss_what_was_missing():
    system = System.from_ase(molecule("H2O"))
    labels = D3BJ("PBE").off(system, Labels.create(3, energy=1.0))
    assert (labels.forces_weight, labels.stress_weight) == (0.0, 0.0)
    np.testing.assert_array_equal(labels.forces, np.zeros((3, 3)))
    np.testing.assert_allclose(1.0 - labels.energy, D3BJ("PBE").of(system).energy, **CLOSE)
    data = Dataset.from_examples([Example(system, Labels.create(3, energy=1.0), {"run": "a"})])
    assert D3BJ("PBE").off_dataset(data).infos == data.infos


@dataclasses.dataclass(frozen=True)
class Dispersive:
    """An oracle of nothing but dispersion."""

    jittable = False
    name = "d3"
    identity = "d3"

    def label(self, system):
        found = D3BJ("PBE").of(system)
        return Labels.create(system.n_atoms, float(found.energy), found.forces, found.virial / system.volume)


def test_an_oracle_without_it_is_another_oracle():
    system = System.from_ase(bulk("C", a=3.57))
    oracle = WithoutDispersion(Dispersive(), D3BJ("PBE"))
    with Labeller(oracle, executor=SerialExecutor()) as labeller:
        (labels,) = labeller.label([system])
    assert abs(labels.energy) < 1e-12
    assert np.abs(labels.stress).max() < 1e-12
    assert oracle.identity != Dispersive().identity


@dataclasses.dataclass(frozen=True)
class Whole:
    """A teacher with dispersion."""

    teacher: Teacher

    jittable = False
    name = "whole"
    identity = "whole"

    def label(self, system):
        labels, more = self.teacher.label(system), D3BJ("PBE").of(system)
        return Labels.create(
            system.n_atoms, float(labels.energy + more.energy), np.asarray(labels.forces) + more.forces
        )


@pytest.mark.slow
def test_the_loop_drives_with_it_and_trains_without(model):
    """The labels are the model's with dispersion: nothing is left to learn, and energies on the way differ."""
    cell = bulk("C", a=3.57)
    options = {"rounds": 1, "labels_per_round": 2, "steps": 3, "train_steps": 1, "dtype": "float64", "e0s": "model"}
    found = mlipjax.periodic(model, cell, oracle=Whole(Teacher(*model)), dispersion=D3, workers=1, **options)
    row = found.report["rounds"][0]
    assert row["force_rmse_meV_per_A"] < 1e-3
    plain = mlipjax.periodic(model, cell, oracle=Teacher(*model), workers=1, **options)
    energies = [
        next(r for r in run.history if "potential_energy_eV" in r)["potential_energy_eV"][0][0]
        for run in (found, plain)
    ]
    assert energies[0] < energies[1] - 0.05


def test_what_cannot_be_honoured_is_one_line(capsys, tmp_path):
    molecule("H2O").write(tmp_path / "water.extxyz")
    with pytest.raises(ValueError, match="d3bj:FUNCTIONAL"):
        parse_dispersion("d3:PBE")
    with pytest.raises(ValueError, match="no D3"):
        parse_dispersion("d3bj:NOSUCH")
    command = ["predict", "--model", "universal", "--data", str(tmp_path / "water.extxyz"), "--dispersion", D3]
    assert main(command) == 1
    assert "contain dispersion already" in capsys.readouterr().err


def test_a_functional_that_is_not_the_models_is_said():
    from mlipjax.verbs.dispersion import open_dispersion
    from mlipjax.verbs.inputs import NativeModel

    opened = NativeModel("sevennet-0", *mlipjax.load("universal"), 0)
    assert open_dispersion(D3, opened) == D3BJ("PBE")
    with pytest.warns(Notice, match="was trained on pbe"):
        open_dispersion("d3bj:BLYP", opened)
