"""Every probe says the same of the same crystal, whatever lattice vectors, images and order it is written in."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from analytic_case import PARAMS, evaluator, known_a0, potential_of, silicon, softening_against
from ase.build import bulk
from hypothesis import given, settings
from hypothesis import strategies as st
from lattice_case import described, redescribed, rotated_elastic, sharp_angles

from mlipjax.doctor.splits import displacement, distance_change, fingerprint
from mlipjax.potential import Model
from mlipjax.probes.diffusion import diffusion
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.eos import equation_of_state
from mlipjax.probes.events import bond_events
from mlipjax.probes.gamma import gamma_modes
from mlipjax.probes.neb import initial_path
from mlipjax.probes.order import crystal_order
from mlipjax.probes.phonons import phonons
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.sliding import SlidingSettings, slide
from mlipjax.probes.softening import rattled
from mlipjax.probes.trajectory import Trajectory
from mlipjax.probes.vacancy import vacancy_formation
from mlipjax.probes.vibrations import vibrational_spectrum
from mlipjax.relaxation.path import arc_length
from mlipjax.system import System

GOLDEN = json.loads(Path(__file__).with_name("phonopy_golden.json").read_text(encoding="utf-8"))
"""By ``make_phonopy_golden.py``."""

SEEDS = st.integers(0, 10**6)
FEW = settings(max_examples=6, deadline=None, derandomize=True)


def primitive():
    return System.from_ase(bulk("Si", "diamond", a=known_a0()))


def argon(repeat=1):
    return System.from_ase(bulk("Ar", "hcp", a=3.72, c=6.2).repeat(repeat))


@given(SEEDS)
@FEW
def test_equation_of_state(seed):
    first, other = (equation_of_state(evaluator("sw"), s) for s in (primitive(), described(primitive(), seed).system))
    assert other.volume == pytest.approx(first.volume, rel=1e-9)
    assert other.bulk_modulus_GPa == pytest.approx(first.bulk_modulus_GPa, rel=1e-6)


@given(SEEDS)
@FEW
def test_elastic_constants_turn_with_the_crystal(seed):
    other = described(primitive(), seed)
    first, turned = (elastic_constants(evaluator("sw"), system) for system in (primitive(), other.system))
    assert first.relaxed_GPa[3, 3] > 1.0
    # 0.1 GPa is what finite strains along other axes differ by (third order)
    np.testing.assert_allclose(turned.relaxed_GPa, rotated_elastic(first.relaxed_GPa, other.rotation), atol=0.1)
    assert turned.bulk_modulus_GPa == pytest.approx(first.bulk_modulus_GPa, abs=0.02)


@given(SEEDS)
@FEW
def test_gamma_modes(seed):
    first, other = (
        gamma_modes(Model(potential_of("sw"), PARAMS), system)
        for system in (silicon(), described(silicon(), seed).system)
    )
    np.testing.assert_allclose(other.vibrations_THz, first.vibrations_THz, atol=1e-6)
    assert other.n_imaginary == first.n_imaginary


@given(SEEDS)
@FEW
def test_phonons_at_any_wave_vector(seed):
    """A supercell of twice the lattice vectors: so small that most pairs have several nearest images."""
    other = described(primitive(), seed)
    assert sharp_angles(other.system.cell)
    first, turned = (
        phonons(evaluator("sw"), s, repeat=(2, 2, 2), displacement=0.002, mesh=2) for s in (primitive(), other.system)
    )
    for q in np.random.default_rng(seed).uniform(-0.5, 0.5, (6, 3)):
        # lattice vectors n are n' @ matrix in the new ones, and a phase is n . q
        np.testing.assert_allclose(turned.at(other.matrix @ q), first.at(q), atol=2e-4)
    assert turned.image_distance_A == pytest.approx(first.image_distance_A)


@pytest.mark.parametrize("name", sorted(GOLDEN["cells"]))
def test_phonons_of_cells_that_are_not_reduced_are_those_of_phonopy(name):
    cell = GOLDEN["cells"][name]
    crystal = primitive()
    crystal = dataclasses.replace(crystal, cell=np.array(cell["matrix"]) @ crystal.cell)
    assert sharp_angles(crystal.cell)
    found = phonons(
        evaluator("sw"), crystal, repeat=tuple(GOLDEN["repeat"]), displacement=GOLDEN["displacement"], mesh=1
    )
    for q, known in zip(GOLDEN["wave_vectors"], cell["frequencies_THz"], strict=True):
        np.testing.assert_allclose(found.at(q), known, atol=5e-4)


def test_phonons_choose_a_supercell_that_holds_twice_the_range_of_forces():
    crystal = System.from_ase(bulk("Ar", "fcc", a=5.27))
    other = described(crystal, 11)
    first, turned = (phonons(evaluator("lj"), system, mesh=2) for system in (crystal, other.system))
    for found in (first, turned):
        assert found.image_distance_A >= 2 * potential_of("lj").cutoff
        assert len(found.home) == 125
        assert "WARNING: the supercell" not in found.verdict
    # of a pair potential that is enough for every wave vector, whichever supercell it is
    for q in np.random.default_rng(0).uniform(-0.5, 0.5, (8, 3)):
        np.testing.assert_allclose(turned.at(other.matrix @ q), first.at(q), atol=1e-4)
    small = phonons(evaluator("lj"), crystal, repeat=(2, 2, 2), mesh=2)
    assert "WARNING: the supercell is too small" in small.verdict
    with pytest.raises(ValueError, match="three whole numbers"):
        phonons(evaluator("lj"), crystal, repeat=(2, 0, 2))


@given(SEEDS)
@FEW
def test_vacancies(seed):
    crystal = silicon(known_a0())
    first, other = (vacancy_formation(evaluator("sw"), s) for s in (crystal, described(crystal, seed).system))
    assert other.unrelaxed_eV[0] == pytest.approx(first.unrelaxed_eV[0], abs=1e-8)


@given(SEEDS)
@FEW
def test_softening(seed):
    structures = rattled(silicon(), (0.05, 0.2), n_each=2)
    first = softening_against(evaluator("lj_of_si"), evaluator("sw"), structures)
    others = [described(structure, seed + k).system for k, structure in enumerate(structures)]
    other = softening_against(evaluator("lj_of_si"), evaluator("sw"), others)
    assert other.slope == pytest.approx(first.slope, rel=1e-8)


def trajectories(seed, system, n_frames=80, step=0.12, spacing=0.01):
    """A random walk of a crystal's atoms about their places and away from them, and the same described otherwise."""
    rng = np.random.default_rng(seed)
    noise = np.cumsum(rng.normal(size=(n_frames, system.n_atoms, 3)), axis=0) * step
    frames = [dataclasses.replace(system, positions=system.positions + move) for move in noise]
    other = described(system, seed)
    again = [redescribed(frame, other.matrix, other.order, other.rotation, rng) for frame in frames]
    return Trajectory.from_systems(frames, spacing), Trajectory.from_systems(again, spacing), other


