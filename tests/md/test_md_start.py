"""Properties that a structure brings along: fixed coordinates, masses, momenta, and places far from the origin."""

import jax
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms, FixBondLength, FixCartesian, FixCom, FixedLine, FixedPlane, FixScaled
from ase.io import read
from ase.md.verlet import VelocityVerlet
from pair_potential import argon, argon_spec, pair_potential

import mlipjax.md as md
from mlipjax.calculator import Calculator
from mlipjax.data.constraints import free_coordinates
from mlipjax.probes.gamma import gamma_modes
from mlipjax.probes.trajectory import read_trajectory, unwrapped
from mlipjax.system import System

NVE = md.NVE(5.0, 60.0)
ENSEMBLES = {
    "nve": NVE,
    "langevin": md.Langevin(5.0, 60.0, 20.0),
    "nose-hoover": md.NoseHoover(5.0, 60.0, 150.0),
    "csvr": md.CSVR(5.0, 60.0, 100.0),
}


STARTS = ("system", "freedom", "momenta", "exact_temperature")


def half_fixed():
    """Sixteen atoms fixed, and one that may move along x and z only."""
    free = np.ones((32, 3), bool)
    free[:16] = False
    free[20, 1] = False
    return md.Freedom.of(free)


def simulate(n_steps, ensemble=NVE, dtype="float64", **options):
    start = md.Start(**({"system": argon()} | {name: options.pop(name) for name in STARTS if name in options}))
    options = {
        "key": jax.random.key(7),
        "frame_every": 10,
        "chunk_steps": 10,
        "spec": argon_spec(),
    } | options
    return md.run(pair_potential(dtype), start, ensemble, n_steps, **options)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_fixed_coordinates_stay_bit_for_bit_and_the_others_move(name):
    freedom = half_fixed()
    run = simulate(20, ENSEMBLES[name], freedom=freedom, n_replicas=2)
    position, momentum = np.asarray(run.state.dynamics.position), np.asarray(run.state.dynamics.momentum)
    start = np.broadcast_to(argon().positions, position.shape)
    np.testing.assert_array_equal(position[:, ~freedom.free], start[:, ~freedom.free])
    assert not momentum[:, ~freedom.free].any()
    assert (np.abs(position - start)[:, freedom.free] > 1e-4).mean() > 0.9
    # the first forces are the model's, not what a constraint leaves of them: they are labels
    assert np.abs(np.asarray(run.state.dynamics.force)[:, :16]).max() > 1e-4


@pytest.mark.parametrize("name", ["langevin", "csvr"])
def test_what_may_move_is_as_hot_as_the_thermostat(name):
    freedom = half_fixed()
    assert freedom.degrees == 16 * 3 - 1
    run = simulate(1000, ENSEMBLES[name], freedom=freedom, n_replicas=2, frame_every=1000, exact_temperature=True)
    averages = run.statistics.averages()
    # two runs of 5 ps; 93 degrees of freedom instead of 47 would read half of it
    assert averages["temperature_mean"].mean() == pytest.approx(60.0, rel=0.1)
    assert averages["temperature_std"].mean() == pytest.approx(60.0 * np.sqrt(2.0 / 47.0), rel=0.35)


def test_drawn_velocities_have_their_temperature_and_rest_only_where_nothing_is_held():
    mass = np.full((32, 1), 40.0)
    momentum = md.maxwell_boltzmann(jax.random.key(0), mass, 300.0, exact=True, freedom=half_fixed())
    assert float(md.temperature(momentum, mass, half_fixed().degrees)) == pytest.approx(300.0, rel=1e-12)
    assert np.abs(np.asarray(momentum).sum(axis=0)).min() > 1e-3
    plane = np.ones((32, 3), bool)
    plane[:, 2] = False
    in_plane = md.maxwell_boltzmann(jax.random.key(0), mass, 300.0, freedom=md.Freedom.of(plane))
    np.testing.assert_allclose(np.asarray(in_plane).sum(axis=0), 0.0, atol=1e-12)
    assert md.Freedom.of(plane).degrees == 62


def test_a_run_with_fixed_atoms_continues_bit_for_bit_and_not_with_others(tmp_path):
    files = {"trajectory": tmp_path / "t.extxyz", "checkpoint": tmp_path / "t.npz"}
    options = {"freedom": half_fixed(), "frame_every": 5}
    whole = simulate(20, ENSEMBLES["langevin"], **options)
    simulate(10, ENSEMBLES["langevin"], **options, **files)
    parts = simulate(20, ENSEMBLES["langevin"], **options, **files)
    assert parts.resumed_from == 10
    np.testing.assert_array_equal(parts.state.dynamics.position, whole.state.dynamics.position)
    np.testing.assert_array_equal(free_coordinates(read(files["trajectory"], "0")), half_fixed().free)
    with pytest.raises(ValueError, match="free was"):
        simulate(30, ENSEMBLES["langevin"], frame_every=5, **files)


def test_a_moving_cell_refuses_fixed_atoms():
    with pytest.raises(ValueError, match="17 atoms are fixed"):
        simulate(5, md.IsotropicNPT(5.0, 60.0, 1000.0, 150.0, 600.0), freedom=half_fixed())


