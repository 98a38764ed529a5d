"""Options that name labels and files, in the commands that take them."""

import json

import ase.io
import jax
import numpy as np
import pytest
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import save
from mlipjax.cli.main import main
from mlipjax.data import read_dataset, write_dataset
from mlipjax.models import NequIPConfig, nequip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", lmax=1, n_layers=1, radial_basis_size=4, radial_hidden=(8,))
    potential = nequip(config, np.array([-1.0, -30.0, -80.0]))
    save(folder / "model", potential, potential.init(jax.random.key(1)))
    write_dataset(folder / "own.extxyz", labelled_dataset((6,) * 4))
    text = (folder / "own.extxyz").read_text()
    renamed = text.replace(" energy=", " REF_energy=").replace(":forces:", ":REF_forces:")
    (folder / "ref.extxyz").write_text(renamed)
    (folder / "odd.extxyz").write_text(text.replace(" energy=", " my_energy="))
    (folder / "both.extxyz").write_text(text.replace(" energy=", " REF_energy=-1.0 energy="))
    return folder


def evaluate(folder, tmp_path, *arguments):
    report = tmp_path / "report.json"
    options = ["--model", str(folder / "model"), "--json", str(report), "--dtype", "float64"]
    code = main(["evaluate", *options, *arguments])
    return json.loads(report.read_text()) if code == 0 else None


def test_known_names_are_read_and_said(folder, tmp_path, capsys):
    expected = evaluate(folder, tmp_path, "--data", str(folder / "own.extxyz"))
    assert "note:" not in capsys.readouterr().err
    found = evaluate(folder, tmp_path, "--data", str(folder / "ref.extxyz"))
    assert found["energy_rmse_meV_per_atom"] == expected["energy_rmse_meV_per_atom"]
    assert found["force_mae_meV_per_A"] == expected["force_mae_meV_per_A"]
    notes = capsys.readouterr().err.splitlines()
    assert notes == ["note: energies are read from 'REF_energy'.", "note: forces are read from 'REF_forces'."]


@pytest.mark.parametrize(
    ("command", "option"),
    [("evaluate", "--data"), ("doctor", "--train"), ("finetune", "--train"), ("convert", "--data")],
)
@pytest.mark.parametrize("name", ["odd.extxyz", "both.extxyz"])
def test_doubtful_names_are_refused_with_the_option_that_helps(folder, tmp_path, capsys, command, option, name):
    model = [] if command == "convert" else ["--model", str(folder / "model")]
    out = ["--out", str(tmp_path / "out")] if command in ("finetune", "convert") else []
    assert main([command, *model, option, str(folder / name), *out]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--energy-key NAME" in error


def test_a_named_key_is_used(folder, tmp_path):
    expected = evaluate(folder, tmp_path, "--data", str(folder / "own.extxyz"))
    for name, key in (("odd.extxyz", "my_energy"), ("both.extxyz", "energy")):
        found = evaluate(folder, tmp_path, "--data", str(folder / name), "--energy-key", key)
        assert found["energy_rmse_meV_per_atom"] == expected["energy_rmse_meV_per_atom"]
    left_out = evaluate(folder, tmp_path, "--data", str(folder / "odd.extxyz"), "--energy-key", "none")
    assert left_out["energy_rmse_meV_per_atom"] is None
    assert left_out["force_mae_meV_per_A"] == expected["force_mae_meV_per_A"]


def test_several_files_and_slices_are_one_data_set(folder, tmp_path):
    one, two = (str(folder / "own.extxyz") + part for part in ("@:1", "@1:"))
    assert evaluate(folder, tmp_path, "--data", one, two)["n_frames"] == 4
    assert evaluate(folder, tmp_path, "--data", two)["n_frames"] == 3
    assert main(["convert", "--data", one, two, "--out", str(tmp_path / "store")]) == 0
    assert len(read_dataset(tmp_path / "store")) == 4


def test_commands_that_need_only_atoms_look_for_no_label(folder, tmp_path, capsys):
    frames = [atoms for atoms in ase.io.read(folder / "own.extxyz", ":")]
    for atoms in frames:
        atoms.calc = None
        atoms.info["formation_energy_per_atom"] = -1.0
    ase.io.write(tmp_path / "bare.extxyz", frames)
    arguments = ["--model", str(folder / "model"), "--data", str(tmp_path / "bare.extxyz")]
    arguments += ["--reference", str(tmp_path / "bare.extxyz"), "--components", "2"]
    assert main(["monitor", *arguments]) in (0, 1)
    assert "formation_energy" not in capsys.readouterr().err
