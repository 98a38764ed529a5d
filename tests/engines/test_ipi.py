"""Driven by i-PI: its units and conventions, and real runs where it is installed."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.constraints import FixAtoms
from ase.io import write
from engine_case import saved_model, water

from mlipjax.cli.main import main
from mlipjax.engines import IpiRun, write_ipi_run

units = pytest.importorskip("ipi.utils.units", reason="i-PI is not installed (extra ipi)")
from mlipjax.engines import ipi_driver  # noqa: E402
from mlipjax.engines.ipi_driver import Driver  # noqa: E402

SCRIPTS = Path(sys.executable).parent
Bohr = units.unit_to_user("length", "angstrom", 1.0)
Hartree = units.unit_to_user("energy", "electronvolt", 1.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small potential, and the folder that it is saved in."""
    folder = tmp_path_factory.mktemp("ipi") / "model"
    return saved_model(folder), folder


def test_constants_are_those_of_nature():
    assert Bohr == pytest.approx(0.529177210903, rel=1e-6)
    assert Hartree == pytest.approx(27.211386245988, rel=1e-6)


def test_units_and_signs_are_those_of_i_pi(model, tmp_path):
    calculator, folder = model
    atoms = bulk("HO", "rocksalt", a=3.9)  # a skewed cell
    atoms.rattle(0.1, seed=1)
    atoms.set_cell(atoms.cell.standard_form()[0], scale_atoms=True)
    write(tmp_path / "template.extxyz", atoms)
    driver = Driver(str(folder), str(tmp_path / "template.extxyz"))
    energy, forces, virial, extras = driver(atoms.cell.array.T / Bohr, atoms.positions / Bohr)
    atoms.calc = calculator
    assert energy == pytest.approx(atoms.get_potential_energy() / Hartree, rel=1e-12)
    np.testing.assert_allclose(forces, atoms.get_forces() * Bohr / Hartree, atol=1e-12)
    np.testing.assert_allclose(virial, -atoms.get_stress(voigt=False) * atoms.get_volume() / Hartree, atol=1e-12)
    assert extras == ""


def test_the_virial_is_the_derivative_with_respect_to_strain(model, tmp_path):
    _, folder = model
    atoms = water(1)
    atoms.set_cell([[4, 0, 0], [0.5, 4, 0], [0.3, -0.4, 4]], scale_atoms=True)
    write(tmp_path / "template.extxyz", atoms)
    driver = Driver(str(folder), str(tmp_path / "template.extxyz"))
    cell, positions, step = atoms.cell.array.T / Bohr, atoms.positions / Bohr, 1e-4

    def energy(strain):
        return driver((np.eye(3) + strain) @ cell, positions @ (np.eye(3) + strain).T)[0]

    virial = driver(cell, positions)[2]
    for i, j in np.ndindex(3, 3):
        strain = np.zeros((3, 3))
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        slope = (energy(strain) - energy(-strain)) / (2 * step)
        assert -virial[i, j] == pytest.approx(slope, abs=1e-7)


def test_beads_are_evaluated_together_and_answered_in_order(model, tmp_path):
    _, folder = model
    atoms = water()
    write(tmp_path / "template.extxyz", atoms)
    driver = Driver(str(folder), str(tmp_path / "template.extxyz"))
    rng = np.random.default_rng(2)
    beads = [(atoms.positions + 0.05 * rng.normal(size=atoms.positions.shape)) / Bohr for _ in range(4)]
    together = driver([atoms.cell.array.T / Bohr] * 4, beads)
    for bead, (energy, forces, virial, _) in zip(beads, together, strict=True):
        alone = driver(atoms.cell.array.T / Bohr, bead)
        assert energy == pytest.approx(alone[0], rel=1e-13)
        np.testing.assert_allclose(forces, alone[1], atol=1e-13)
        np.testing.assert_allclose(virial, alone[2], atol=1e-12)


def test_a_molecule_keeps_its_lack_of_periodicity(model, tmp_path):
    calculator, folder = model
    atoms = molecule("H2O")
    write(tmp_path / "template.extxyz", atoms)
    driver = Driver(str(folder), str(tmp_path / "template.extxyz"))
    energy, _, virial, _ = driver(np.eye(3) * 2.0 / Bohr, atoms.positions / Bohr)  # a box that images would share
    atoms.calc = calculator
    assert energy == pytest.approx(atoms.get_potential_energy() / Hartree, rel=1e-12)
    assert not virial.any()


