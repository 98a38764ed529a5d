"""Predictions without labels: the calculator is the reference."""

import json

import jax
import numpy as np
import pytest
import tyro
from analytic_case import PARAMS, potential_of
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import read, write
from tiny_nequip import SMALLEST, random_params

import mlipjax
from mlipjax import Calculator
from mlipjax.cli import predict as predict_command
from mlipjax.models import nequip
from mlipjax.potential import apply
from mlipjax.verbs import predict, predict_each

LJ = (potential_of("lj"), PARAMS)


@pytest.fixture(scope="module")
def model():
    potential = nequip(SMALLEST, np.array([-13.5, -1030.25, -2040.125]))
    return potential, random_params(potential, dtype=np.float32)


def structures():
    """A molecule, a crystal, a slab with a vacuum."""
    slab = bulk("C", "fcc", a=4.0, cubic=True)
    slab.center(4.0, axis=2)
    slab.pbc = (True, True, False)
    crystal = bulk("C", "diamond", a=3.6)
    crystal.set_constraint(FixAtoms([1]))
    return [molecule("CH3OH"), crystal, slab]


def test_predictions_are_those_of_the_calculator(model):
    frames = structures()
    calculator = Calculator(*model)
    for found, atoms in zip(predict(model, frames, dtype="float64"), frames, strict=True):
        expected = atoms.copy()
        expected.calc = calculator
        assert found.get_potential_energy() == pytest.approx(expected.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(
            found.get_forces(apply_constraint=False), expected.get_forces(apply_constraint=False), atol=1e-9
        )
        np.testing.assert_allclose(found.get_potential_energies(), expected.get_potential_energies(), atol=1e-9)
        assert ("stress" in found.calc.results) == bool(atoms.pbc.any())
        if atoms.pbc.any():
            np.testing.assert_allclose(found.get_stress(), expected.get_stress(), atol=1e-9)
        assert len(found.constraints) == len(atoms.constraints)
        assert atoms.calc is None  # what was given is as it was


def test_one_structure_in_one_out(model):
    atoms = structures()[0]
    assert isinstance(predict(model, atoms), Atoms)
    assert len(predict(model, [atoms])) == 1
    assert predict(model, atoms).info["model"] == "NequIP"


def test_labels_that_come_along_are_replaced(model):
    atoms = structures()[1]
    atoms.calc = SinglePointCalculator(atoms, energy=1234.0, magmom=3.0)
    atoms.info["REF_energy"] = 1234.0
    found = predict(model, atoms)
    assert found.get_potential_energy() != 1234.0
    assert "magmom" not in found.calc.results
    assert found.info["REF_energy"] == 1234.0


def test_few_programs_serve_structures_of_many_sizes():
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 30, 60)
    frames = [
        Atoms("Ar" * n, 4.0 * np.array(np.meshgrid(*[range(4)] * 3)).reshape(3, -1).T[:n] + rng.normal(0, 0.1, (n, 3)))
        for n in sizes
    ]
    apply.clear_cache()
    found = predict(LJ, frames, dtype="float64", batch_size=4)
    assert apply._cache_size() <= 8
    alone = [predict(LJ, atoms, dtype="float64").get_potential_energy() for atoms in frames[:5]]
    np.testing.assert_allclose([atoms.get_potential_energy() for atoms in found[:5]], alone, atol=1e-9)


def test_structures_are_read_as_they_are_needed():
    taken = []

    def frames():
        for index in range(1000):
            taken.append(index)
            yield Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]])

    found = predict_each(LJ, frames(), batch_size=4)
    next(found)
    assert len(taken) <= 6


def test_features_are_one_row_per_atom(model):
    found = predict(model, structures(), features=True)
    n_features = sum(model[0].module.feature_sizes)
    assert [atoms.arrays["features"].shape for atoms in found] == [(len(atoms), n_features) for atoms in structures()]
    assert "features" not in predict(model, structures()[0]).arrays


def test_coinciding_atoms_are_named():
    frames = [Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), Atoms("Ar3", [[0, 0, 9], [0, 0, 1], [0, 0, 1]])]
    with pytest.raises(ValueError, match=r"structure 1: atoms Ar 1 and Ar 2 are 0 Å apart"):
        predict(LJ, frames)
    left_out = {}
    found = list(predict_each(LJ, [*frames, frames[0]], leave_out=left_out.__setitem__))
    assert [len(atoms) for atoms in found] == [2, 2]
    assert left_out == {1: left_out[1]}
    assert left_out[1].startswith("structure 1: atoms Ar 1 and Ar 2 are 0 Å apart")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float32"),
        ({"head": "r2scan"}, "found 'r2scan'"),
        ({"batch_size": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_honoured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        predict(LJ, Atoms("Ar"), **options)
    with pytest.raises(ValueError, match=r"structure 0: this potential does not know Ne"):
        predict(LJ, Atoms("Ne"))
    with pytest.raises(TypeError, match=r"ase\.Atoms or a file"):
        predict(LJ, [3])


def make_argon():
    return LennardJones(sigma=3.405, epsilon=0.0104, rc=8.5, smooth=True)


def test_a_foreign_calculator_predicts_too():
    atoms = bulk("Ar", "fcc", a=5.3)
    found = predict(f"ase:{__name__}:make_argon", atoms)
    atoms.calc = make_argon()
    assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy())
    np.testing.assert_allclose(found.get_stress(), atoms.get_stress(), atol=1e-12)
    assert found.info["model"] == f"ase:{__name__}:make_argon"
    with pytest.raises(ValueError, match="gives no features"):
        predict(f"ase:{__name__}:make_argon", atoms, features=True)


@pytest.mark.parametrize("suffix", [".extxyz", ".xyz.gz"])
def test_the_command_writes_what_other_programs_read(model, tmp_path, capsys, suffix):
    mlipjax.save(tmp_path / "model", *model)
    write(tmp_path / "some.extxyz", structures())
    target = tmp_path / f"found{suffix}"
    arguments = ["--model", str(tmp_path / "model"), "--data", str(tmp_path / "some.extxyz"), "--write", str(target)]
    arguments += ["--json", str(tmp_path / "found.json"), "--features"]
    predict_command.run(tyro.cli(predict_command.Predict, args=arguments))
    said = capsys.readouterr().out
    assert "3 structures, 12 atoms; 2 with stress" in said
    assert "…" not in said
    expected = predict(tmp_path / "model", tmp_path / "some.extxyz", features=True)
    summary = json.loads((tmp_path / "found.json").read_text())
    for found, atoms, energy in zip(read(target, ":"), expected, summary["energies_eV"], strict=True):
        assert found.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        assert found.get_potential_energy() == pytest.approx(energy, abs=1e-6)
        np.testing.assert_allclose(found.get_forces(), atoms.get_forces(), atol=1e-7)
        np.testing.assert_allclose(found.arrays["features"], atoms.arrays["features"], atol=1e-7)
        assert found.info["model"] == str(tmp_path / "model")
    assert len(read(target, 1).constraints) == 1


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path):
    frames = [Atoms("Ar2", [[0, 0, 0], [0, 0, 3.8]]), Atoms("Ar2", [[0, 0, 1], [0, 0, 1]])]
    write(tmp_path / "some.extxyz", frames)
    potential, params = LJ
    from mlipjax.data.write import write_atoms

    with pytest.raises(ValueError, match=r"some\.extxyz, structure 1"):
        write_atoms(tmp_path / "found.extxyz", predict_each((potential, params), tmp_path / "some.extxyz"))
    assert not (tmp_path / "found.extxyz").exists()
    assert jax.config.jax_enable_x64  # the caller's mode is the caller's
