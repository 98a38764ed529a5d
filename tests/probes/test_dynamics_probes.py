"""Observables of trajectories that were made to have known values."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.geometry.rdf import get_rdf
from ase.io import write

from mlipjax.probes.diffusion import diffusion, mean_square_displacement
from mlipjax.probes.events import bond_events
from mlipjax.probes.order import averaged_q6, crystal_order
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.trajectory import Trajectory, read_trajectory, unwrapped
from mlipjax.probes.vibrations import vibrational_spectrum
from mlipjax.system import System


def box(positions, numbers, length=12.0, spacing=0.1):
    frames = len(positions)
    return Trajectory(positions, np.asarray(numbers), np.tile(length * np.eye(3), (frames, 1, 1)), (True,) * 3, spacing)


def walk(coefficient, n_frames=2000, n_atoms=24, spacing=0.1, seed=0):
    """Brownian motion with a known diffusion coefficient in Å^2/ps."""
    steps = np.random.default_rng(seed).normal(size=(n_frames, n_atoms, 3)) * np.sqrt(2.0 * coefficient * spacing)
    return np.cumsum(steps, axis=0)


def test_rdf_agrees_with_ase():
    rng = np.random.default_rng(1)
    frames = [Atoms("Cu20O12", rng.uniform(0, 11, (32, 3)), cell=[11, 12, 13], pbc=True) for _ in range(6)]
    trajectory = Trajectory.from_systems([System.from_ase(atoms) for atoms in frames], 1.0)
    result = radial_distribution(trajectory, longest=5.0, n_shells=25, n_blocks=3)
    ours = dict(zip(result.pairs, result.g, strict=True))
    for pair, elements in (("all", None), ("Cu-Cu", (29, 29)), ("O-Cu", (8, 29))):
        theirs = np.mean([get_rdf(atoms, 5.0, 25, elements=elements)[0] for atoms in frames], axis=0)
        np.testing.assert_allclose(ours[pair], theirs, rtol=1e-9)


def test_rdf_beyond_half_the_cell_counts_every_image():
    """Of a perfect crystal: shells of fcc hold 12, 6, 24, 12, 24 neighbours, in a cell of one atom."""
    a = 4.0
    crystal = System.from_ase(bulk("Al", "fcc", a=a))
    result = radial_distribution(Trajectory.from_systems([crystal] * 4, 1.0), longest=6.5, n_shells=130, n_blocks=2)
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, 6.5, 131) ** 3)
    counts = result.g[0] * shells * 4 / a**3
    np.testing.assert_allclose(counts[counts > 0], [12, 6, 24, 12, 24], rtol=1e-9)
    assert result.first_peak() == pytest.approx(a / np.sqrt(2), abs=0.03)
    np.testing.assert_allclose(result.error, 0.0, atol=1e-12)


def test_msd_is_the_sum_over_all_origins():
    path = walk(0.3, n_frames=30, n_atoms=3)
    direct = [[np.mean(np.sum((path[lag:, i] - path[: 30 - lag, i]) ** 2, -1)) for i in range(3)] for lag in range(30)]
    np.testing.assert_allclose(mean_square_displacement(path), direct, atol=1e-9)


def test_diffusion_of_a_random_walk_is_the_known_one():
    drift = np.array([0.02, 0.0, 0.0]) * np.arange(2000)[:, None, None]  # of all atoms together: no diffusion
    wrapped = (walk(0.4) + drift) % 12.0
    result = diffusion(box(wrapped, [3] * 24))
    # the centre of mass is held: its share of the motion, 1/24, is gone
    assert result.coefficients[0] == pytest.approx(0.4 * 23 / 24, abs=3 * result.errors[0])
    assert result.errors[0] < 0.05
    assert result.exponents[0] == pytest.approx(1.0, abs=0.1)
    assert "D(Li)" in result.verdict


@pytest.mark.parametrize(
    ("positions", "why"),
    [
        (0.2 * np.random.default_rng(0).normal(size=(400, 10, 3)), "move 0.4"),
        (np.arange(400)[:, None, None] * np.random.default_rng(1).normal(size=(10, 3)) * 0.05, "grows as t"),
        (walk(0.2, 120, 1) - 0 * walk(0.2, 120, 2)[:, :1], "blocks disagree|grows as|move|do not"),
    ],
    ids=["rattling", "ballistic", "too short"],
)
def test_diffusion_is_refused_where_there_is_none_to_fit(positions, why):
    numbers = [3] * positions.shape[1]
    result = diffusion(box(positions, numbers, length=200.0, spacing=0.05))
    assert np.isnan(result.coefficients[0])
    assert "refused" in result.verdict
    import re

    assert re.search(why, result.refusals[0])
    assert result.as_dict()["coefficients"] == [None]


def test_paths_are_followed_through_faces_and_ambiguous_ones_refused():
    path = walk(0.5, 300, 5)
    free, wrapped = box(path, [18] * 5), box(path % 12.0, [18] * 5)
    np.testing.assert_allclose(np.diff(unwrapped(wrapped), axis=0), np.diff(unwrapped(free), axis=0), atol=1e-9)
    jumpy = box(np.random.default_rng(0).uniform(0, 12, (10, 2, 3)), [18] * 2)
    with pytest.raises(ValueError, match="write frames more often"):
        unwrapped(jumpy)


def oscillators(frequencies, n_frames=4000, spacing=0.005):
    """Atoms that swing along x at known frequencies (THz), velocities in Å/ps of equal kinetic energy."""
    time = spacing * np.arange(n_frames)
    phase = np.random.default_rng(0).uniform(0, 2 * np.pi, len(frequencies))
    angular = 2 * np.pi * np.asarray(frequencies)
    velocity = np.zeros((n_frames, len(frequencies), 3))
    position = np.zeros_like(velocity)
    velocity[:, :, 0] = np.cos(angular * time[:, None] + phase)
    position[:, :, 0] = np.sin(angular * time[:, None] + phase) / angular + 3.0 * np.arange(len(frequencies))
    return position, velocity


def test_vibrational_spectrum_peaks_where_atoms_swing_and_integrates_to_one():
    position, velocity = oscillators([5.0, 12.0])
    trajectory = dataclasses.replace(box(position, [14, 14], 40.0, 0.005), velocities=velocity)
    result = vibrational_spectrum(trajectory)
    step = result.frequencies_THz[1]
    total = result.density[0]
    assert total.sum() * step - 0.5 * total[0] * step == pytest.approx(1.0, rel=1e-3)
    high = result.frequencies_THz > 8.0
    assert result.frequencies_THz[high][np.argmax(total[high])] == pytest.approx(12.0, abs=step)
    assert result.frequencies_THz[~high][np.argmax(total[~high])] == pytest.approx(5.0, abs=step)
    assert total[high].sum() * step == pytest.approx(0.5, abs=0.01)
    assert result.vacf[0] == pytest.approx(1.0)


def test_spectrum_of_positions_alone_and_of_coarse_frames():
    position, velocity = oscillators([5.0, 12.0], 3000)
    # opposite partners keep the centre of mass at rest
    both = np.concatenate([position, -position + 20.0], axis=1)
    result = vibrational_spectrum(box(both, [14] * 4, 40.0, 0.005))
    assert min(abs(result.peak_THz - f) for f in (5.0, 12.0)) < 0.2
    coarse = dataclasses.replace(box(position[::8], [14] * 2, 40.0, 0.04), velocities=velocity[::8])
    coarse = vibrational_spectrum(coarse)
    assert "WARNING" in coarse.verdict


def test_bond_events_have_hysteresis():
    """A hydrogen that swings about the forming distance is one event, not many; one that leaves is another."""
    covalent = 0.31 + 0.76
    distance = np.concatenate([
        np.full(5, 2.0), covalent * (1.15 + 0.1 * np.sin(np.arange(40))), np.full(5, 2.0), np.full(5, 1.1)
    ])  # fmt: skip
    positions = np.zeros((len(distance), 3, 3))
    positions[:, 1, 0] = distance
    positions[:, 2, 0] = -6.0 + 11.9  # a far hydrogen, next to the first across the face
    result = bond_events(box(positions, [6, 1, 1], 30.0))
    assert [(e.kind, e.pair, e.atoms) for e in result.events] == [
        ("formed", "C-H", (0, 1)), ("broken", "C-H", (0, 1)), ("formed", "C-H", (0, 1))
    ]  # fmt: skip
    assert result.count("formed", "C-H") == 2
    assert result.bonds["C-H"][0] == 0
    assert result.bonds["C-H"][-1] == 1
    assert result.coordination["H"][-1] == pytest.approx(0.5)
    assert "2 C-H formed" in result.verdict
    assert len(result.as_dict()["events"]) == 3


def test_bond_events_across_a_face_and_of_chosen_elements():
    positions = np.zeros((2, 4, 3))
    positions[:, 1, 0] = [9.0, 11.0]  # one Å from the first atom's image in the second frame
    positions[:, 2] = [5.0, 5.0, 5.0]
    positions[:, 3] = [[5.0, 5.0, 5.0 + z] for z in (2.5, 4.0)]
    result = bond_events(box(positions, [6, 1, 29, 29]), elements=[1])
    assert [(e.frame, e.kind, e.pair) for e in result.events] == [(1, "formed", "C-H")]
    everything = bond_events(box(positions, [6, 1, 29, 29]))
    assert everything.count("broken", "Cu-Cu") == 1
    with pytest.raises(ValueError, match="no atom of the elements"):
        bond_events(box(positions, [6, 1, 29, 29]), elements=[92])


@pytest.mark.parametrize(
    ("structure", "cutoff", "known"),
    [("fcc", 3.4, 0.57452), ("bcc", 4.2, 0.51069), ("sc", 3.2, 0.35355)],
)
def test_averaged_q6_of_perfect_crystals(structure, cutoff, known):
    a = {"fcc": 4.0, "bcc": 3.4, "sc": 2.8}[structure]
    crystal = System.from_ase(bulk("Al", structure, a=a))
    assert averaged_q6(crystal, cutoff) == pytest.approx(known, abs=2e-5)
    turned = crystal.to_ase()
    turned.rotate(37, (1, 2, 0.5), rotate_cell=True)
    assert averaged_q6(System.from_ase(turned), cutoff) == pytest.approx(known, abs=2e-5)


def test_crystal_order_sees_growth():
    rng = np.random.default_rng(0)
    crystal = bulk("Al", "fcc", a=4.0, cubic=True).repeat((2, 2, 6))
    lattice, height = crystal.positions, crystal.positions[:, 2]
    noise = rng.uniform(-1.2, 1.2, (12, *lattice.shape))
    # from frame to frame a crystal front moves through a disordered rest
    positions = [np.where((height < 24.0 * (0.2 + 0.06 * f))[:, None], lattice, lattice + noise[f]) for f in range(12)]
    cells = np.tile(crystal.cell.array, (12, 1, 1))
    result = crystal_order(Trajectory(np.array(positions), crystal.numbers, cells, (True,) * 3, 0.5), 3.5)
    assert "GROWS" in result.verdict
    assert result.solid_fraction[-1] > result.solid_fraction[0] + 0.3


def test_trajectories_are_read_by_run_with_their_times(tmp_path):
    atoms = Atoms("Ar2", [[0, 0, 0], [4, 0, 0]], cell=[10] * 3, pbc=True)
    frames = []
    for step in range(3):
        for run in range(2):
            frame = atoms.copy()
            frame.positions[1, 0] += step + 0.1 * run
            frame.set_velocities([[0, 0, 0], [1.0 / (1000 * units.fs), 0, 0]])  # 1 Å/ps
            frame.info = {"run": run, "time_fs": 20.0 * step}
            frames.append(frame)
    write(tmp_path / "t.extxyz", frames)
    trajectory = read_trajectory(tmp_path / "t.extxyz", run=1)
    assert trajectory.n_frames == 3
    assert trajectory.spacing_ps == pytest.approx(0.02)
    np.testing.assert_allclose(trajectory.positions[:, 1, 0], [4.1, 5.1, 6.1])
    np.testing.assert_allclose(trajectory.velocities[:, 1, 0], 1.0, rtol=1e-6)
    with pytest.raises(ValueError, match="found 0 frames of run 7"):
        read_trajectory(tmp_path / "t.extxyz", run=7)


def test_runs_may_have_any_name_and_those_there_are_are_listed(tmp_path):
    def written(*names):
        frames = []
        for step in range(4):
            for name in names:
                frames.append(Atoms("Ar2", [[0, 0, 0], [4 + 0.1 * step, 0, 0]], cell=[10] * 3, pbc=True))
                frames[-1].info = {"run": name, "time_fs": 5.0 * step}
        write(tmp_path / "t.extxyz", frames)
        return tmp_path / "t.extxyz"

    assert read_trajectory(written("T300")).n_frames == 4
    assert read_trajectory(written("T300", "T500"), run="T500").n_frames == 4
    assert read_trajectory(written(0, 1)).n_frames == 4
    assert read_trajectory(written(7)).n_frames == 4
    for run in (None, "T700", 3):
        with pytest.raises(ValueError, match=r"the runs are T300 \(4 frames\), T500 \(4 frames\)"):
            read_trajectory(written("T300", "T500"), run=run)


@pytest.mark.parametrize("cell", [np.diag([0.0, 12, 12]), [[12, 0, 0], [12, 0, 0], [0, 0, 12]], np.diag([12.0] * 3)])
def test_diffusion_with_an_open_direction_is_that_in_the_plane(cell):
    """Whatever stands in the cell for the open direction, and however far atoms go along it."""
    path = walk(0.4)
    path[:, :, 0] = np.linspace(0, 500, 2000)[:, None] * np.linspace(-1, 1, 24)  # flies apart along the open direction
    cells = np.tile(np.asarray(cell, float), (2000, 1, 1))
    if not np.any(cells[0, 0] * [0, 1, 1]):
        cells[:, 1], cells[:, 2] = [0, 12, 0], [0, 0, 12]
    wrapped = path.copy()
    wrapped[:, :, 1:] %= 12.0
    if np.allclose(cells[0, 1], [12, 0, 0]):
        cells[:, 1] = [0, 12, 0]
        cells[:, 0] = [0, 12, 0]  # parallel to a periodic one
    result = diffusion(Trajectory(wrapped, np.full(24, 3), cells, (False, True, True), 0.1))
    assert result.n_dimensions == 2
    assert result.coefficients[0] == pytest.approx(0.4 * 23 / 24, abs=4 * result.errors[0])
    assert "in the periodic plane" in result.verdict


def gas(n_frames, symbols, seed=0, length=12.0):
    rng = np.random.default_rng(seed)
    return [
        System.from_ase(Atoms(symbols, rng.uniform(0, length, (len(Atoms(symbols)), 3)), cell=[length] * 3, pbc=True))
        for _ in range(n_frames)
    ]


def test_pairs_that_do_not_exist_have_no_distribution():
    result = radial_distribution(Trajectory.from_systems(gas(40, "Cu30O20He"), 1.0), longest=5.0)
    why = dict(zip(result.pairs, result.refusals, strict=True))
    assert "one such atom" in why["He-He"]
    assert why["Cu-Cu"] == why["O-Cu"] == why["all"] == ""
    assert np.isnan(result.g[result.pairs.index("He-He")]).all()
    assert "g(He-He) refused" in result.verdict
    assert np.isnan(result.first_peak("He-He"))
    labels = [text.get_text() for text in result.figure().legends[0].get_texts()]
    assert "He-He" not in labels
    assert "Cu-Cu" in labels
    # no pair of hydrogens within reach in any frame
    far = [dataclasses.replace(s, positions=np.r_[s.positions[:-2], [[0, 0, 0], [6, 6, 6]]]) for s in gas(40, "Cu30H2")]
    result = radial_distribution(Trajectory.from_systems(far, 1.0), longest=5.0)
    assert "0 such pairs within 5 Å" in result.refusals[result.pairs.index("H-H")]


def test_frames_that_are_one_frame_have_no_errors():
    crystal = System.from_ase(bulk("Ar", "fcc", a=5.3, cubic=True).repeat(2))
    rng = np.random.default_rng(0)
    ways = np.linspace(0, 1, 60)[:, None, None] * rng.normal(size=(32, 3))  # a crystal on its way to disorder
    slow = [dataclasses.replace(crystal, positions=crystal.positions + way) for way in ways]
    assert "its errors mean nothing" in radial_distribution(Trajectory.from_systems(slow, 0.001)).verdict
    assert "WARNING" not in radial_distribution(Trajectory.from_systems(gas(60, "Ar40"), 1.0)).verdict


@pytest.mark.parametrize(
    ("probe", "needed"),
    [(radial_distribution, 10), (vibrational_spectrum, 16), (lambda t: crystal_order(t, 4.0), 8), (diffusion, 32)],
)
def test_too_few_frames_are_refused_in_the_same_words(probe, needed):
    short = Trajectory.from_systems(gas(5, "Ar40"), 0.1)
    with pytest.raises(ValueError, match=rf"5 frames \(0.4 ps\) are too few for .* expected {needed} or more; run"):
        probe(short)


def test_spectra_that_are_noise_or_too_short_are_refused():
    position, velocity = oscillators([0.5, 0.7], n_frames=60)  # 0.3 ps of periods of 2 ps
    short = dataclasses.replace(box(position, [14, 14], 40.0, 0.005), velocities=velocity)
    with pytest.raises(ValueError, match="hold less than 4 periods"):
        vibrational_spectrum(short)
    noise = np.random.default_rng(0).normal(size=(400, 8, 3))
    unrelated = dataclasses.replace(box(noise, [14] * 8, 40.0, 1.0), velocities=noise)
    with pytest.raises(ValueError, match="nothing to do with each other"):
        vibrational_spectrum(unrelated)
    still = dataclasses.replace(box(0 * noise, [14] * 8, 40.0, 1.0), velocities=0 * noise)
    with pytest.raises(ValueError, match="do not move"):
        vibrational_spectrum(still)
    position, velocity = oscillators([5.0, 12.0], spacing=0.01)
    hydrogen = dataclasses.replace(box(position, [1, 1], 40.0, 0.01), velocities=velocity)
    assert "fold all above 50 THz" in vibrational_spectrum(hydrogen).verdict


def test_the_cutoff_of_order_is_the_end_of_the_first_shell():
    rng = np.random.default_rng(0)
    crystal = bulk("Al", "fcc", a=4.0, cubic=True).repeat(3)
    frames = [crystal.positions + 0.03 * rng.normal(size=crystal.positions.shape) for _ in range(10)]
    cells = np.tile(crystal.cell.array, (10, 1, 1))
    trajectory = Trajectory(np.array(frames), crystal.numbers, cells, (True,) * 3, 0.5)
    result = crystal_order(trajectory)
    assert 4.0 / np.sqrt(2) < result.cutoff < 4.0
    assert result.neighbors == pytest.approx(12.0, abs=0.01)
    assert result.solid_fraction.min() == 1.0
    assert "WARNING" in crystal_order(trajectory, 6.0).verdict


def test_what_needs_no_time_takes_frames_that_say_none(tmp_path):
    crystal = bulk("Cu", cubic=True) * (2, 2, 2)
    frames = []
    for seed in range(12):
        frames.append(crystal.copy())
        frames[-1].rattle(0.1, seed=seed)
    write(tmp_path / "t.extxyz", frames)
    trajectory = read_trajectory(tmp_path / "t.extxyz")
    timed = read_trajectory(tmp_path / "t.extxyz", spacing_ps=0.1)
    assert trajectory.spacing_ps is None
    np.testing.assert_array_equal(radial_distribution(trajectory).g, radial_distribution(timed).g)
    with pytest.raises(ValueError, match="give the time between frames"):
        vibrational_spectrum(dataclasses.replace(trajectory, positions=np.tile(trajectory.positions, (2, 1, 1)),
                                                 cells=np.tile(trajectory.cells, (2, 1, 1))))  # fmt: skip


def test_what_is_held_is_at_rest_and_else_the_centre_of_mass():
    """A heavy atom that walks on atoms that are held walks as far as it does; free atoms share a drift that is none."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(size=(400, 3)), axis=0)
    positions = np.zeros((400, 4, 3)) + np.arange(4)[:, None] * 2.0
    positions[:, 3] += walk
    held = unwrapped(box(positions, [29, 29, 29, 79], 60.0))
    np.testing.assert_allclose(held[:, 3] - held[0, 3], walk - walk[0], atol=1e-9)
    drifting = box(positions + np.arange(400)[:, None, None] * 0.1, [29, 29, 29, 79], 60.0)
    masses = drifting.masses
    path = unwrapped(drifting)
    center = np.einsum("fnx,n->fx", path, masses) / masses.sum()
    np.testing.assert_allclose(center, np.broadcast_to(center[0], center.shape), atol=1e-9)


def test_a_drift_is_no_motion_of_frequency_zero():
    times = 0.002 * np.arange(600)
    swing = np.zeros((600, 2, 3))
    swing[:, 0, 0], swing[:, 1, 0] = np.cos(2 * np.pi * 10.0 * times), -np.cos(2 * np.pi * 10.0 * times)
    positions = np.broadcast_to([[0.0] * 3, [2.0] * 3], (600, 2, 3))
    frames = box(positions, [14, 14], 40.0, 0.002)
    still, moving = (
        vibrational_spectrum(dataclasses.replace(frames, velocities=swing + drift)) for drift in (0.0, 3.0)
    )
    np.testing.assert_allclose(moving.density, still.density, atol=1e-9)