@given(SEEDS)
@FEW
def test_trajectories(seed):
    first, other, description = trajectories(seed, argon((2, 2, 1)))
    np.testing.assert_allclose(
        radial_distribution(other, longest=7.0).g, radial_distribution(first, longest=7.0).g, atol=1e-8
    )
    msd, again = diffusion(first), diffusion(other)
    np.testing.assert_allclose(again.msd, msd.msd, atol=1e-7)
    np.testing.assert_allclose(again.exponents, msd.exponents, atol=1e-7)
    short = slice(0, 12)
    mean, turned = (crystal_order(t.part(short), 4.6) for t in (first, other))
    np.testing.assert_allclose(turned.mean, mean.mean, atol=1e-7)
    events, same = bond_events(first.part(short)), bond_events(other.part(short))
    assert [(e.frame, e.kind) for e in same.events] == [(e.frame, e.kind) for e in events.events]
    old = description.order
    assert {tuple(sorted(old[list(e.atoms)].tolist())) for e in same.events} == {e.atoms for e in events.events}
    assert same.largest_step_A == pytest.approx(events.largest_step_A)


@given(SEEDS)
@FEW
def test_spectra_of_wrapped_positions(seed):
    crystal = argon((2, 2, 1))
    time = 0.01 * np.arange(600)
    swing = 0.2 * np.sin(2 * np.pi * np.array([3.0, 5.0])[None, :] * time[:, None])
    moves = np.zeros((600, crystal.n_atoms, 3))
    moves[:, 0, 0], moves[:, 1, 0], moves[:, 2, 1], moves[:, 3, 1] = (
        swing[:, 0],
        -swing[:, 0],
        swing[:, 1],
        -swing[:, 1],
    )
    frames = [dataclasses.replace(crystal, positions=crystal.positions + move) for move in moves]
    other = described(crystal, seed)
    rng = np.random.default_rng(seed)
    again = [redescribed(frame, other.matrix, other.order, other.rotation, rng) for frame in frames]
    first, turned = (vibrational_spectrum(Trajectory.from_systems(f, 0.01)) for f in (frames, again))
    np.testing.assert_allclose(turned.density, first.density, atol=1e-8)
    assert min(abs(first.peak_THz - f) for f in (3.0, 5.0)) < 0.2


