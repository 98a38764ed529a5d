"""Nudged elastic bands: the forces on images, the paths they start from, and barriers against ASE's."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from ase.mep import NEB
from ase.mep.neb import NEBState
from ase.optimize import FIRE
from migration_case import bistable, pair, vacancy_jump

import mlipjax
from mlipjax.notices import Notice
from mlipjax.probes import initial_path, neb, relax
from mlipjax.relaxation.band import band_forces
from mlipjax.relaxation.batch import BatchSpec
from mlipjax.relaxation.path import arc_length, exchanged_atoms, idpp, resampled, unwrapped
from mlipjax.relaxation.run import Engine, ProbeDiverged
from mlipjax.system import System


@pytest.fixture(scope="module")
def jump():
    """A converged band of the vacancy jump, float64."""
    return neb(*pair(), vacancy_jump(), n_images=5, fmax=2e-3, dtype="float64")


def ase_band(images, climb, fmax):
    potential, params = pair()
    calculator = mlipjax.Calculator(potential, params)
    atoms = [system.to_ase() for system in images]
    for each in atoms:
        each.calc = calculator
    band = NEB(atoms, k=1.0, climb=climb, method="improvedtangent", allow_shared_calculator=True)
    FIRE(band, logfile=None).run(fmax=fmax, steps=1000)
    return np.array([a.get_potential_energy() for a in atoms]), np.array([a.positions for a in atoms])


def test_forces_on_a_band_are_those_of_ase():
    rng = np.random.default_rng(0)
    n_images, n_atoms = 7, 4
    path = np.cumsum(rng.normal(size=(n_images, n_atoms, 3)), axis=0)
    for trial in range(5):
        energies = rng.normal(size=n_images)
        energies[3] = 3.0 + trial
        forces = rng.normal(size=(n_images, n_atoms, 3))
        images = [Atoms("H4", positions) for positions in path]
        band = NEB(images, k=0.7, climb=True, method="improvedtangent")
        band.energies, band.real_forces = energies, forces
        band.emax, band.imax = energies[3], 3
        state = NEBState(band, images, energies)
        reference = forces[1:-1].copy()
        for i in range(1, n_images - 1):
            spring1, spring2 = state.spring(i - 1), state.spring(i)
            tangent = band.neb_method.get_tangent(state, spring1, spring2, i)
            along = np.vdot(forces[i], tangent)
            if i == 3:
                reference[i - 1] -= 2.0 * along * tangent
            else:
                band.neb_method.add_image_force(state, along, tangent, reference[i - 1], spring1, spring2, i)
        ours, slope = band_forces(jnp.asarray(path), jnp.asarray(energies), jnp.asarray(forces[1:-1]), 0.7, True)
        np.testing.assert_allclose(ours, reference, atol=1e-12)
        assert slope.shape == (n_images - 2,)


def test_no_image_climbs_above_an_end_that_is_highest():
    rng = np.random.default_rng(1)
    path, forces = np.cumsum(rng.normal(size=(5, 2, 3)), axis=0), rng.normal(size=(3, 2, 3))
    downhill = np.array([2.0, 1.0, 0.5, 0.2, 0.0])
    still, _ = band_forces(jnp.asarray(path), jnp.asarray(downhill), jnp.asarray(forces), 1.0, False)
    climbing, _ = band_forces(jnp.asarray(path), jnp.asarray(downhill), jnp.asarray(forces), 1.0, True)
    np.testing.assert_array_equal(still, climbing)


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
    single = neb(*pair(), jump.images, fmax=0.01, relax_ends=False, dtype="float32")
    assert single.converged
    assert single.forward_barrier_eV == pytest.approx(jump.forward_barrier_eV, abs=1e-3)


def test_a_band_that_is_not_converged_says_so():
    result = neb(*pair(), vacancy_jump(), n_images=5, fmax=1e-3, max_steps=3, dtype="float64")
    assert not result.converged
    assert "NOT converged" in result.verdict
    assert result.steps == 3


def test_fixed_atoms_stay_and_ends_can_be_left_alone():
    first, last = bistable()
    free = np.array([False, False, True])
    result = neb(*pair(), [first, last], n_images=5, free=free, relax_ends=False, fmax=0.01, dtype="float64")
    np.testing.assert_array_equal(result.positions[:, :2], np.broadcast_to(first.positions[:2], (5, 2, 3)))
    np.testing.assert_allclose(result.positions[[0, -1]], [first.positions, last.positions])
    # halfway between the fixed atoms the third one is free of force: the known saddle point
    np.testing.assert_allclose(result.positions[2, 2, 0], 3.0, atol=0.01)


@pytest.mark.slow
def test_one_inner_image_and_images_lower_than_the_ends():
    path = [dataclasses.replace(bistable()[0], positions=p) for p in initial_path(bistable(), 3)]
    free = np.array([False, False, True])
    three = neb(*pair(), path, free=free, fmax=0.01, dtype="float64")
    assert three.converged
    assert len(three.energies_eV) == 3
    valley = neb(*pair(), path[1:2] * 2, n_images=3, free=free, relax_ends=False, fmax=1e-3, max_steps=2)
    assert valley.forward_barrier_eV == pytest.approx(0.0, abs=1e-4)


def test_tables_that_do_not_suffice_are_rebuilt(jump, monkeypatch):
    builds = []
    original = Engine._fit
    monkeypatch.setattr(Engine, "_fit", lambda *arguments: builds.append(1) or original(*arguments))
    narrow = neb(*pair(), vacancy_jump(), n_images=5, fmax=2e-3, dtype="float64", skin=0.1)
    # four searches (images and ends as given, ends, band), and rebuilds because atoms moved more than half the skin
    assert len(builds) > 4
    assert narrow.forward_barrier_eV == pytest.approx(jump.forward_barrier_eV, abs=1e-5)


@pytest.mark.slow
def test_too_few_slots_are_noticed(monkeypatch):
    potential, params = pair()
    true_sizes = BatchSpec.for_systems

    def too_small(systems, cutoff, skin=1.0, n_neighbors=0):
        return dataclasses.replace(true_sizes(systems, cutoff, skin), n_neighbors=max(n_neighbors, 1))

    enough = relax(potential, params, bistable(), max_steps=5, dtype="float64")
    monkeypatch.setattr(BatchSpec, "for_systems", too_small)
    grown = relax(potential, params, bistable(), max_steps=5, dtype="float64")
    np.testing.assert_allclose(grown.energies, enough.energies)


@pytest.mark.slow
def test_relaxations_do_not_depend_on_their_company():
    potential, params = pair()
    first, last = vacancy_jump()
    alone = relax(potential, params, [first, first], fmax=1e-3, dtype="float64")
    together = relax(potential, params, [first, last], fmax=1e-3, dtype="float64")
    np.testing.assert_allclose(alone.systems[0].positions, together.systems[0].positions, atol=1e-9)
    assert together.converged.all()
    assert np.all(together.energies < together.initial_energies)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["isotropic", "full"])
def test_a_relaxed_cell_has_no_stress(cell):
    potential, params = pair()
    crystal = Atoms(
        "Cu4", cell=3.9 * np.eye(3), pbc=True, scaled_positions=[[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    )
    crystal.rattle(0.05, seed=0)
    relaxed = relax(potential, params, [System.from_ase(crystal)], cell=cell, fmax=1e-5, dtype="float64")
    atoms = relaxed.systems[0].to_ase()
    atoms.calc = mlipjax.Calculator(potential, params)
    stress = atoms.get_stress()
    assert relaxed.converged.all()
    assert abs(stress[:3].sum()) < 1e-5
    if cell == "full":
        assert np.abs(stress).max() < 1e-5


def test_energies_that_are_not_finite_are_an_error():
    potential, params = pair()
    with pytest.raises(ProbeDiverged, match="not finite"):
        neb(potential, {**params, "epsilon": np.nan}, vacancy_jump(), n_images=5, dtype="float64")


def test_unwrapped_paths_and_their_lengths():
    system = System.from_ase(
        Atoms("Cu2", [[0.2, 0, 0], [2, 2, 2]], cell=[[4, 0, 0], [1, 4, 0], [0, 0, 9]], pbc=[1, 1, 0])
    )
    wrapped = dataclasses.replace(system, positions=system.positions + np.array([[3.7, 0, 0], [0, 0, -8.0]]))
    path = unwrapped([system, wrapped])
    np.testing.assert_allclose(path[1] - path[0], [[-0.3, 0, 0], [0, 0, -8.0]], atol=1e-12)
    assert arc_length(path)[-1] == pytest.approx(np.hypot(0.3, 8.0))
    np.testing.assert_allclose(np.diff(arc_length(resampled(path, 6))), np.hypot(0.3, 8.0) / 5)


def test_idpp_keeps_atoms_apart_where_a_straight_line_does_not():
    # an atom goes around another one that sits on the straight line
    ends = [System.from_ase(Atoms("Cu2", [[x, 0.1, 0], [0, 0, 0]])) for x in (-2.0, 2.0)]
    straight = initial_path(ends, 7, "linear")
    curved = idpp(straight, ends[0])
    distance = lambda path: np.linalg.norm(path[:, 0] - path[:, 1], axis=1)  # noqa: E731
    assert distance(straight).min() < 0.2
    np.testing.assert_allclose(distance(curved), 2.0, atol=0.05)
    np.testing.assert_array_equal(curved[[0, -1]], straight[[0, -1]])


def test_idpp_leaves_fixed_atoms_on_the_straight_path():
    first, last = (System.from_ase(Atoms("Cu3", [[0, 0, 0], [4, 0, 0], [x, 0.4, 0]])) for x in (1.6, 2.4))
    held = initial_path([first, last], 5, free=np.array([False, False, True]))
    np.testing.assert_array_equal(held[:, :2], np.broadcast_to(first.positions[:2], (5, 2, 3)))
    assert np.abs(initial_path([first, last], 5)[2, :2] - first.positions[:2]).max() > 1e-4


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
        neb(*pair(), [first, change(last)])


def test_bad_options_are_refused():
    ends = vacancy_jump()
    with pytest.raises(ValueError, match="at least one image between"):
        neb(*pair(), ends, n_images=2)
    with pytest.raises(ValueError, match="a path needs at least its two ends"):
        neb(*pair(), ends[:1])
    with pytest.raises(ValueError, match="does not know Ne"):
        neb(*pair(), [dataclasses.replace(s, atomic_numbers=np.full(31, 10)) for s in ends])
    with pytest.raises(ValueError, match="the mask of free"):
        neb(*pair(), ends, free=np.ones(5, bool))
    with pytest.raises(ValueError, match="interpolation"):
        neb(*pair(), ends, interpolation="spline")
    with pytest.raises(ValueError, match="dtype"):
        neb(*pair(), ends, dtype="float16")
    with pytest.raises(ValueError, match="three independent vectors"):
        relax(*pair(), [bistable()[0]], cell="full")


def row(*places, numbers=None, cell=20.0):
    positions = np.array([[x, 1.0, 1.0] for x in places])
    return System(positions, np.array(numbers or [14] * len(places)), cell * np.eye(3), (True,) * 3)


def test_atoms_that_change_places_are_named():
    """Across a face of the cell too; atoms that move up in a row, or into a hole, exchange nothing."""
    first = row(1.0, 4.0, 19.0)
    with pytest.warns(Notice, match="Si 0 to the place of Si 1, Si 1 to the place of Si 0"):
        initial_path([first, row(4.0, 1.0, 19.0)], 5, "linear")
    assert exchanged_atoms(unwrapped([first, row(-1.0, 4.0, 21.0)]), first) == [(0, 2), (2, 0)]
    ring = exchanged_atoms(unwrapped([first, row(4.0, 19.0, 1.0)]), first)
    assert ring == [(0, 1), (1, 2), (2, 0)]
    assert exchanged_atoms(unwrapped([first, row(4.0, 7.0, 19.0)]), first) == []
    assert exchanged_atoms(unwrapped([first, row(1.2, 4.1, 19.0)]), first) == []
    others = row(1.0, 4.0, 19.0, numbers=[14, 6, 14])
    assert exchanged_atoms(unwrapped([others, row(4.0, 1.0, 19.0, numbers=[14, 6, 14])]), others) == []
