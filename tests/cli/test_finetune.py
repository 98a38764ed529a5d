import json

import jax
import numpy as np
import pytest
import tyro
from ase.io import read
from tiny_potential import CUTOFF, SPECIES, labelled_dataset

from mlipjax import Calculator, load, save
from mlipjax.cli import convert, evaluate, finetune
from mlipjax.data import write_dataset
from mlipjax.models import NequIPConfig, nequip
from mlipjax.train import read_metrics

SIZES = (6,) * 9  # of one size: a compiled program less
KEYS = {
    "energy_mean_meV_per_atom",
    "energy_std_meV_per_atom",
    "energy_rmse_meV_per_atom",
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "force_rmse_meV_per_A",
    "force_slope",
    "stress_mae_meV_per_A3",
    "n_frames",
    "per_element",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A small model and labelled structures, as files."""
    folder = tmp_path_factory.mktemp("input")
    config = NequIPConfig(SPECIES, CUTOFF, "4x0e + 2x1o", lmax=1, n_layers=1, radial_basis_size=4, radial_hidden=(8,))
    potential = nequip(config, np.array([-2.0, -31.0, -79.0]))
    save(folder / "model", potential, potential.init(jax.random.key(1)))
    write_dataset(folder / "train.extxyz", labelled_dataset(SIZES))
    return folder


def run_finetune(files, out, *options):
    arguments = ["--model", str(files / "model"), "--train", str(files / "train.extxyz"), "--out", str(out)]
    finetune.run(tyro.cli(finetune.Finetune, args=[*arguments, *options]))


def run_evaluate(files, model, json_file, *options):
    arguments = ["--model", str(model), "--data", str(files / "train.extxyz"), "--json", str(json_file)]
    evaluate.run(tyro.cli(evaluate.Evaluate, args=[*arguments, *options]))
    return json.loads(json_file.read_text())


@pytest.fixture(scope="module")
def tuned(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    options = ["--strategy", "llrd", "--e0s", "estimate", "--epochs", "4", "--batch-size", "2", "--lr", "0.01"]
    run_finetune(files, folder / "out", *options, "--json", str(folder / "report.json"))
    return folder / "out", options


def test_finetune_leaves_a_model_and_a_report(files, tuned, capsys):
    out, options = tuned
    report = json.loads((out / "report.json").read_text())
    assert report == json.loads(out.with_name("report.json").read_text())
    assert set(report["before"]) >= KEYS
    assert report["after"]["force_mae_meV_per_A"] < report["before"]["force_mae_meV_per_A"]
    assert (report["n_train"], report["n_valid"], report["epochs_run"]) == (6, 3, 4)
    assert "'run'" in report["split"]
    assert report["e0_estimate"]["rank"] == 3
    assert dict((name, reason) for name, _, reason in report["strategy"])["learning_rate"] == "given"
    assert [record["epoch"] for record in read_metrics(out)] == [1, 2, 3, 4]

    potential, _ = load(out)
    before, _ = load(files / "model")
    shifts = [report["e0_estimate"]["shifts"][symbol] for symbol in ("H", "C", "O")]
    np.testing.assert_allclose(potential.e0s - before.e0s, [shifts])

    run_finetune(files, out, *options)
    assert "before" in capsys.readouterr().out
    assert json.loads((out / "report.json").read_text()) == report


def test_structures_on_disk_give_the_same_bits_and_go_on_with_the_same_folder(files, tuned, tmp_path, capsys):
    out, options = tuned
    data = ["--data", str(files / "train.extxyz"), "--out", str(tmp_path / "store")]
    convert.run(tyro.cli(convert.Convert, args=[*data, "--json", str(tmp_path / "store.json")]))
    assert "9 structures, 9 with energy, 9 with forces, 9 with stress" in capsys.readouterr().out
    assert json.loads((tmp_path / "store.json").read_text())["elements"] == [1, 6, 8]
    command = ["--model", str(files / "model"), "--train", str(tmp_path / "store"), *options]
    finetune.run(tyro.cli(finetune.Finetune, args=[*command, "--out", str(tmp_path / "out")]))
    parameters = [(folder / "params.safetensors").read_bytes() for folder in (out, tmp_path / "out")]
    assert parameters[0] == parameters[1]
    # the folder of the run from the file is the same run
    finetune.run(tyro.cli(finetune.Finetune, args=[*command, "--out", str(out)]))

    of_file = run_evaluate(files, out, tmp_path / "file.json")
    arguments = ["--model", str(out), "--data", str(tmp_path / "store"), "--json", str(tmp_path / "disk.json")]
    evaluate.run(tyro.cli(evaluate.Evaluate, args=arguments))
    assert {**json.loads((tmp_path / "disk.json").read_text()), "data": None} == {**of_file, "data": None}


def test_the_report_is_there_and_made_again_if_it_is_gone(files, tuned, capsys):
    out, options = tuned
    figures = {"history.png", "largest_errors.png", "parity_energy.png", "parity_forces.png", "parity_stress.png"}
    assert {path.name for path in out.glob("*.png")} == figures
    page = (out / "report.html").read_text()
    assert "epoch" in page
    assert page.count('src="data:image/png;base64,') == 5
    (out / "report.html").unlink()
    run_finetune(files, out, *options)
    assert (out / "report.html").read_text() == page
    said = capsys.readouterr().out
    assert "report.html" in said
    assert "…" not in said


def test_evaluate_writes_predictions_beside_labels_and_figures(files, tuned, tmp_path, capsys):
    out, _ = tuned
    written, folder = tmp_path / "found.extxyz", tmp_path / "figures"
    report = run_evaluate(files, out, tmp_path / "r.json", "--write", str(written), "--out", str(folder))
    assert "…" not in capsys.readouterr().out
    frames = read(written, ":")
    dataset = labelled_dataset(SIZES)
    for atoms, (system, labels, info) in zip(frames, dataset, strict=True):
        assert atoms.info["reference_energy"] == pytest.approx(float(labels.energy), abs=1e-7)
        np.testing.assert_allclose(atoms.arrays["reference_forces"], labels.forces, atol=1e-7)
        np.testing.assert_allclose(atoms.info["reference_stress"], labels.stress, atol=1e-7)
        error = 1e3 * (atoms.get_potential_energy() - float(labels.energy)) / system.n_atoms
        assert atoms.info["energy_error_meV_per_atom"] == pytest.approx(error, abs=1e-3)
        assert atoms.info["run"] == info["run"]
    errors = [atoms.info["energy_error_meV_per_atom"] for atoms in frames]
    assert np.mean(errors) == pytest.approx(report["energy_mean_meV_per_atom"], rel=1e-5)
    forces = [atoms.info["force_mae_meV_per_A"] for atoms in frames]  # all of one size
    assert np.mean(forces) == pytest.approx(report["force_mae_meV_per_A"], rel=1e-5)
    assert {path.name for path in folder.iterdir()} == {
        "report.html", "results.json", "largest_errors.png",
        "parity_energy.png", "parity_forces.png", "parity_stress.png",
    }  # fmt: skip


def test_another_run_into_the_same_folder_is_refused(files, tuned, tmp_path):
    out, options = tuned
    with pytest.raises(ValueError, match=r"holds another run: .*seed was 0, now 1"):
        run_finetune(files, out, *options, "--seed", "1")
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and holds no fine-tune"):
        run_finetune(files, tmp_path, *options)


def test_evaluate_agrees_with_the_calculator_and_plain_numpy(files, tuned, tmp_path, capsys):
    out, _ = tuned
    report = run_evaluate(files, out, tmp_path / "report.json", "--dtype", "float64")
    assert set(report) >= KEYS
    assert report["dtype"] == "float64"
    potential, params = load(out)
    calculator = Calculator(potential, params)
    energies, forces, stresses = [], [], []
    for system, labels, _ in labelled_dataset(SIZES):
        atoms = system.to_ase()
        atoms.calc = calculator
        energies.append((atoms.get_potential_energy() - labels.energy) / len(atoms))
        forces.append((atoms.get_forces() - labels.forces).ravel())
        stresses.append(atoms.get_stress(voigt=False) - labels.stress)
    forces = np.concatenate(forces)
    expected = {
        "energy_mean_meV_per_atom": np.mean(energies),
        "energy_rmse_meV_per_atom": np.sqrt(np.mean(np.square(energies))),
        "force_mae_meV_per_A": np.abs(forces).mean(),
        "force_rmse_meV_per_A": np.sqrt(np.mean(forces**2)),
        "stress_mae_meV_per_A3": np.abs(stresses).mean(),
    }
    for key, value in expected.items():
        assert report[key] == pytest.approx(1e3 * value, rel=1e-9), key
    single = run_evaluate(files, out, tmp_path / "single.json")
    assert single["force_mae_meV_per_A"] == pytest.approx(report["force_mae_meV_per_A"], rel=1e-3)
    assert "forces: MAE" in capsys.readouterr().out


def test_wrong_isolated_atoms_are_refused_before_training(files, tmp_path):
    e0s = tmp_path / "e0s.json"
    e0s.write_text('{"H": -1.0, "C": -30.0, "O": -95.0}')
    with pytest.raises(ValueError, match=r"before training the energy error is \d+ meV/atom .* above 500"):
        run_finetune(files, tmp_path / "out", "--e0s", str(e0s))
    e0s.write_text('{"H": -1.0, "C": -30.0}')
    with pytest.raises(ValueError, match="missing for O"):
        run_finetune(files, tmp_path / "other", "--e0s", str(e0s))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--freeze-layers", "1"), "strategy 'naive' has no option freeze_layers"),
        (("--strategy", "freeze", "--freeze-layers", "3"), "between 0 and 1"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run_finetune(files, tmp_path / "out", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--epochs", "0"), "epochs and batch_size must be at least 1"),
        (("--lr", "-1"), "learning_rate must be positive"),
        (("--valid-fraction", "1.5"), "give a fraction"),
        (("--strategy", "hope"), "invalid choice"),
    ],
)
def test_values_out_of_range_are_usage_errors(files, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit) as exit_:
        run_finetune(files, tmp_path / "out", *options)
    assert exit_.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_data_without_labels_cannot_be_evaluated(files, tmp_path):
    atoms = labelled_dataset((3,)).systems[0].to_ase()
    atoms.write(tmp_path / "bare.extxyz")
    arguments = ["--model", str(files / "model"), "--data", str(tmp_path / "bare.extxyz")]
    with pytest.raises(ValueError, match="no structure has an energy"):
        evaluate.run(tyro.cli(evaluate.Evaluate, args=arguments))
