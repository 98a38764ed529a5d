"""Habits of users of similar programs, from the file on disk to the last line printed: salt, and the embedded model.

The labels are the model's own, made a little stiffer and shifted, so that right ones agree with it almost perfectly.
"""

import json
import pickle
import re

import ase.io
import jax
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

import mlipjax
from mlipjax.cli.main import main
from mlipjax.data import read_dataset
from mlipjax.models import NequIPConfig, nequip

pytestmark = pytest.mark.slow

TRAIN = ["--model", "universal", "--anchor", "none", "--epochs", 1, "--batch-size", 8]


@pytest.fixture(scope="module")
def calculator():
    return mlipjax.Calculator(*mlipjax.load("universal"))


@pytest.fixture(scope="module")
def salt(calculator):
    """Twenty strained and rattled cells of rock salt with right labels, as (atoms, labels)."""
    rng, frames = np.random.default_rng(7), []
    for seed in range(20):
        atoms = bulk("NaCl", "rocksalt", a=5.6 * (1.0 + rng.normal(0.0, 0.012)), cubic=True)
        atoms.rattle(0.1, seed=seed)
        copy = atoms.copy()
        copy.calc = calculator
        labels = {"energy": copy.get_potential_energy() + 0.03 * len(copy), "forces": 1.02 * copy.get_forces()}
        frames.append((atoms, labels | {"stress": 1.01 * copy.get_stress()}))
    return frames


def write(path, frames, change=lambda index, labels: labels):
    """Write frames with changed labels to a file."""
    written = []
    for index, (atoms, labels) in enumerate(frames):
        copy = atoms.copy()
        copy.calc = SinglePointCalculator(copy, **change(index, dict(labels)))
        written.append(copy)
    ase.io.write(path, written)
    return path


def isolated(calculator):
    """One atom of each element, alone, and marked so."""
    frames = []
    for symbol in ("Na", "Cl"):
        atoms = Atoms(symbol, info={"config_type": "IsolatedAtom"})
        copy = atoms.copy()
        copy.calc = calculator
        frames.append((atoms, {"energy": copy.get_potential_energy(), "forces": np.zeros((1, 3))}))
    return frames


