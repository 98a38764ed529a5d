"""``--head`` of the commands, and frames that have no energy."""

import importlib
import json

import jax
import numpy as np
import pytest
from ase.io import read, write
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import load, save
from mlipjax.cli.main import main
from mlipjax.data import write_dataset
from mlipjax.models import NequIPConfig, nequip

COMMANDS = ("evaluate", "doctor", "finetune", "probe", "md", "neb", "slide")
SHIFT = 10.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with two heads whose isolated atoms differ by 10 eV, and labelled structures."""
    folder = tmp_path_factory.mktemp("heads")
    e0s = np.array([-2.0, -31.0, -79.0])
    sizes = {"lmax": 1, "n_layers": 2, "radial_basis_size": 4, "radial_hidden": (8,)}
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", heads=("r2scan", "pbe"), **sizes)
    potential = nequip(config, np.stack([e0s, e0s + SHIFT]))
    params = potential.init(jax.random.key(1))
    params["readout_pbe"] = params["readout_r2scan"]
    save(folder / "model", potential, params)
    write_dataset(folder / "train.extxyz", labelled_dataset((6,) * 9))
    return folder


def evaluated(folder, json_file, *options, data="train.extxyz"):
    arguments = ["--model", str(folder / "model"), "--data", str(folder / data), "--json", str(json_file)]
    code = main(["evaluate", *arguments, *options])
    return code, json.loads(json_file.read_text()) if json_file.exists() else None


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_that_use_energies_take_a_head(name):
    options = importlib.import_module("mlipjax.cli.main").options_of(name)
    assert options.__dataclass_fields__["head"].default is None


def test_the_head_decides_the_energies_and_is_said(folder, tmp_path, capsys):
    _, first = evaluated(folder, tmp_path / "first.json")
    assert "heads r2scan, pbe; r2scan is used (--head" in capsys.readouterr().err
    _, second = evaluated(folder, tmp_path / "second.json", "--head", "pbe")
    assert capsys.readouterr().err == ""
    shift = second["energy_mean_meV_per_atom"] - first["energy_mean_meV_per_atom"]
    assert shift == pytest.approx(1e3 * SHIFT, rel=1e-6)
    assert evaluated(folder, tmp_path / "none.json", "--head", "dft") == (1, None)
    assert "has the heads r2scan, pbe; found 'dft'" in capsys.readouterr().err


def test_the_head_that_is_trained_is_the_one_asked_for(folder, tmp_path):
    arguments = [
        "--model",
        str(folder / "model"),
        "--train",
        str(folder / "train.extxyz"),
        "--out",
        str(tmp_path / "out"),
    ]
    options = [
        "--head",
        "pbe",
        "--strategy",
        "llrd",
        "--e0s",
        "estimate",
        "--epochs",
        "2",
        "--batch-size",
        "2",
        "--ignore",
        "sign",
    ]
    assert main(["finetune", *arguments, *options]) == 0
    tuned, params = load(tmp_path / "out")
    before, old = load(folder / "model")
    assert tuned.heads == ("pbe", "r2scan")
    np.testing.assert_array_equal(tuned.e0s[1], before.e0s[0])
    # the estimate starts from the head's own isolated atoms, 10 eV away from the other's
    assert np.abs(tuned.e0s[0] - before.e0s[1]).max() > 1.0
    moved = {
        name: np.abs(np.asarray(params[name]["kernel"] - old[name]["kernel"])).max()
        for name in old
        if "readout" in name
    }
    assert moved["readout_pbe"] > 0.0
    assert moved["readout_r2scan"] == 0.0


def test_a_frame_without_an_energy_is_named_and_the_others_are_compared(folder, tmp_path, capsys):
    frames = read(folder / "train.extxyz", ":")
    good = frames[1:]
    frames[0].positions[2] = frames[0].positions[4]
    write(folder / "broken.extxyz", frames)
    write(folder / "good.extxyz", good)
    code, report = evaluated(folder, tmp_path / "broken.json", data="broken.extxyz")
    said = capsys.readouterr().err
    assert code == 1
    assert "1 of its structures have no energy" in said
    assert "structure 0: atoms" in said
    _, expected = evaluated(folder, tmp_path / "good.json", data="good.extxyz")
    assert report["n_frames"] == 8
    assert report["energy_rmse_meV_per_atom"] == pytest.approx(expected["energy_rmse_meV_per_atom"], rel=1e-5)
    assert list(report["left_out"]) == ["0"]
