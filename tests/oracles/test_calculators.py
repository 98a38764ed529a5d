"""GFN1-xTB, calculators by factory name, and the names oracles have on the command line."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from mlipjax.oracles import (
    AseOracle,
    Labeller,
    LennardJones,
    Oracle,
    SerialExecutor,
    StillingerWeber,
    Xtb,
    make_oracle,
)
from mlipjax.system import Labels, System


def water_box():
    """Two molecules in a cell that is neither cubic nor larger than it must be."""
    first, second = molecule("H2O"), molecule("H2O")
    second.rotate(70, [1, 2, 3])
    second.translate([2.6, 0.4, 0.9])
    atoms = first + second
    atoms.set_cell([[7.0, 0.0, 0.0], [1.0, 6.5, 0.0], [0.5, 0.3, 6.0]])
    atoms.pbc = True
    return System.from_ase(atoms)


def slope(energy, step):
    return (energy(step) - energy(-step)) / (2 * step)


@pytest.mark.parametrize("temperature", [300.0, 1000.0])
def test_xtb_forces_and_stress_are_derivatives(temperature):
    oracle, system, step = Xtb(accuracy=0.01, electronic_temperature=temperature), water_box(), 1e-3
    labels = oracle.label(system)
    rng = np.random.default_rng(0)
    direction = rng.normal(size=(6, 3))
    strain = rng.normal(size=(3, 3))
    strain = 0.5 * (strain + strain.T)

    def moved(size):
        return float(oracle.label(system.replace(positions=system.positions + size * direction)).energy)

    def deformed(size):
        grid = np.eye(3) + size * strain
        return float(oracle.label(system.replace(positions=system.positions @ grid, cell=system.cell @ grid)).energy)

    np.testing.assert_allclose(-slope(moved, step), np.sum(labels.forces * direction), atol=2e-4)
    volume = abs(np.linalg.det(system.cell))
    np.testing.assert_allclose(slope(deformed, step) / volume, np.sum(labels.stress * strain), atol=2e-5)
    assert np.abs(labels.stress).max() > 1e-3


def test_xtb_gives_the_documented_energy_of_water():
    # value in tblite's own documentation of its ASE interface
    labels = Xtb(electronic_temperature=300.0).label(System.from_ase(molecule("H2O")))
    np.testing.assert_allclose(labels.energy, -156.96750590276173, atol=1e-5)
    assert labels.stress_weight == 0


def test_xtb_refuses_what_it_would_get_wrong():
    bromide = water_box().replace(atomic_numbers=np.array([8, 1, 1, 8, 1, 35]))
    with pytest.raises(ValueError, match="halogen-bond correction"):
        Xtb().label(bromide)
    Xtb().label(bromide.replace(pbc=(False, False, False), cell=np.zeros((3, 3))))
    flat = water_box().replace(pbc=(True, True, False), cell=np.diag([7.0, 7.0, 0.0]))
    with pytest.raises(ValueError, match="no volume"):
        Xtb().label(flat)


def test_xtb_labels_in_worker_processes_with_a_slab_and_a_failure(tmp_path):
    slab = water_box().replace(pbc=(True, True, False))
    collapsed = System(np.zeros((2, 3)), np.array([1, 1]), np.zeros((3, 3)), (False,) * 3)
    with Labeller(Xtb(), tmp_path / "labels.db", n_workers=1, timeout=60.0) as labeller:
        box, partial, failure = labeller.label([water_box(), slab, collapsed])
    assert isinstance(box, Labels)
    assert isinstance(partial, Labels)
    assert (box.stress_weight, partial.stress_weight) == (1, 0)
    assert failure.attempts == 2
    np.testing.assert_array_equal(box.forces, Xtb().label(water_box()).forces)


def test_a_factory_names_any_calculator():
    oracle = AseOracle("ase.calculators.emt:EMT")
    dimer = System(np.array([[0.0, 0, 0], [2.5, 0, 0]]), np.array([29, 29]), np.zeros((3, 3)), (False,) * 3)
    labels = oracle.label(dimer)
    atoms = Atoms("Cu2", positions=dimer.positions, calculator=oracle.calculator())
    assert labels.energy == atoms.get_potential_energy()
    np.testing.assert_array_equal(labels.forces, atoms.get_forces())
    assert isinstance(oracle, Oracle)


def test_files_of_a_calculator_stay_out_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    monkeypatch.setattr("ase.calculators.emt.EMT.calculate", lambda self, *rest: seen.append(self.directory))
    with Labeller(AseOracle("ase.calculators.emt:EMT"), executor=SerialExecutor()) as labeller:
        labeller.label([System(np.zeros((1, 3)), np.array([29]), np.zeros((3, 3)), (False,) * 3)])
    assert len(set(seen)) == 2  # two attempts (the replaced method gives no result), each in its own folder
    assert str(tmp_path) not in seen


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("xtb", Xtb()),
        ("xtb:method=GFN2-xTB,electronic_temperature=300", Xtb(method="GFN2-xTB", electronic_temperature=300.0)),
        ("lj", LennardJones()),
        ("lj:sigma=3,epsilon=0.02,cutoff=9", LennardJones(sigma=3.0, epsilon=0.02, cutoff=9.0)),
        ("sw", StillingerWeber()),
        ("ase:ase.calculators.emt:EMT", AseOracle("ase.calculators.emt:EMT")),
    ],
)
def test_specification(spec, expected):
    assert make_oracle(spec) == expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("vasp", r"unknown oracle 'vasp'; expected xtb \| cp2k.* \| teacher"),
        ("lj:sigma=wide", "sigma.*must be float, found 'wide'"),
        ("lj:depth=1", "cannot read 'depth=1'.*sigma, epsilon, cutoff"),
        ("lj:cutoff=2", "onset < cutoff"),
        ("lj:sigma=nan", "sigma in .* must be more than 0 and at most 100, found nan"),
        ("lj:epsilon=-1", "epsilon in .* must be more than 0"),
        ("lj:cutoff=1e6", "cutoff in .* must be more than 0 and at most 100, found 1e6"),
        ("xtb:max_iterations=0", "max_iterations in .* must be more than 0"),
        ("ase:", "expected module:factory"),
        ("ase:ase.calculators.emt", "expected module:factory"),
        ("ase:no_such_module:make", "cannot import 'no_such_module'"),
        ("ase:ase.calculators.emt:EMTT", "no function 'EMTT'"),
        ("teacher:", "which teacher"),
    ],
)
def test_bad_specification_gets_one_clear_error(spec, message):
    with pytest.raises(ValueError, match=message):
        make_oracle(spec)


def test_identities_differ_between_settings():
    assert Xtb().identity != Xtb(accuracy=0.1).identity
