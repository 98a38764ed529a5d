"""Nudged elastic bands: barriers against ASE's, and what a result says."""

import dataclasses

import numpy as np
import pytest
from ase.mep import NEB
from ase.optimize import FIRE
from migration_case import bistable, pair, vacancy_jump

import mlipjax
from mlipjax import relaxation
from mlipjax.graph import VerletSpec
from mlipjax.potential import Model
from mlipjax.probes import initial_path, neb
from mlipjax.relaxation import ProbeDiverged


@pytest.fixture(scope="module")
def jump():
    """A converged band of the vacancy jump, float64."""
    return neb(pair(), vacancy_jump(), n_images=5, fmax=2e-3, dtype="float64")


def ase_band(images, climb, fmax):
    potential, params = pair()
    calculator = mlipjax.Calculator(potential, params)
    atoms = [system.to_ase() for system in images]
    for each in atoms:
        each.calc = calculator
    band = NEB(atoms, k=1.0, climb=climb, method="improvedtangent", allow_shared_calculator=True)
    FIRE(band, logfile=None).run(fmax=fmax, steps=1000)
    return np.array([a.get_potential_energy() for a in atoms]), np.array([a.positions for a in atoms])


def test_barrier_and_path_agree_with_ase(jump):
    assert jump.converged
    assert jump.climbed
    energies, positions = ase_band(jump.images, climb=True, fmax=1e-3)
    np.testing.assert_allclose(jump.energies_eV - jump.energies_eV[0], energies - energies[0], atol=1e-3)
    np.testing.assert_allclose(jump.positions, positions, atol=0.01)
    # from the path as it was given, by ASE alone: relaxed ends of ours, then its own relaxation
    start = [dataclasses.replace(jump.system, positions=p) for p in jump.positions[[0, -1]]]
    path = initial_path(start, 5, "linear")
    own, _ = ase_band([dataclasses.replace(jump.system, positions=p) for p in path], climb=True, fmax=2e-3)
    assert jump.forward_barrier_eV == pytest.approx(own.max() - own[0], abs=1e-3)
    assert jump.reverse_barrier_eV == pytest.approx(own.max() - own[-1], abs=1e-3)
    assert jump.forward_barrier_eV > 0.3


def test_the_climbing_image_is_a_saddle_point(jump):
    potential, params = pair()
    top = jump.images[jump.highest].to_ase()
    top.calc = mlipjax.Calculator(potential, params)
    assert np.linalg.norm(top.get_forces(), axis=1).max() < 2e-3
    tangent = jump.positions[jump.highest + 1] - jump.positions[jump.highest - 1]
    tangent /= np.linalg.norm(tangent)
    centre, sides = top.positions.copy(), []
    for sign in (-1.0, 1.0):
        top.positions = centre + sign * 0.05 * tangent
        sides.append(top.get_potential_energy())
    assert max(sides) < jump.energies_eV[jump.highest]


def test_symmetry_and_bookkeeping_of_a_result(jump):
    # the jump is its own reverse
    assert jump.forward_barrier_eV == pytest.approx(jump.reverse_barrier_eV, abs=2e-4)
    assert jump.reaction_energy_eV == pytest.approx(jump.energies_eV[-1] - jump.energies_eV[0])
    assert jump.fixed_path_barrier_eV > jump.forward_barrier_eV
    assert jump.image_fmax_eV_per_A.max() < jump.fmax_eV_per_A
    assert np.all(np.abs(np.diff(jump.positions, axis=0)).max(axis=(1, 2)) < 1.5)  # no jump across the cell
    report = jump.as_dict()
    assert report["converged"] is True
    assert "positions" not in report
    assert len(report["energies_eV"]) == 5
    assert jump.verdict.startswith(f"barrier {jump.forward_barrier_eV:.3f} eV forward")
    assert len(jump.figure().axes) == 1


@pytest.mark.slow
def test_single_precision_gives_the_same_barrier(jump):
    single = neb(pair(), jump.images, fmax=0.01, relax_ends=False, dtype="float32")
    assert single.converged
    assert single.forward_barrier_eV == pytest.approx(jump.forward_barrier_eV, abs=1e-3)