def test_given_momenta_and_fixed_atoms_follow_velocity_verlet_of_ase():
    atoms = argon().to_ase()
    atoms.set_constraint(FixAtoms(range(16)))
    momenta = np.random.default_rng(0).normal(size=(32, 3))
    momenta[:16] = 0.0
    atoms.set_momenta(momenta)
    start = md.Start.from_ase(atoms)
    np.testing.assert_array_equal(start.momenta, momenta)
    run = simulate(20, NVE, momenta=start.momenta, freedom=start.freedom)
    atoms.calc = Calculator(*pair_potential())
    VelocityVerlet(atoms, 5.0 * units.fs).run(20)
    np.testing.assert_allclose(run.state.dynamics.position[0], atoms.positions, atol=1e-9)
    np.testing.assert_allclose(run.state.dynamics.momentum[0], atoms.get_momenta(), atol=1e-9)


def test_atoms_of_four_times_the_mass_take_the_same_path_in_twice_the_time():
    momenta = np.random.default_rng(1).normal(size=(32, 3))
    momenta -= momenta.mean(axis=0)
    light = simulate(20, md.NVE(2.0, 60.0), momenta=momenta)
    heavy_argon = argon().replace(masses=4.0 * md.masses_of(argon()))
    heavy = simulate(20, md.NVE(4.0, 60.0), momenta=2.0 * momenta, system=heavy_argon)
    np.testing.assert_allclose(heavy.state.dynamics.position, light.state.dynamics.position, atol=1e-10)
    np.testing.assert_allclose(heavy.state.dynamics.momentum, 2.0 * light.state.dynamics.momentum, atol=1e-10)
    kelvin = [run.statistics.averages()["temperature_mean"][0] for run in (light, heavy)]
    assert kelvin[0] == pytest.approx(kelvin[1], rel=1e-10)


def test_frequencies_go_with_the_root_of_the_mass():
    frequencies = gamma_modes(pair_potential(), argon()).frequencies_THz
    heavy = argon().replace(masses=2.0 * md.masses_of(argon()))
    np.testing.assert_allclose(
        gamma_modes(pair_potential(), heavy).frequencies_THz, frequencies / np.sqrt(2.0), atol=1e-6
    )


def test_masses_travel_from_file_to_trajectory_to_observables(tmp_path):
    atoms = argon().to_ase()
    masses = np.where(np.arange(32) % 2, 36.0, 40.0)
    atoms.set_masses(masses)
    start = md.Start.from_ase(atoms)
    np.testing.assert_array_equal(start.system.masses, masses)
    run = simulate(20, system=start.system, trajectory=tmp_path / "t.extxyz")
    np.testing.assert_array_equal(np.asarray(run.state.dynamics.mass)[0, :, 0], masses)
    np.testing.assert_array_equal(read(tmp_path / "t.extxyz").get_masses(), masses)
    trajectory = read_trajectory(tmp_path / "t.extxyz")
    np.testing.assert_array_equal(trajectory.masses, masses)
    # the centre of mass rests, with these masses and with no others
    center = np.einsum("fnx,n->fx", trajectory.velocities, masses)
    assert np.abs(center).max() < 1e-8 * np.abs(trajectory.velocities).max() * masses.sum()
    assert System.from_ase(argon().to_ase()).masses is None
    assert md.default_timestep([1, 1, 8], np.array([2.014, 2.014, 15.999])) == 0.5
    with pytest.raises(ValueError, match=r"atom 3 has a mass of 0 amu"):
        md.masses_of(argon().replace(masses=np.where(np.arange(32) == 3, 0.0, 40.0)))


def test_a_start_is_without_the_motion_of_its_centre_and_of_fixed_atoms():
    atoms = argon().to_ase()
    momenta = np.random.default_rng(2).normal(size=(32, 3))
    momenta -= momenta.mean(axis=0)
    atoms.set_momenta(momenta + 0.5)
    drifting = md.Start.from_ase(atoms)
    assert drifting.lost_momentum
    np.testing.assert_allclose(drifting.momenta, momenta, atol=1e-12)
    atoms.set_momenta(np.zeros((32, 3)))
    assert md.Start.from_ase(atoms).momenta is None
    atoms.arrays["momenta"] = np.ones((32, 3))
    atoms.set_constraint(FixAtoms([0]))
    held = md.Start.from_ase(atoms)
    assert held.lost_momentum
    np.testing.assert_array_equal(held.momenta[1:], 1.0)
    assert not held.momenta[0].any()
    atoms.arrays["momenta"][5] = np.nan
    with pytest.raises(ValueError, match="momentum of atom 5 is not finite"):
        md.Start.from_ase(atoms)


