"""Files as commands take them: several, patterns, folders, other units; and as convert writes them."""

import json
import subprocess
import sys

import ase.io
import numpy as np
import pytest
from ase import units
from campaign.good_files import CONFIG, E0S, _params, labelled_frames, outcar

from mlipjax import Calculator, save
from mlipjax.cli.main import main
from mlipjax.data import read_dataset
from mlipjax.models import nequip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    potential = nequip(CONFIG, np.array(list(E0S.values())))
    params = _params(potential)
    save(folder / "model", potential, params)
    frames = labelled_frames(Calculator(potential, params))[:3]
    ase.io.write(folder / "all.extxyz", frames)
    for name, atoms in zip("abc", frames, strict=True):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "OUTCAR").write_text(outcar(atoms))
    for atoms in frames:
        atoms.calc.results["energy"] /= units.Hartree
    ase.io.write(folder / "hartree.traj", frames)
    return folder


def run(folder, tmp_path, *arguments):
    code = main([*map(str, arguments), "--model", str(folder / "model"), "--json", str(tmp_path / "out.json")])
    return json.loads((tmp_path / "out.json").read_text()) if code == 0 else None


def test_several_files_patterns_and_folders_of_folders(folder, tmp_path):
    outcars = [folder / "runs" / name / "OUTCAR" for name in "abc"]
    expected = run(folder, tmp_path, "predict", "--data", *outcars)
    assert expected["n_structures"] == 3
    assert expected["data"] == [str(path) for path in outcars]
    for given in (
        [folder / "runs" / "*" / "OUTCAR"],
        [folder / "runs"],
        [folder / "runs" / "a", f"{folder}/runs/[bc]"],
    ):
        assert run(folder, tmp_path, "predict", "--data", *given)["energies_eV"] == expected["energies_eV"]
    assert len(run(folder, tmp_path, "relax", "--structure", *outcars[:2], "--steps", 1)["structures"]) == 2


def test_a_structure_is_named_by_its_file_and_its_number_there(folder, tmp_path, capsys):
    frames = ase.io.read(folder / "all.extxyz", ":")
    frames[1].numbers[0] = 79
    ase.io.write(tmp_path / "gold.extxyz", frames)
    assert run(folder, tmp_path, "predict", "--data", folder / "runs", tmp_path / "gold.extxyz") is None
    assert f"{tmp_path / 'gold.extxyz'}, structure 1: " in capsys.readouterr().err


def test_labels_in_other_units(folder, tmp_path):
    right = run(folder, tmp_path, "evaluate", "--data", folder / "hartree.traj", "--units", "energy=Hartree")
    assert right["energy_rmse_meV_per_atom"] < 1e-3
    assert right["force_rmse_meV_per_A"] < 1e-3
    assert run(folder, tmp_path, "evaluate", "--data", folder / "hartree.traj")["energy_rmse_meV_per_atom"] > 100.0


def test_a_unit_that_is_not_known_is_said_in_one_line(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "evaluate", "--data", folder / "all.extxyz", "--units", "energy=hartre") is None
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did you mean Hartree?" in error


@pytest.mark.parametrize("name", ["out.extxyz", "out.db", "out.h5", "out"])
def test_convert_writes_what_others_read(folder, tmp_path, name):
    out, given = tmp_path / name, ["--data", str(folder / "hartree.traj"), "--units", "energy=Hartree"]
    if name.endswith("h5"):
        pytest.importorskip("h5py")
    assert main(["convert", *given, "--out", str(out)]) == 0
    found, expected = read_dataset(out), read_dataset(folder / "all.extxyz")
    for mine, own in zip(found, expected, strict=True):
        assert mine.labels.energy == pytest.approx(own.labels.energy, rel=1e-14)
        np.testing.assert_allclose(mine.labels.forces, own.labels.forces, atol=1e-8)
        np.testing.assert_allclose(mine.labels.stress, own.labels.stress, atol=1e-8)
    assert main(["convert", *given, "--out", str(out)]) == 1  # nothing is overwritten


def test_convert_leaves_out_what_it_is_told_to(folder, tmp_path):
    frames = ase.io.read(folder / "all.extxyz", ":")
    for atoms in frames:
        del atoms.calc.results["energy"]
        atoms.info["relative_energy"] = 0.1
    ase.io.write(tmp_path / "in.extxyz", frames)
    given = ["--data", str(tmp_path / "in.extxyz"), "--energy-key", "none", "--json", str(tmp_path / "out.json")]
    assert main(["convert", *given, "--out", str(tmp_path / "out.db")]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["n_labels"] == {"energy": 0, "forces": 3, "stress": 3}
    assert report["elements"] == [8, 12]


def test_convert_says_which_endings_it_knows(folder, tmp_path, capsys):
    given = ["--data", str(folder / "all.extxyz"), "--out", str(tmp_path / "out.cif")]
    assert main(["convert", *given]) == 1
    assert "files end in .extxyz, .db or .h5" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_ends_a_command_quietly():
    command = [sys.executable, "-m", "mlipjax.cli", "models"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        error = process.stderr.read()
    assert process.returncode == 0
    assert [line for line in error.splitlines() if "cpu_aot_loader" not in line] == []