def test_a_band_that_is_not_converged_says_so():
    result = neb(pair(), vacancy_jump(), n_images=5, fmax=1e-3, max_steps=3, dtype="float64")
    assert not result.converged
    assert "NOT converged" in result.verdict
    assert result.steps == 3


def test_ends_that_relax_to_one_structure_are_no_path():
    first = vacancy_jump()[0]
    moves = np.random.default_rng(0).normal(size=first.positions.shape)
    near = dataclasses.replace(first, positions=first.positions + 0.02 * moves)
    result = neb(pair(), [first, near], n_images=5, fmax=0.02, dtype="float64")
    assert "WARNING: both ends are one structure once they are relaxed" in result.verdict
    assert "no barrier" not in result.verdict


def test_fixed_atoms_stay_and_ends_can_be_left_alone():
    first, last = bistable()
    free = np.array([False, False, True])
    result = neb(pair(), [first, last], n_images=5, free=free, relax_ends=False, fmax=0.01, dtype="float64")
    np.testing.assert_array_equal(result.positions[:, :2], np.broadcast_to(first.positions[:2], (5, 2, 3)))
    np.testing.assert_allclose(result.positions[[0, -1]], [first.positions, last.positions])
    # halfway between the fixed atoms the third one is free of force: the known saddle point
    np.testing.assert_allclose(result.positions[2, 2, 0], 3.0, atol=0.01)


@pytest.mark.slow
def test_one_inner_image_and_images_lower_than_the_ends():
    path = [dataclasses.replace(bistable()[0], positions=p) for p in initial_path(bistable(), 3)]
    free = np.array([False, False, True])
    three = neb(pair(), path, free=free, fmax=0.01, dtype="float64")
    assert three.converged
    assert len(three.energies_eV) == 3
    valley = neb(pair(), path[1:2] * 2, n_images=3, free=free, relax_ends=False, fmax=1e-3, max_steps=2)
    assert valley.forward_barrier_eV == pytest.approx(0.0, abs=1e-4)


def test_tables_that_do_not_suffice_are_built_again(jump, monkeypatch):
    builds = []
    original = relaxation.search.build_batch
    monkeypatch.setattr(relaxation.search, "build_batch", lambda *a: builds.append(1) or original(*a))
    spec = VerletSpec.for_systems(vacancy_jump(), pair()[0].cutoff, skin=0.1)
    tight = dataclasses.replace(spec, n_candidates=4, n_neighbors=4)
    narrow = neb(pair(), vacancy_jump(), n_images=5, fmax=2e-3, dtype="float64", spec=tight)
    # three searches (images as given, ends, band), and again because atoms moved more than half the skin
    assert len(builds) > 4
    assert narrow.forward_barrier_eV == pytest.approx(jump.forward_barrier_eV, abs=1e-5)


def test_energies_that_are_not_finite_are_an_error():
    potential, params = pair()
    with pytest.raises(ProbeDiverged, match="not finite"):
        neb(Model(potential, {**params, "epsilon": np.nan}), vacancy_jump(), n_images=5, dtype="float64")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: dataclasses.replace(s, atomic_numbers=np.arange(31)), "other atoms"),
        (lambda s: dataclasses.replace(s, cell=s.cell * 1.1), "another cell"),
        (lambda s: dataclasses.replace(s, pbc=(True, True, False)), "pbc"),
    ],
)
def test_images_that_do_not_fit_are_refused(change, message):
    first, last = vacancy_jump()
    with pytest.raises(ValueError, match=message):
        neb(pair(), [first, change(last)])


def test_bad_options_are_refused():
    ends = vacancy_jump()
    with pytest.raises(ValueError, match="at least one image between"):
        neb(pair(), ends, n_images=2)
    with pytest.raises(ValueError, match="a path needs at least its two ends"):
        neb(pair(), ends[:1])
    with pytest.raises(ValueError, match="does not know Ne"):
        neb(pair(), [dataclasses.replace(s, atomic_numbers=np.full(31, 10)) for s in ends])
    with pytest.raises(ValueError, match="the mask of free"):
        neb(pair(), ends, free=np.ones(5, bool))
    with pytest.raises(ValueError, match="interpolation"):
        neb(pair(), ends, interpolation="spline")
    with pytest.raises(ValueError, match="dtype"):
        neb(pair(), ends, dtype="float16")
