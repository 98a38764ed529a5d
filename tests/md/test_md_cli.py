"""``mlipjax md`` from file to file."""

import json

import numpy as np
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from ase.io import read, write

from mlipjax.cli.main import main
from mlipjax.models import NequIPConfig, nequip, save


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny model and a structure."""
    import jax

    folder = tmp_path_factory.mktemp("md")
    config = NequIPConfig(
        species=(14,), cutoff=3.5, hidden_irreps="4x0e", lmax=0, n_layers=1, radial_hidden=(4,), avg_n_neighbors=8.0
    )
    potential = nequip(config, np.array([[-1.25]]))
    save(folder / "model", potential, potential.init(jax.random.key(0)))
    write(folder / "si.cif", bulk("Si", cubic=True))
    return folder


def command(folder, out, *options):
    arguments = ["--model", str(folder / "model"), "--structure", str(folder / "si.cif"), "--out", str(out)]
    return main(["md", *arguments, "--every", "5", *options])


def test_a_run_writes_frames_and_averages_and_resumes(folder, tmp_path, capsys):
    out, report = tmp_path / "t.extxyz", tmp_path / "t.json"
    options = ["--ensemble", "nvt", "--thermostat", "csvr", "--replicas", "2", "--seed", "3", "--json", str(report)]
    assert command(folder, out, "--steps", "10", *options) == 0
    frames = read(out, ":")
    assert [(f.info["run"], f.info["step"]) for f in frames] == [(0, 5), (1, 5), (0, 10), (1, 10)]
    assert frames[0].info["time_fs"] == 10.0
    first = json.loads(report.read_text())
    assert first["n_steps"] == 10
    assert len(first["temperature_mean_K"]) == 2
    assert all(2.0 < distance < 2.4 for distance in first["min_distance_A"])
    assert first["versions"]["jax"]

    assert command(folder, out, "--steps", "10", *options) == 0
    assert "done already" in capsys.readouterr().out
    assert command(folder, out, "--steps", "15", *options) == 0
    assert len(read(out, ":")) == 6
    assert json.loads(report.read_text())["resumed_from"] == 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "5", "--structure", "nowhere.xyz"], "no such file"),
        (
            ["--steps", "5", "--temperature", "-3"],
            "--temperature must be more than 0 and less than 1000000 K, found -3",
        ),
        (["--steps", "0"], "--steps must be between 1 and"),
        (["--steps", "5", "--ensemble", "npt", "--thermostat", "csvr"], "npt (nose-hoover)"),
        (["--steps", "5", "--head", "dft"], "found 'dft'"),
    ],
)
def test_bad_input_is_one_line_and_a_failing_exit_code(folder, tmp_path, capsys, options, message):
    assert command(folder, tmp_path / "t.extxyz", *options) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_a_run_that_explodes_says_where_its_frame_is(folder, tmp_path, capsys):
    atoms = bulk("Si", cubic=True)
    atoms.positions[1] = atoms.positions[0] + [0.4, 0.0, 0.0]
    write(tmp_path / "bad.extxyz", atoms)
    structure = ["--structure", str(tmp_path / "bad.extxyz")]
    assert command(folder, tmp_path / "t.extxyz", "--steps", "20", "--replicas", "2", *structure) == 1
    assert "t_stopped.extxyz" in capsys.readouterr().err
    frame = read(tmp_path / "t_stopped.extxyz")
    assert "Si 0 and Si 1 are 0.400" in frame.info["reason"]
    assert frame.info["step"] == 0


def given(folder, name, change, *options, steps="2"):
    """Run a structure that says more than positions; return exit code and frame."""
    atoms = bulk("Si", cubic=True)
    change(atoms)
    write(folder / f"{name}.extxyz", atoms)
    out = folder / f"{name}_md.extxyz"
    code = command(
        folder, out, "--structure", str(folder / f"{name}.extxyz"), "--steps", steps, "--every", "1", *options
    )
    return code, out


def moving(atoms):
    momenta = np.zeros((8, 3))
    momenta[0, 0], momenta[7, 0] = 4.0, -4.0
    atoms.set_momenta(momenta)


def test_a_run_starts_with_the_momenta_of_the_file_or_says_that_it_does_not(folder, tmp_path, capsys):
    code, out = given(folder, "file", moving, "--ensemble", "nve", "--timestep", "0.1")
    assert code == 0
    assert "starts with the momenta given there" in capsys.readouterr().err
    assert read(out, "0").get_momenta()[0, 0] == pytest.approx(4.0, abs=0.2)

    code, out = given(folder, "draw", moving, "--ensemble", "nve", "--velocities", "draw")
    assert (code, capsys.readouterr().err) == (0, "")
    assert (np.abs(read(out, "0").get_momenta()[1:7]) > 0.1).mean() > 0.5

    code, out = given(folder, "copies", moving, "--replicas", "2")
    assert code == 0
    assert "momenta are not used" in capsys.readouterr().err

    code, _ = given(folder, "alike", moving, "--replicas", "2", "--ensemble", "nve", "--velocities", "file")
    assert code == 1
    assert "would all do the same" in capsys.readouterr().err
    code, _ = given(folder, "none", lambda atoms: None, "--velocities", "file")
    assert code == 1
    assert "no momenta in this file" in capsys.readouterr().err


def test_a_run_keeps_what_the_file_fixes_and_its_masses(folder, tmp_path, capsys):
    def constrain(atoms):
        atoms.set_constraint(FixAtoms([0, 3]))
        atoms.set_masses([30.0] * 8)

    code, out = given(folder, "fixed", constrain, "--temperature", "600")
    said = capsys.readouterr().err
    assert code == 0
    assert "2 of 8 atoms are fixed" in said
    assert "the masses given there are used" in said
    last, start = read(out, "-1"), read(folder / "fixed.extxyz")
    first, still = (atoms.positions[[0, 3]].astype(np.float32) for atoms in (start, last))
    np.testing.assert_array_equal(still, first)
    np.testing.assert_array_equal(last.get_masses(), 30.0)
    np.testing.assert_array_equal(last.constraints[0].index, [0, 3])

    code, _ = given(folder, "npt", constrain, "--ensemble", "npt")
    assert code == 1
    assert "2 atoms are fixed" in capsys.readouterr().err

    def everything(atoms):
        atoms.set_constraint(FixAtoms(range(8)))

    code, _ = given(folder, "all", everything)
    assert code == 1
    assert "all.extxyz: the constraints leave nothing" in capsys.readouterr().err


def test_atoms_at_one_place_are_named(folder, tmp_path, capsys):
    code, _ = given(folder, "twice", lambda atoms: atoms.positions.__setitem__(1, atoms.positions[0]))
    assert code == 1
    assert "atoms Si 0 and Si 1 are 0 Å apart" in capsys.readouterr().err
