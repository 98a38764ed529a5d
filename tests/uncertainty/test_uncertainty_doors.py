"""Error bars through every door: calibrate, evaluate, predict, the calculator, the command line."""

import copy
import functools
import pickle

import ase.io
import jax
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from bars_case import model, rattled
from tiny_nequip import molecule

import mlipjax
from mlipjax import uncertainty
from mlipjax.cli.main import main
from mlipjax.monitoring import MonitorAlarm


def labelled(n, seed, run):
    """Rattled molecules with the energies and forces of a spring to where they were."""
    rng, frames = np.random.default_rng(seed), []
    for number in range(n):
        atoms = rattled(molecule(), 0.1, seed + number).to_ase()
        results = {"energy": float(rng.normal()), "forces": rng.normal(size=(len(atoms), 3))}
        atoms.calc = SinglePointCalculator(atoms, **results)
        atoms.info["run"] = f"{run} {number // 3}"
        frames.append(atoms)
    return frames


@functools.cache
def frames():
    return labelled(6, 0, "train"), labelled(6, 100, "valid")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved model with both kinds of error bars, and another member."""
    home = tmp_path_factory.mktemp("bars")
    potential, params = model()
    mlipjax.save(home / "model", potential, params)
    mlipjax.save(home / "other", potential, jax.tree.map(lambda leaf: 1.02 * leaf, params))
    train, valid = frames()
    options = {"valid": valid, "dtype": "float64"}
    report = mlipjax.calibrate(home / "model", train, **options)
    assert (report["method"], report["n_train"], report["n_valid"], report["n_groups"]) == ("llpr", 6, 6, 2)
    assert 0.0 < report["n_determined"] <= report["n_features"] == 4
    report = mlipjax.calibrate(home / "model", members=[home / "other"], **options)
    assert (report["method"], report["members"]) == ("committee", 2)
    return home


def test_calibrated_error_bars_hold_on_what_they_were_calibrated_on(folder):
    """In closed form the mean of error²/variance is 1: of six energies, and of forces."""
    report = mlipjax.evaluate(folder / "model", frames()[1], uncertainty="llpr", dtype="float64")
    bars = report["uncertainty"]
    assert bars["method"] == "llpr"
    assert bars["n_groups"] == 2
    assert bars["cost"] > 0.0
    assert 0.4 < bars["forces"]["coverage_68"] < 0.95
    assert {"energy", "forces", "structures"} <= set(bars)
    predicted = mlipjax.predict(folder / "model", frames()[1], uncertainty="llpr", dtype="float64")
    ratios = [
        (one.get_potential_energy() - label.get_potential_energy()) / one.info["energy_std"]
        for one, label in zip(predicted, frames()[1], strict=True)
    ]
    assert np.mean(np.square(ratios)) == pytest.approx(1.0, rel=1e-6)


def test_predictions_carry_them_into_files(folder, tmp_path):
    ase.io.write(tmp_path / "in.extxyz", frames()[0][:2])
    told = ["--model", str(folder / "model"), "--data", str(tmp_path / "in.extxyz"), "--quiet"]
    assert main(["predict", *told, "--uncertainty", "committee", "--write", str(tmp_path / "out.extxyz")]) == 0
    found = ase.io.read(tmp_path / "out.extxyz")
    assert found.info["energy_std"] > 0.0
    assert found.arrays["forces_std"].shape == (6, 3)
    assert found.arrays["energies_std"].shape == (6,)
    assert main(["evaluate", *told, "--uncertainty", "shallow:3", "--write", str(tmp_path / "both.extxyz")]) == 0
    both = ase.io.read(tmp_path / "both.extxyz")
    assert {"forces_std", "reference_forces"} <= set(both.arrays)


def test_the_calculator_gives_them(folder):
    potential, params = mlipjax.load(folder / "model")
    bars = uncertainty.load_uncertainty(folder / "model", mlipjax.Model(potential, params), "llpr")
    atoms = molecule().to_ase()
    atoms.calc = mlipjax.Calculator(potential, params, uncertainty=bars)
    atoms.get_potential_energy()
    results = atoms.calc.results
    (expected,) = mlipjax.predict(folder / "model", [atoms], uncertainty="llpr", dtype="float64")
    assert results["energy_std"] == pytest.approx(expected.info["energy_std"], rel=1e-6)
    np.testing.assert_allclose(results["forces_std"], expected.arrays["forces_std"], rtol=1e-6)
    np.testing.assert_array_equal(atoms.calc.get_property("forces_std", atoms), results["forces_std"])
    for other in (pickle.loads(pickle.dumps(atoms.calc)), copy.deepcopy(atoms.calc)):
        other.reset()
        assert other.get_property("energy_std", atoms) == pytest.approx(results["energy_std"], rel=1e-9)
    assert "energy_std" not in mlipjax.Calculator(potential, params).implemented_properties


def test_what_cannot_be_had_is_one_line(folder, tmp_path, capsys):
    ase.io.write(tmp_path / "in.extxyz", frames()[1])
    data = ["--data", str(tmp_path / "in.extxyz"), "--quiet"]
    for arguments, words in (
        (["evaluate", "--model", "universal", *data, "--uncertainty", "llpr"], "read from the folder of a saved model"),
        (["evaluate", "--model", str(folder / "other"), *data, "--uncertainty", "llpr"], "calibrate them first"),
        (["evaluate", "--model", str(folder / "model"), *data, "--uncertainty", "dropout"], "choose llpr, shallow"),
        (["evaluate", "--model", str(folder / "model"), *data, "--monitor", "m.npz"], "compared with error bars"),
        (
            ["calibrate", "--model", "universal", "--valid", data[1], "--train", data[1]],
            "where to save both (--out)",
        ),
        (["calibrate", "--model", str(folder / "model"), "--valid", data[1]], "give either --train"),
    ):
        assert main(arguments) == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line


def test_simulations_write_error_bars_and_stop_at_their_limit(folder, tmp_path):
    options = {"ensemble": "nve", "steps": 4, "every": 2, "temperature": 30.0, "dtype": "float64", "monitor_every": 2}
    options |= {"timestep": 0.1, "closest": 0.01, "hottest": 1e6, "alarm_readings": 2}
    structure, where = frames()[1][0], folder / "model"
    known = uncertainty.force_limit(where, "llpr")
    predicted = mlipjax.predict(where, frames()[1], uncertainty="llpr", dtype="float64")
    largest = max(np.linalg.norm(one.arrays["forces_std"], axis=1).max() for one in predicted)
    assert known == pytest.approx(largest, rel=1e-6)
    run = mlipjax.simulate(where, structure, write=tmp_path / "calm.extxyz", uncertainty="llpr",
                           largest_force_std=1e3, **options)  # fmt: skip
    told = run.report["uncertainty"]
    assert (told["method"], told["n_readings"], told["n_alarms"]) == ("llpr", 2, [0])
    written = ase.io.read(tmp_path / "calm.extxyz", ":")
    again = mlipjax.predict(where, written, uncertainty="llpr", dtype="float64")
    for one, other in zip(written, again, strict=True):
        assert one.info["energy_std"] == pytest.approx(other.info["energy_std"], rel=1e-5)
        for name in ("forces_std", "energies_std"):
            np.testing.assert_allclose(one.arrays[name], other.arrays[name], rtol=1e-4, atol=1e-7)
    norms = [np.linalg.norm(one.arrays["forces_std"], axis=1).max() for one in written]
    assert told["largest_eV_per_A"][0] == pytest.approx(max(norms), rel=1e-5)
    with pytest.raises(
        MonitorAlarm, match=r"replica 0 has been too uncertain for 2 readings at step 4: the llpr error"
    ):
        mlipjax.simulate(where, structure, write=tmp_path / "wild.extxyz", uncertainty="llpr",
                         largest_force_std=1e-9, **options)  # fmt: skip
    assert (tmp_path / "wild_alarm.extxyz").is_file()
    told = mlipjax.simulate(where, structure, uncertainty="llpr", largest_force_std=1e-9, on_alarm="ignore", **options)
    assert told.report["uncertainty"]["n_alarms"] == [2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"largest_force_std": 1.0}, "largest_force_std is a limit of error bars; say which"),
        ({"uncertainty": "llpr", "largest_force_std": -1.0}, "largest_force_std must be positive, found -1.0"),
        ({"uncertainty": "bayes"}, "found uncertainty 'bayes'; choose llpr"),
    ],
)
def test_simulations_refuse_limits_of_nothing(folder, options, message):
    with pytest.raises(ValueError, match=message):
        mlipjax.simulate(folder / "model", frames()[1][0], "nve", steps=2, **options)


def quiet_labels(n, seed):
    """Structures with the model's own labels: nothing for the doctor to refuse."""
    structures = [rattled(molecule(), 0.1, seed + number).to_ase() for number in range(n)]
    labelled = mlipjax.predict(model(), structures, dtype="float64")
    for number, atoms in enumerate(labelled):
        atoms.calc.results["forces"] = 1.05 * atoms.calc.results["forces"]
        atoms.calc.results.pop("stress", None)
        atoms.info = {"run": number}
    return labelled


