"""Forces and stress are derivatives of the energy: central differences on structures that are not special."""

import numpy as np
import pytest
from tiny_nequip import molecule, predict, skewed_crystal, slab

STEP = 1e-4  # Å; the error of the differences is about STEP^2


def energies(*systems):
    return predict(*systems).energy[: len(systems)]


@pytest.mark.parametrize("build", [skewed_crystal, molecule, slab])
def test_forces_are_minus_the_slope_of_the_energy(build):
    system = build()
    forces = predict(system).forces
    differences = np.zeros((system.n_atoms, 3))
    for atom, axis in np.ndindex(differences.shape):
        step = np.zeros_like(system.positions)
        step[atom, axis] = STEP
        high, low = energies(*(system.replace(positions=system.positions + s) for s in (step, -step)))
        differences[atom, axis] = -(high - low) / (2 * STEP)
    np.testing.assert_allclose(forces[: system.n_atoms], differences, atol=1e-7)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-12)


def test_stress_is_the_slope_of_the_energy_with_strain_per_volume():
    system = skewed_crystal()
    volume = abs(np.linalg.det(system.cell))
    stress = predict(system).stress[0]
    np.testing.assert_allclose(stress, stress.T, atol=1e-14)
    for row, column in np.argwhere(np.triu(np.ones((3, 3)))):
        strain = np.zeros((3, 3))
        strain[row, column] += 0.5 * STEP
        strain[column, row] += 0.5 * STEP
        strained = (
            system.replace(positions=system.positions @ (np.eye(3) + e), cell=system.cell @ (np.eye(3) + e))
            for e in (strain, -strain)
        )
        high, low = energies(*strained)
        assert stress[row, column] == pytest.approx((high - low) / (2 * STEP) / volume, abs=1e-8)


def test_structures_without_a_volume_have_no_stress():
    np.testing.assert_array_equal(predict(molecule(), slab()).stress, 0.0)


def test_isolated_atoms_feel_nothing():
    atom = molecule().replace(positions=np.zeros((1, 3)), atomic_numbers=np.array([8], np.int32))
    prediction = predict(atom)
    np.testing.assert_array_equal(prediction.forces, 0.0)
    assert np.isfinite(prediction.energy).all()
