"""Layers, sliding energies against lattice sums, and gamma surfaces with and without symmetry."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, mx2
from ase.spacegroup import crystal
from migration_case import pair
from scipy.optimize import minimize_scalar

from mlipjax.probes import SlidingSettings, gamma_surface, slide
from mlipjax.probes.sliding_layers import equivalent_shifts, layered
from mlipjax.system import System

SIGMA, EPSILON, CUTOFF = 2.3, 0.4, 5.0
A, HEIGHT = 2.6, 3.0
# layers are nearer to each other than copper atoms usually are, and held together by definition
SETTINGS = SlidingSettings(relaxed=False, dtype="float64", bond_factor=1.0)


def square_layers():
    """One flat square layer per cell: the registry energy is a lattice sum that anybody can do."""
    return System.from_ase(Atoms("Cu", [[0.3, 0.2, 1.1]], cell=[A, A, HEIGHT], pbc=True))


def lattice_sum(shift, height, sigma=SIGMA):
    """Energy per cell of layers stacked with ``shift`` (2,) from each to the next, eV, by brute force."""
    n = np.arange(-4, 5)
    i, j, k = (axis.ravel() for axis in np.meshgrid(n, n, n, indexing="ij"))
    vectors = np.column_stack([A * i + k * shift[0], A * j + k * shift[1], k * height])
    r2 = np.sum(vectors**2, axis=1)
    r2 = r2[(r2 > 0) & (r2 < CUTOFF**2)]
    s6 = (sigma**2 / r2) ** 3
    return float(np.sum(2.0 * EPSILON * (s6**2 - s6) * (1.0 - r2 / CUTOFF**2) ** 3))


def antimony_telluride():
    sites = [(0, 0, 0.3988), (0, 0, 0.2128), (0, 0, 0)]
    return crystal(["Sb", "Te", "Te"], sites, spacegroup=166, cellpar=[4.264, 4.264, 30.46, 90, 90, 120])


def molybdenum_disulfide():
    atoms = mx2("MoS2", size=(1, 1, 1))
    atoms.cell[2] = [0.0, 0.0, 6.2]
    atoms.pbc = True
    return System.from_ase(atoms)


def test_rigid_sliding_is_the_lattice_sum():
    profile = slide(pair(), square_layers(), vector=(1.0, 1.0), n_points=5, settings=SETTINGS)
    shifts = np.linspace(0.0, A, 5)
    expected = np.array([lattice_sum((t, t), HEIGHT) for t in shifts])
    np.testing.assert_allclose(profile.rigid_meV_per_A2, 1e3 * (expected - expected[0]) / A**2, atol=1e-8)
    np.testing.assert_allclose(profile.shift_A, np.sqrt(2.0) * shifts)
    assert profile.rigid_meV_per_A2[-1] == pytest.approx(0.0, abs=1e-8)  # a whole period
    assert np.isnan(profile.relaxed_meV_per_A2).all()
    assert profile.gap_A == pytest.approx(HEIGHT)
    assert "1 layer per cell, gap 3.00 Å" in profile.verdict


@pytest.mark.slow
def test_relaxed_sliding_finds_the_best_height():
    settings = dataclasses.replace(SETTINGS, relaxed=True, fmax=1e-5, max_steps=2000)
    profile = slide(pair(), square_layers(), vector=(0.5, 0.5), n_points=3, settings=settings)
    best = [minimize_scalar(lambda h, t=t: lattice_sum((t, t), h), (2.0, 2.6)) for t in (0.0, A / 4, A / 2)]
    energies, heights = (np.array([getattr(found, name) for found in best]) for name in ("fun", "x"))
    assert profile.converged
    np.testing.assert_allclose(profile.relaxed_meV_per_A2, 1e3 * (energies - energies[0]) / A**2, atol=1e-3)
    np.testing.assert_allclose(profile.opening_A, heights - heights[0], atol=1e-4)
    assert profile.opening_A[-1] < -0.3
    assert "another stacking is lower" in profile.verdict  # free to come closer, atoms prefer hollows
    assert len(profile.figure().axes) == 1


@pytest.mark.slow
def test_a_reduced_surface_is_the_full_one():
    reduced = gamma_surface(pair(), square_layers(), n=4, settings=SETTINGS)
    full = gamma_surface(pair(), square_layers(), n=4, reduce=False, settings=SETTINGS)
    assert full.n_computed == 16
    assert reduced.n_computed == 6  # p4mm on a 4 x 4 grid
    np.testing.assert_allclose(reduced.rigid_meV_per_A2, full.rigid_meV_per_A2, atol=1e-8)
    expected = [[lattice_sum((A * i / 4, A * j / 4), HEIGHT) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(full.rigid_meV_per_A2, 1e3 * (np.array(expected) - expected[0][0]) / A**2, atol=1e-8)
    assert full.figure().axes[0].get_aspect() == 1.0
    assert "16 of 16" in full.verdict


@pytest.mark.slow
@pytest.mark.parametrize("shear", [0.0, 0.7])
def test_symmetry_serves_oblique_and_centred_layers(shear):
    cell = np.array([[2.7, 0.0, 0.0], [shear, 4.1, 0.0], [0.4, 0.6, 3.1]])
    layer = System.from_ase(Atoms("Cu2", scaled_positions=[[0, 0, 0], [0.45, 0.5, 0.02]], cell=cell, pbc=True))
    reduced = gamma_surface(pair(), layer, n=4, settings=dataclasses.replace(SETTINGS, bond_factor=1.1))
    full = gamma_surface(pair(), layer, n=4, reduce=False, settings=dataclasses.replace(SETTINGS, bond_factor=1.1))
    assert reduced.n_computed <= 16
    np.testing.assert_allclose(reduced.rigid_meV_per_A2, full.rigid_meV_per_A2, atol=1e-8)


def test_quintuple_layers_are_found_in_any_orientation():
    atoms = antimony_telluride()
    reference = layered(System.from_ase(atoms))
    assert np.bincount(reference.layer).tolist() == [5, 5, 5]
    np.testing.assert_allclose(reference.gaps, 2.8104, atol=1e-3)
    atoms.rotate(40, (1, 2, 0.3), rotate_cell=True)
    atoms.positions += [1.0, -2.0, 7.7]
    atoms.wrap()
    turned = layered(System.from_ase(atoms))
    np.testing.assert_allclose(turned.gaps, reference.gaps, atol=1e-6)
    assert turned.area == pytest.approx(reference.area)
    # every layer is Te-Sb-Te-Sb-Te from bottom to top
    numbers, heights = np.asarray(turned.system.atomic_numbers), turned.system.positions[:, 2]
    for k in range(3):
        rows = np.flatnonzero(turned.layer == k)
        assert numbers[rows[np.argsort(heights[rows])]].tolist() == [52, 51, 52, 51, 52]


def test_only_the_chosen_interface_slips():
    found = layered(System.from_ase(antimony_telluride()), interface=1)
    assert found.interface == 1
    shift = np.array([0.5, 0.3])
    before, after = found.system.to_ase(), found.slipped(shift).to_ase()
    top = int(np.argmax(found.system.positions[:, 2]))
    bottom = int(np.argmin(found.system.positions[:, 2]))
    inside = [int(np.flatnonzero(found.layer == k)[0]) for k in (0, 1)]
    assert after.get_distance(*inside) == before.get_distance(*inside)
    moved = (after.cell[2] - before.cell[2])[:2]
    np.testing.assert_allclose(moved, shift)
    assert found.layer[top] == 2
    assert found.layer[bottom] == 0


def test_symmetry_of_known_layers():
    tellurium = layered(System.from_ase(antimony_telluride()))
    assert len(np.unique(equivalent_shifts(tellurium, 6))) == 10  # p3m1
    disulfide = layered(molybdenum_disulfide())
    assert np.bincount(disulfide.layer).tolist() == [3]
    assert len(np.unique(equivalent_shifts(disulfide, 6))) == 7  # p3m1 and the horizontal mirror
    # a supercell repeats the surface of its cell
    doubled = System.from_ase(antimony_telluride().repeat((2, 2, 1)))
    assert len(np.unique(equivalent_shifts(layered(doubled), 6))) == len(np.unique(equivalent_shifts(tellurium, 3)))


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        (lambda: System.from_ase(bulk("Cu", cubic=True)), {}, "connected along its third lattice vector"),
        (lambda: dataclasses.replace(square_layers(), pbc=(True, True, False)), {}, "periodic along all three"),
        (square_layers, {"interface": 3, "bond_factor": 1.0}, "interface 3 does not exist"),
    ],
)
def test_crystals_that_cannot_slide_are_refused(system, options, message):
    with pytest.raises(ValueError, match=message):
        layered(system(), **options)


def test_bad_paths_are_refused():
    with pytest.raises(ValueError, match="at least 3 points"):
        slide(pair(), square_layers(), n_points=2)
    with pytest.raises(ValueError, match="vector"):
        slide(pair(), square_layers(), vector=(0.0, 0.0))
    with pytest.raises(ValueError, match="at least 2 points"):
        gamma_surface(pair(), square_layers(), n=1)