@pytest.fixture
def command(capsys):
    """Run a command; its exit code and everything that it printed."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def findings(command, path):
    """Warnings and fatal findings of the doctor about a training set, as one text each."""
    report = path.with_suffix(".json")
    _, text = command("doctor", "--model", "universal", "--train", path, "--json", report)
    assert report.exists(), text
    found = json.loads(report.read_text())["findings"]
    return [f"{f['severity']} {f['check']}: {f['message']}" for f in found if f["severity"] != "info"]


def test_right_labels_are_not_complained_about(salt, command, tmp_path):
    assert findings(command, write(tmp_path / "right.extxyz", salt)) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda i, labels: labels | {"forces": 0.0 * labels["forces"]}, "forces"),
        (lambda i, labels: labels | {"forces": np.ones((8, 3))}, "forces"),
        (lambda i, labels: labels | {"stress": np.zeros(6)}, "stress"),
        (lambda i, labels: labels | {"forces": labels["forces"][::-1]}, "forces"),
        (lambda i, labels: labels | {"forces": labels["forces"][[0, 4, 1, 5, 2, 6, 3, 7]]}, "forces"),
        (lambda i, labels: labels | {"forces": labels["forces"][:, [1, 2, 0]]}, "forces"),
        (lambda i, labels: labels | {"stress": -labels["stress"]}, "stress"),
    ],
    ids=[
        "zero forces",
        "constant forces",
        "zero stress",
        "reversed order",
        "sorted by species",
        "axes",
        "sign of stress",
    ],
)
def test_the_doctor_says_which_label_does_not_belong_to_the_structures(change, word, salt, command, tmp_path):
    found = findings(command, write(tmp_path / "wrong.extxyz", salt, change))
    assert any(word in text for text in found), found


def test_labels_of_the_neighbouring_frame_are_seen(salt, command, tmp_path):
    path = write(tmp_path / "late.extxyz", salt, lambda i, labels: labels | {"forces": salt[i - 1][1]["forces"]})
    assert any("forces" in text for text in findings(command, path))


@pytest.mark.parametrize("wrong", [lambda f: -f, lambda f: 23.06 * f], ids=["sign", "kcal/mol"])
def test_a_validation_set_with_wrong_labels_is_refused(wrong, salt, command, tmp_path):
    train = write(tmp_path / "first.extxyz", salt[:10])
    valid = write(tmp_path / "second.extxyz", salt[10:], lambda i, labels: labels | {"forces": wrong(labels["forces"])})
    code, text = command("finetune", *TRAIN, "--train", train, "--valid", valid, "--out", tmp_path / "run")
    assert code == 1
    assert "valid" in text.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", ["Default", None], ids=["all have a config_type", "isolated atoms alone have one"])
def test_isolated_atoms_do_not_become_the_validation_set(kind, salt, calculator, command, tmp_path):
    frames = [(atoms.copy(), labels) for atoms, labels in salt]
    for atoms, _ in frames:
        if kind is not None:
            atoms.info["config_type"] = kind
    train = write(tmp_path / "train.extxyz", frames + isolated(calculator))
    code, text = command("finetune", *TRAIN, "--train", train, "--out", tmp_path / "run")
    assert code == 0, text
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    norms = [row["force_reference_mean_norm_meV_per_A"] for row in report["before"]["per_element"].values()]
    assert max(norm or 0.0 for norm in norms) > 1.0


def test_labels_named_as_for_other_programs_are_read_or_the_option_is_named(salt, command, tmp_path):
    frames = []
    for atoms, labels in salt[:5]:
        copy = atoms.copy()
        copy.info |= {"REF_energy": labels["energy"], "REF_stress": labels["stress"]}
        copy.arrays["REF_forces"] = labels["forces"]
        frames.append(copy)
    ase.io.write(tmp_path / "ref.extxyz", frames)
    code, text = command("evaluate", "--model", "universal", "--data", tmp_path / "ref.extxyz")
    if code == 0:
        assert re.search(r"forces?: MAE", text)
        return
    named = set(re.findall(r"--[a-z][a-z0-9-]+", text.strip().splitlines()[-1]))
    assert named & set(re.findall(r"--[a-z][a-z0-9-]+", command("evaluate", "--help")[1]))
    assert "LabelKeys" not in text


def test_weights_of_configurations_are_honoured_or_spoken_of(salt, command, tmp_path):
    frames = [(atoms.copy(), labels) for atoms, labels in salt]
    for index, (atoms, _) in enumerate(frames):
        atoms.info["config_weight"] = float(index % 2)
    path = write(tmp_path / "weighted.extxyz", frames)
    weights = [float(labels.forces_weight) for labels in read_dataset(path).labels]
    said = "config_weight" in command("doctor", "--model", "universal", "--train", path)[1]
    assert said or (weights[0] == 0.0 and weights[1] > 0.0)


@pytest.mark.parametrize(
    ("n", "options"), [(12, ["--valid-fraction", 0]), (1, [])], ids=["fraction 0", "one structure"]
)
def test_training_without_validation_works_or_the_option_is_named(n, options, salt, command, tmp_path):
    train = write(tmp_path / "train.extxyz", salt[:n])
    code, text = command("finetune", *TRAIN, "--train", train, "--out", tmp_path / "run", *options)
    assert code == 0 or "--valid" in text.strip().splitlines()[-1]


def test_a_refused_run_does_not_keep_its_folder(salt, command, tmp_path):
    train, e0s = write(tmp_path / "train.extxyz", salt[:12]), tmp_path / "e0s.json"
    e0s.write_text('{"11": -1.0, "17": -2.0}')
    run = ["finetune", *TRAIN, "--train", train, "--out", tmp_path / "run", "--e0s"]
    assert command(*run, e0s)[0] == 1
    code, text = command(*run, "estimate")
    assert code == 0, text


def test_fixed_atoms_stay_in_dynamics_or_it_is_said(command, tmp_path):
    slab = fcc111("Al", (2, 2, 3), a=4.05, vacuum=6.0)
    fixed = np.flatnonzero(slab.get_tags() > 1)
    slab.set_constraint(FixAtoms(fixed))
    ase.io.write(tmp_path / "slab.extxyz", slab)
    run = ["md", "--model", "universal", "--structure", tmp_path / "slab.extxyz", "--out", tmp_path / "md.extxyz"]
    code, text = command(*run, "--steps", 20, "--every", 10, "--temperature", 500)
    if code:
        assert any(word in text.lower() for word in ("constraint", "fixed", "fixatoms"))
        return
    last = ase.io.read(tmp_path / "md.extxyz", "-1")
    assert np.abs(last.positions - slab.positions)[fixed].max() < 1e-5
    assert np.abs(last.positions - slab.positions).max() > 1e-3


def test_dynamics_start_with_the_momenta_of_the_file_or_say_that_they_do_not(command, tmp_path):
    atoms = bulk("Al", a=4.05, cubic=True).repeat((2, 2, 2))
    momenta = np.zeros((32, 3))
    momenta[3, 1], momenta[30, 1] = 4.0, -4.0
    atoms.set_momenta(momenta)
    ase.io.write(tmp_path / "hot.extxyz", atoms)
    run = ["md", "--model", "universal", "--structure", tmp_path / "hot.extxyz", "--out", tmp_path / "md.extxyz"]
    code, text = command(*run, "--steps", 1, "--every", 1, "--ensemble", "nve", "--timestep", 0.25)
    if not any(word in text.lower() for word in ("momenta", "velocit")):
        assert code == 0, text
        assert ase.io.read(tmp_path / "md.extxyz", "-1").get_momenta()[3, 1] == pytest.approx(4.0, rel=0.1)


def test_names_of_runs_need_not_be_numbers(salt, command, tmp_path):
    frames = [atoms.copy() for atoms, _ in salt[:12]]
    for index, atoms in enumerate(frames):
        atoms.info |= {"run": "melt", "time_fs": float(index)}
    ase.io.write(tmp_path / "melt.extxyz", frames)
    code, text = command("probe", "rdf", "--trajectory", tmp_path / "melt.extxyz")
    assert code == 0 or ("run" in text and "melt" in text)
    assert "invalid literal" not in text


def test_atoms_with_a_calculator_travel_between_processes(calculator):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.05, seed=1)
    atoms.calc = calculator
    energy = atoms.get_potential_energy()
    copy = pickle.loads(pickle.dumps(atoms))
    copy.calc.reset()
    assert copy.get_potential_energy() == pytest.approx(energy, abs=1e-9)


@pytest.mark.parametrize("name", ["evaluate", "doctor", "finetune", "probe", "monitor"])
def test_the_energy_head_can_be_chosen_or_is_said(name, salt, command, tmp_path):
    if "--head" in command(name, "--help")[1]:
        return
    config = NequIPConfig(
        species=(11, 17), cutoff=4.0, n_layers=1, hidden_irreps="4x0e + 2x1o", lmax=1, radial_hidden=(8,),
        heads=("hybrid", "gga"),
    )  # fmt: skip
    potential = nequip(config, e0s=np.array([[-50.0, -40.0], [-5.0, -4.0]]))
    mlipjax.save(tmp_path / "two", potential, potential.init(jax.random.key(0)))
    data = write(tmp_path / "data.extxyz", salt[:4])
    option = {"evaluate": "--data", "doctor": "--train", "finetune": "--train", "probe": "--data", "monitor": "--data"}
    extra = {"probe": ["softening"], "monitor": ["--reference", data], "finetune": ["--out", tmp_path / "run"]}
    assert "hybrid" in command(name, *extra.get(name, []), "--model", tmp_path / "two", option[name], data)[1]