def test_what_i_pi_could_not_honour_is_refused(model, tmp_path):
    _, folder = model
    with pytest.raises(ValueError, match="put the structure in a box"):
        write_ipi_run(tmp_path / "run", str(folder), molecule("H2O"))
    fixed = water(1)
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(ValueError, match="constraints"):
        write_ipi_run(tmp_path / "run", str(folder), fixed)
    assert not (tmp_path / "run").exists()
    write(tmp_path / "template.extxyz", water(1))
    with pytest.raises(ValueError, match="sent 2 atoms; the template has 3"):
        Driver(str(folder), str(tmp_path / "template.extxyz"))(np.eye(3), np.zeros((2, 3)))


def run_ipi(folder, *others):
    """Run i-PI in a folder, beside other processes; the table that it wrote."""
    server = subprocess.Popen([SCRIPTS / "i-pi", "input.xml"], cwd=folder, stdout=subprocess.PIPE, text=True)
    helpers = [subprocess.Popen(other, cwd=folder, stdout=subprocess.DEVNULL) for other in others]
    try:
        out, _ = server.communicate(timeout=500)
    finally:
        for process in (server, *helpers):
            process.kill()
    assert server.returncode == 0, out[-2000:]
    return np.loadtxt(folder / "run.out", ndmin=2)


def test_the_command_writes_a_folder_that_runs(model, tmp_path, capsys):
    calculator, folder = model
    write(tmp_path / "water.cif", atoms := water(1))  # other files than the model's own
    out = tmp_path / "run"
    command = ["engine", "ipi", "--model", str(folder), "--structure", str(tmp_path / "water.cif"), "--out", str(out)]
    assert main([*command, "--beads", "2", "--steps", "3", "--every", "1", "--head", "energy"]) == 0
    assert f"cd {out} && i-pi input.xml" in capsys.readouterr().out
    table = run_ipi(out)
    assert len(table) == 4
    atoms.calc = calculator
    assert table[0, 5] == pytest.approx(atoms.get_potential_energy(), abs=1e-4)  # cif files have six digits
    assert (out / "run.pos_1.xyz").is_file()
    assert main([*command, "--pressure", "1"]) == 1
    assert "ipi takes no --pressure; leave it out" in capsys.readouterr().err


@pytest.mark.slow
def test_path_integrals_of_water_run_as_written(model, tmp_path):
    calculator, folder = model
    run = IpiRun(beads=8, steps=40, every=1, timestep=0.1, temperature=300.0)
    write_ipi_run(tmp_path / "run", str(folder), water(), run)
    table = run_ipi(tmp_path / "run")
    atoms = water()
    atoms.calc = calculator
    assert len(table) == 41
    # all beads start at one place
    assert table[0, 5] == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
    assert np.ptp(table[:, 2]) < 0.02 * np.ptp(table[:, 5])
    assert (tmp_path / "run" / "run.pos_7.xyz").is_file()


@pytest.mark.slow
def test_energy_is_conserved_through_a_socket(model, tmp_path):
    calculator, folder = model
    path = write_ipi_run(tmp_path, str(folder), water(), IpiRun(ensemble="nve", steps=20, every=1, timestep=0.25))
    text = path.read_text()
    start, stop = text.index("<ffdirect"), text.index("</ffdirect>") + len("</ffdirect>")
    address = f"mlipjax-{time.time_ns()}"
    socket = f'<ffsocket mode="unix" name="mlipjax"><address>{address}</address></ffsocket>'
    path.write_text(text[:start] + socket + text[stop:])
    options = f"model={folder},template=template.extxyz"
    driver = [SCRIPTS / "i-pi-driver-py", "-u", "-a", address, "-m", "custom", "-P", ipi_driver.__file__, "-o", options]
    table = run_ipi(tmp_path, driver)
    atoms = water()
    atoms.calc = calculator
    assert table[0, 5] == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
    assert np.ptp(table[:, 2]) < 0.02 * np.ptp(table[:, 5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ensemble": "npt"}, "choose one of nve, nvt"),
        ({"beads": 0}, "beads must be"),
        ({"timestep": float("nan")}, "positive"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        IpiRun(**settings)


def test_a_model_whose_path_i_pi_cannot_read_is_refused(model, tmp_path):
    _, folder = model
    shutil.copytree(folder, odd := tmp_path / "models, old {1}")
    with pytest.raises(ValueError, match="i-PI cannot read"):
        write_ipi_run(tmp_path / "run", str(odd), water(1))