QUIET = ["agreement", "units", "sign", "order"]


def test_a_fine_tune_makes_its_committee_in_one_program(tmp_path, capsys):
    train, valid = quiet_labels(5, 0), quiet_labels(3, 50)
    options = {"epochs": 2, "batch_size": 2, "anchor": "none", "dtype": "float64", "learning_rate": 1e-3}
    options |= {"valid": valid, "e0s": "model", "ignore": QUIET}
    alone = mlipjax.finetune(model(), train, out=tmp_path / "run", **options)
    result = mlipjax.finetune(model(), train, out=tmp_path / "run", committee=3, **options)
    for one, other in zip(*map(jax.tree.leaves, (alone.params, result.params)), strict=True):
        np.testing.assert_array_equal(one, other)  # a run that is done stays as it is
    told = result.report["committee"]
    assert (told["members"], told["n_valid"]) == (3, 3)
    assert told["times_one"] == pytest.approx(told["seconds"] / (2 * told["seconds_of_one"]), rel=0.2, abs=0.2)
    bars = uncertainty.load_uncertainty(tmp_path / "run", mlipjax.load(tmp_path / "run"), "committee")
    start = jax.tree.leaves(model().params)
    for path, leaf in bars.members.items():
        assert len(leaf) == 3
        # members differ, and all of them have learned
        assert not np.array_equal(leaf[1], leaf[2]), path
    assert max(np.abs(np.asarray(a) - b).max() for a, b in zip(jax.tree.leaves(result.params), start, strict=True)) > 0
    report = mlipjax.evaluate(tmp_path / "run", valid, uncertainty="committee", dtype="float64")
    assert 0.0 < report["uncertainty"]["forces"]["coverage_95"] <= 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"committee": 0}, "committee must be 1"),
        ({"committee": 2}, "kept in the folder of a run"),
        ({"committee": 2, "out": "run", "valid_fraction": 0.0}, "calibrated on structures for validation"),
        ({"committee": 2, "out": "run", "strategy": "pseudo-replay", "replay_size": 4}, "trained without replay"),
    ],
)
def test_committees_that_cannot_be_made_are_refused_before_training(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        mlipjax.finetune(model(), quiet_labels(6, 0), epochs=1, ignore=QUIET, e0s="model", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_property_has_no_committee(tmp_path):
    with pytest.raises(ValueError, match="committee=2 gives energies and forces error bars"):
        mlipjax.finetune(model(), property="gaps.extxyz:gap", committee=2, out=tmp_path / "run")