@given(SEEDS)
@FEW
def test_paths_between_structures(seed):
    first = argon((2, 2, 1))
    rng = np.random.default_rng(seed)
    second = dataclasses.replace(first, positions=first.positions + 0.5 * rng.normal(size=first.positions.shape))
    other = described(first, seed)
    ends = [redescribed(s, other.matrix, other.order, other.rotation, rng) for s in (first, second)]
    for interpolation in ("linear", "idpp"):
        path = initial_path([first, second], 5, interpolation)
        again = initial_path(ends, 5, interpolation)
        np.testing.assert_allclose(arc_length(again), arc_length(path), atol=5e-4)


@given(SEEDS)
@FEW
def test_displacements_between_frames(seed):
    first = argon((2, 2, 1))
    rng = np.random.default_rng(seed)
    second = dataclasses.replace(first, positions=first.positions + 0.4 * rng.normal(size=first.positions.shape))
    other = described(first, seed)
    a, b = (redescribed(s, other.matrix, other.order, other.rotation, rng) for s in (first, second))
    assert displacement(a, b) == pytest.approx(displacement(first, second), abs=1e-9)
    assert distance_change(fingerprint(a), fingerprint(b)) == pytest.approx(
        distance_change(fingerprint(first), fingerprint(second)), abs=1e-5
    )


@given(st.integers(0, 50))
@settings(max_examples=3, deadline=None, derandomize=True)
def test_sliding(seed):
    """Layers lie in the first two vectors; the third may be any that completes the lattice, in either direction."""
    layers = System.from_ase(bulk("Ar", "hcp", a=3.72, c=6.9))
    plain = SlidingSettings(relaxed=False, dtype="float64", bond_factor=1.0)
    first = slide(Model(potential_of("lj"), PARAMS), layers, n_points=3, settings=plain)
    other = described(layers, seed, in_plane=False)
    turned = slide(Model(potential_of("lj"), PARAMS), other.system, n_points=3, settings=plain)
    assert turned.n_layers == first.n_layers
    assert turned.gap_A == pytest.approx(first.gap_A, abs=1e-9)
    np.testing.assert_allclose(turned.rigid_meV_per_A2, first.rigid_meV_per_A2, atol=1e-6)


def rattling(atoms, n_frames=4):
    """Frames of a crystal about its places, each atom in the cell."""
    frames = [atoms.copy() for _ in range(n_frames)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.002, seed=seed)
        frame.wrap()
    return Trajectory.from_systems([System.from_ase(frame) for frame in frames], 0.01)


@pytest.mark.parametrize(
    ("crystal", "neighbors"),
    [(bulk("Si"), 4), (bulk("Cu"), 12), (bulk("Mg"), 12), (bulk("ZnS", "zincblende", a=5.41), 4)],
)
def test_bonds_to_all_images_count_however_small_the_cell(crystal, neighbors):
    for repeat in (1, (2, 1, 1), 3):
        found = bond_events(rattling(crystal.repeat(repeat)))
        for coordination in found.coordination.values():
            np.testing.assert_array_equal(coordination, neighbors)
        total = sum(counts[-1] for counts in found.bonds.values())
        assert total == len(crystal.repeat(repeat)) * neighbors / 2
        assert found.events == ()


def test_a_bond_to_an_image_that_breaks_is_an_event():
    """A chain of one atom a cell, stretched: its one bond, to its own image, breaks."""
    chain = dataclasses.replace(argon(), positions=np.zeros((1, 3)), atomic_numbers=np.array([14]))
    lengths = (2.3, 2.3, 3.0, 3.6, 2.9, 2.3)
    frames = [dataclasses.replace(chain, cell=np.diag([length, 9.0, 9.0])) for length in lengths]
    found = bond_events(Trajectory.from_systems(frames, 0.01))
    assert found.coordination["Si"].tolist() == [2.0, 2.0, 2.0, 0.0, 0.0, 2.0]
    assert [(e.frame, e.kind, e.atoms) for e in found.events] == [(3, "broken", (0, 0)), (5, "formed", (0, 0))]
