import json

import ase.io
import numpy as np
import pytest
from ase import units
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import predict, save
from mlipjax.cli.main import main
from mlipjax.data import write_dataset
from mlipjax.models import NequIPConfig, nequip

# lower than the labels' own isolated atoms by what a random network adds: within 500 meV/atom
E0S = np.array([-1.0, -30.0, -80.0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import jax

    folder = tmp_path_factory.mktemp("doctor")
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", lmax=1, n_layers=1, radial_basis_size=4, radial_hidden=(8,))
    potential = nequip(config, E0S)
    save(folder / "model", potential, potential.init(jax.random.key(1)))
    write_dataset(folder / "train.extxyz", labelled_dataset((6,) * 6))
    return folder


def doctor(folder, train, *options):
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    arguments = ["--model", str(folder / "model"), "--train", str(train), "--json", str(report), *options]
    code = main(["doctor", *arguments])
    return code, json.loads(report.read_text()) if report.exists() else None


def test_a_sound_data_set_passes(folder, capsys):
    code, report = doctor(folder, folder / "train.extxyz", "--e0s", "estimate")
    assert code == 0
    assert report["n_fatal"] == 0
    assert report["e0_estimate"]["rank"] == 3
    assert report["before"]["train.extxyz"]["n_frames"] == 6
    assert "rank 3 of 3" in capsys.readouterr().out


def test_other_isolated_atoms_exit_with_one_and_one_line(folder, capsys):
    text = (folder / "train.extxyz").read_text().replace("energy=-", "energy=-9")
    (folder / "shifted.extxyz").write_text(text)
    code, report = doctor(folder, folder / "shifted.extxyz")
    assert code == 1
    assert report["n_fatal"] == 1
    assert report["findings"][0]["check"] == "step-0"
    assert report["findings"][0]["frames"][0][0] == "shifted.extxyz"
    error = capsys.readouterr().err
    assert error.startswith("error: 1 fatal: step-0: before training the energy error is")
    assert error.count("\n") == 1


def test_labels_under_other_names_are_a_finding(folder):
    text = (folder / "train.extxyz").read_text().replace("energy=", "my_energy=")
    (folder / "renamed.extxyz").write_text(text)
    code, report = doctor(folder, folder / "renamed.extxyz")
    assert code == 1
    assert [(f["severity"], f["check"]) for f in report["findings"]] == [("fatal", "reading")]
    assert "'my_energy' looks like it" in report["findings"][0]["message"]
    assert "--energy-key NAME" in report["findings"][0]["message"]
    assert doctor(folder, folder / "renamed.extxyz", "--energy-key", "my_energy", "--e0s", "estimate")[0] == 0


def test_the_same_file_twice_is_refused(folder, capsys):
    code, _ = doctor(folder, folder / "train.extxyz", "--valid", str(folder / "train.extxyz"))
    assert code == 1
    assert "as training and as validation data" in capsys.readouterr().err


def test_a_fatal_finding_is_said_once_with_its_file_and_its_option(folder, capsys):
    frames = predict(str(folder / "model"), str(folder / "train.extxyz"))
    for atoms in frames:
        atoms.calc.results["energy"] /= units.Hartree
    for name, part in (("one", frames[:3]), ("two", frames[3:])):
        ase.io.write(folder / f"{name}.extxyz", part)
    one, two = (str(folder / f"{name}.extxyz") for name in ("one", "two"))
    assert main(["doctor", "--model", str(folder / "model"), "--train", one, two]) == 1
    out, error = capsys.readouterr()
    assert "fatal" not in out
    assert error.count("\n") == 1
    assert "like Hartree" in error
    assert f"{one}, structures 0, 1, 2; {two}, structures 0, 1" in error
    assert "--units energy=Hartree" in error
    options = ["--units", "energy=Hartree"]
    assert main(["doctor", "--model", str(folder / "model"), "--train", one, two, *options]) == 0
