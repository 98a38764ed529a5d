"""Equation of state, elastic constants, phonons and vacancies of Stillinger-Weber silicon, whose values are known."""

import dataclasses

import numpy as np
import pytest
from analytic_case import PARAMS, evaluator, known_a0, potential_of, silicon
from ase.build import bulk
from ase.eos import EquationOfState as AseEquationOfState
from ase.optimize import BFGS
from ase.phonons import Phonons as AsePhonons

from mlipjax import Calculator
from mlipjax.potential import Model
from mlipjax.probes.elastic import deformed, elastic_constants
from mlipjax.probes.eos import equation_of_state, scaled
from mlipjax.probes.evaluator import AseEvaluator
from mlipjax.probes.gamma import gamma_modes
from mlipjax.probes.phonons import phonons
from mlipjax.probes.vacancy import vacancy_formation
from mlipjax.relaxation import relax
from mlipjax.system import System
from mlipjax.units import GPA

EPSILON = 2.16826


@pytest.fixture(scope="module")
def calculator():
    return Calculator(potential_of("sw"), PARAMS)


def test_equation_of_state_of_silicon(calculator):
    result = equation_of_state(evaluator("sw"), silicon(5.45), largest_strain=0.04)
    assert result.scale * 5.45 == pytest.approx(known_a0(), abs=2e-4)
    assert result.energy / 8 == pytest.approx(-2.0 * EPSILON - 0.5, abs=1e-5)  # four bonds shared by two, and the E0
    assert result.bulk_modulus_GPa == pytest.approx(101.4, abs=0.4)
    # ASE, from energies that its own calculator interface gave
    energies = [
        AseEvaluator(calculator)([scaled(silicon(5.45), (v / 5.45**3) ** (1 / 3))])[0].energy for v in result.volumes
    ]
    v0, e0, b = AseEquationOfState(result.volumes, energies, eos="birchmurnaghan").fit()
    assert (result.volume, result.energy) == pytest.approx((v0, e0), rel=1e-5)
    assert result.bulk_modulus_GPa == pytest.approx(b / GPA, rel=2e-3)
    # the stress says the same as the energy: B = -V dp/dV
    low, middle, high = (len(result.volumes) // 2 + i for i in (-1, 0, 1))
    slope = (result.pressures_GPa[high] - result.pressures_GPa[low]) / (result.volumes[high] - result.volumes[low])
    assert -result.volumes[middle] * slope == pytest.approx(result.bulk_modulus_GPa, rel=0.05)
    assert "bulk modulus 101" in result.verdict
    # from further away the curve is taken again, around the minimum
    far = equation_of_state(evaluator("sw"), silicon(5.36), largest_strain=0.06)
    assert np.mean(far.volumes) == pytest.approx(known_a0() ** 3, rel=2e-3)
    assert far.scale * 5.36 == pytest.approx(known_a0(), abs=2e-4)


def test_birch_murnaghan_derivatives_are_exact():
    """Energies made from the published formula give back its parameters."""
    v0, b0, derivative = 20.0, 0.7, 4.3

    def energy(system):
        x = (v0 / abs(np.linalg.det(system.cell))) ** (2 / 3)
        return 9 * v0 * b0 / 16 * ((x - 1) ** 3 * derivative + (x - 1) ** 2 * (6 - 4 * x))

    class Result:
        stress = None

        def __init__(self, system):
            self.energy = energy(system)

    crystal = System(np.zeros((1, 3)), np.array([14]), 20.5 ** (1 / 3) * np.eye(3), (True,) * 3)
    result = equation_of_state(lambda systems: [Result(system) for system in systems], crystal)
    assert result.volume == pytest.approx(v0, rel=1e-7)
    assert result.bulk_modulus_GPa * GPA == pytest.approx(b0, rel=1e-6)
    assert result.bulk_modulus_derivative == pytest.approx(derivative, rel=1e-5)
    assert "WARNING" not in result.verdict
    assert "WARNING" in dataclasses.replace(result, bulk_modulus_derivative=-0.9).verdict


def test_equation_of_state_refuses_what_has_no_minimum():
    with pytest.raises(ValueError, match="no minimum of the energy"):
        equation_of_state(evaluator("sw"), silicon(6.0), largest_strain=0.04)
    molecule = silicon().replace(pbc=(False,) * 3)
    with pytest.raises(ValueError, match="periodic along all axes"):
        equation_of_state(evaluator("sw"), molecule)


def test_elastic_constants_of_silicon(calculator):
    crystal = silicon(known_a0())
    result = elastic_constants(evaluator("sw"), crystal)
    c = result.relaxed_GPa
    assert (c[0, 0], c[0, 1], c[3, 3]) == pytest.approx((151.4, 76.4, 56.4), abs=0.6)
    assert c[0, 0] == pytest.approx(result.clamped_GPa[0, 0], abs=0.05)
    assert result.bulk_modulus_GPa == pytest.approx(101.4, abs=0.4)
    assert result.stable
    # independently: shear the crystal, read energy or stress, before and after ASE relaxed the ions
    atoms = deformed(crystal, np.array([[0, 0, 0], [0, 0, 1e-3], [0, 1e-3, 0]])).to_ase()
    atoms.calc = calculator
    raised = atoms.get_potential_energy() + 8 * (2.0 * EPSILON + 0.5)
    clamped = 2.0 * raised / (atoms.get_volume() * (2e-3) ** 2) / GPA
    assert result.clamped_GPa[3, 3] == pytest.approx(clamped, abs=0.2)
    BFGS(atoms, logfile=None).run(fmax=1e-5)
    assert c[3, 3] == pytest.approx(atoms.get_stress()[3] / 2e-3 / GPA, abs=0.1)


def test_elastic_constants_refuse_a_stressed_or_unstable_crystal():
    with pytest.raises(ValueError, match="under a stress"):
        elastic_constants(evaluator("sw"), silicon(5.6))
    # a simple cubic crystal of central forces has nothing that resists shear
    cubic = System(np.zeros((1, 3)), np.array([18]), 3.6 * np.eye(3), (True,) * 3)
    cubic = scaled(cubic, equation_of_state(evaluator("lj"), cubic, largest_strain=0.15).scale)
    result = elastic_constants(evaluator("lj"), cubic, relax_ions=False)
    assert not result.stable
    assert "UNSTABLE" in result.verdict


def test_phonons_of_silicon_agree_with_ase_and_with_exact_derivatives(calculator, tmp_path):
    atoms = bulk("Si", "diamond", a=known_a0())
    result = phonons(evaluator("sw"), System.from_ase(atoms), repeat=(3, 3, 3), displacement=0.01, mesh=3)
    theirs = AsePhonons(atoms, calculator, supercell=(3, 3, 3), delta=0.01, name=str(tmp_path / "phonon"))
    theirs.run()
    theirs.read(acoustic=True)
    per_thz = 4.135667696e-3  # eV of a quantum of 1 THz
    for q in ((0, 0, 0), (1 / 3, 0, 0), (1 / 3, 1 / 3, 0)):  # what a 3 x 3 x 3 supercell holds exactly
        np.testing.assert_allclose(result.at(q), np.sort(theirs.band_structure([q])[0]) / per_thz, atol=0.03)
    assert result.at((0, 0, 0))[-1] == pytest.approx(17.83, abs=0.1)
    assert result.n_imaginary == 0
    exact = gamma_modes(Model(potential_of("sw"), PARAMS), System.from_ase(atoms))
    np.testing.assert_allclose(result.at((0, 0, 0)), exact.frequencies_THz, atol=0.02)
    assert exact.n_rigid == 3
    assert "a minimum" in exact.verdict
    assert "NOT a stationary point" in dataclasses.replace(exact, largest_force=0.7).verdict


@pytest.mark.slow
def test_vacancy_formation_of_silicon():
    crystal = silicon(known_a0(), 2)

    neighbours = np.argsort(crystal.to_ase().get_distances(0, range(1, 64), mic=True))[:4]

    def relaxed(systems):
        # the ideal vacancy is a local minimum of this potential; the lowest one has its neighbours drawn in
        start = systems[0].positions.copy()
        apart = crystal.positions[0] - start[neighbours]
        box = np.diag(crystal.cell)
        start[neighbours] += 0.15 * (apart - box * np.round(apart / box))
        started = [systems[0].replace(positions=start)]
        return relax(Model(potential_of("sw"), PARAMS), started, fmax=2e-3, dtype="float64").systems

    result = vacancy_formation(evaluator("sw"), crystal, (0,), relax=relaxed)
    # four bonds of epsilon break, and the atom taken out gets two back in its reservoir
    np.testing.assert_allclose(result.unrelaxed_eV, 2.0 * EPSILON, atol=1e-4)
    assert result.relaxed_eV == pytest.approx(2.82, abs=0.03)  # the literature's value


@pytest.mark.slow
def test_vacancy_formation_of_argon_agrees_with_ase():
    crystal = System.from_ase(bulk("Ar", "fcc", a=5.27, cubic=True).repeat(2))

    def relaxed(systems):
        return relax(Model(potential_of("lj"), PARAMS), systems, fmax=5e-5, dtype="float64").systems

    result = vacancy_formation(evaluator("lj"), crystal, (3,), relax=relaxed, converged=1e-4, rattle=0.01)
    atoms = crystal.to_ase()
    atoms.calc = Calculator(potential_of("lj"), PARAMS)
    perfect = atoms.get_potential_energy()
    del atoms[3]
    unrelaxed = atoms.get_potential_energy() - 31 / 32 * perfect
    BFGS(atoms, logfile=None).run(fmax=5e-5)
    assert result.unrelaxed_eV[0] == pytest.approx(unrelaxed, abs=1e-8)
    assert result.relaxed_eV[0] == pytest.approx(atoms.get_potential_energy() - 31 / 32 * perfect, abs=1e-5)
    assert result.relaxed_eV[0] < result.unrelaxed_eV[0]


def test_a_vacancy_that_feels_its_own_image_is_a_warning():
    small = System.from_ase(bulk("Ar", "fcc", a=5.27).repeat((1, 1, 2)))
    assert (
        "WARNING: the cell is too small, a vacancy feels its own image"
        in vacancy_formation(evaluator("lj"), small).verdict
    )
    assert "WARNING" not in vacancy_formation(evaluator("sw"), silicon(known_a0())).verdict


def test_unrelaxed_vacancies_are_exact_and_bad_ones_refused():
    crystal = silicon(known_a0())
    result = vacancy_formation(evaluator("sw"), crystal, (0, 5))
    np.testing.assert_allclose(result.unrelaxed_eV, 2.0 * EPSILON, atol=1e-4)
    assert np.isnan(result.relaxed_eV).all()
    assert "4.337 eV unrelaxed" in result.verdict
    assert f"8 atoms, {known_a0():.1f} Å between images" in result.verdict
    with pytest.raises(ValueError, match="left forces"):
        vacancy_formation(evaluator("sw"), crystal, relax=lambda systems: systems)
    with pytest.raises(ValueError, match="expected indices"):
        vacancy_formation(evaluator("sw"), crystal, (8,))
    compound = dataclasses.replace(crystal, atomic_numbers=np.array([14, 6] * 4))
    with pytest.raises(ValueError, match="what a removed atom goes to is a choice"):
        vacancy_formation(evaluator("sw"), compound)