def test_constraints_along_the_axes_are_coordinates_and_others_are_refused_by_name():
    atoms = Atoms("Ar4", np.eye(4, 3) * 3.0, cell=[9, 9, 9], pbc=True)
    atoms.set_constraint(
        [FixCartesian(0, (True, False, False)), FixedPlane(1, (0, 0, 2)), FixedLine(2, (0, -1, 0)), FixCom()]
    )
    free = [[False, True, True], [True, True, False], [False, True, False], [True, True, True]]
    np.testing.assert_array_equal(free_coordinates(atoms), free)
    atoms.set_constraint(FixScaled(3, (False, True, False)))
    np.testing.assert_array_equal(free_coordinates(atoms)[3], [True, False, True])
    for constraint, name in (
        (FixBondLength(0, 1), "FixBondLength"),
        (FixedPlane([1, 2], (1, 1, 0)), r"FixedPlane \(atom 1 and 1 more\)"),
    ):
        atoms.set_constraint(constraint)
        with pytest.raises(ValueError, match=name):
            free_coordinates(atoms)
    atoms.set_constraint(FixAtoms(range(4)))
    with pytest.raises(ValueError, match="leave nothing that could move"):
        md.Start.from_ase(atoms)


def far_away():
    """The same crystal, each atom in another cell some ten thousand ångström away."""
    cells = np.random.default_rng(3).integers(-1000, 1000, (32, 3))
    return argon().replace(positions=argon().positions + cells @ argon().cell), cells


def test_single_precision_does_not_care_in_which_image_an_atom_is(tmp_path):
    system, cells = far_away()
    near = simulate(20, dtype="float32", trajectory=tmp_path / "near.extxyz")
    far = simulate(20, dtype="float32", trajectory=tmp_path / "far.extxyz", system=system)
    apart = np.asarray(far.state.dynamics.position[0] - near.state.dynamics.position[0]) @ np.linalg.inv(system.cell)
    np.testing.assert_allclose(apart, np.round(apart), atol=3e-6)
    assert np.abs(np.asarray(far.state.dynamics.position)).max() < 1.5 * system.cell.max()
    first, second = (read(tmp_path / name) for name in ("near.extxyz", "far.extxyz"))
    # the trajectory goes on from where the file had the atoms
    np.testing.assert_allclose(second.positions, first.positions + cells @ argon().cell, atol=2e-3)
    np.testing.assert_allclose(second.get_momenta(), first.get_momenta(), atol=2e-4)
    assert second.get_potential_energy() == pytest.approx(first.get_potential_energy(), abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_calculator_does_not_care_where_the_atoms_are(dtype):
    calculator = Calculator(*pair_potential(), dtype=dtype)
    moved = [
        far_away()[0].to_ase(),
        argon().replace(positions=argon().positions + np.array([3.3e3, -1.1e4, 7e3])).to_ase(),
    ]
    cluster = Atoms("Ar3", [[0, 0, 0], [3.7, 0, 0], [0, 3.9, 0.3]])
    shifted = cluster.copy()
    shifted.positions += [2.0e4, 0.0, -3.0e5]
    atol = 1e-9 if dtype == "float64" else 2e-6
    for one, others in ((argon().to_ase(), moved), (cluster, [shifted])):
        energy, forces = calculator.get_potential_energy(one), calculator.get_forces(one)
        for other in others:
            assert calculator.get_potential_energy(other) == pytest.approx(energy, abs=10 * atol)
            np.testing.assert_allclose(calculator.get_forces(other), forces, atol=10 * atol)


def test_free_flight_through_many_cells_is_a_straight_line_in_the_trajectory(tmp_path):
    model = pair_potential("float32")
    model = model._replace(params=model.params | {"epsilon": model.params["epsilon"] * 0.0})
    system = argon()
    momenta = np.zeros((32, 3))
    momenta[0], momenta[1] = [30.0, 4.0, 6.0], [-30.0, -4.0, -6.0]
    limits = md.Limits(temperature_K=1e9, contact_ratio=0.0)
    run = md.run(
        model,
        md.Start(system, momenta=momenta),
        md.NVE(6.0, 60.0),
        300,
        key=jax.random.key(0),
        limits=limits,
        frame_every=5,
        chunk_steps=1,
        trajectory=tmp_path / "t.extxyz",
    )
    lattice = system.cell[0, 0]
    assert np.abs(np.asarray(run.state.dynamics.position)).max() < 2.0 * lattice
    assert np.abs(np.asarray(run.state.images)).max() >= 5
    frames = read(tmp_path / "t.extxyz", ":")
    for frame in frames:
        way = frame.get_velocities() * frame.info["time_fs"] * units.fs
        np.testing.assert_allclose(frame.positions - system.positions, way, atol=2e-3)
    way = unwrapped(read_trajectory(tmp_path / "t.extxyz"))
    np.testing.assert_allclose(way[-1] - way[0], frames[-1].positions - frames[0].positions, atol=1e-5)


def test_what_is_near_already_is_not_touched():
    from mlipjax.graph import batch_graphs, near_origin

    atoms = bulk("Ar", "fcc", a=5.3, cubic=True)
    atoms.positions[0] = [-0.4 * 5.3, 1.4 * 5.3, -1e-12]
    system = System.from_ase(atoms)
    assert near_origin(system).system is system
    graph = batch_graphs([system], 6.5, dtype=np.float64)
    np.testing.assert_array_equal(graph.positions[:4], system.positions)
