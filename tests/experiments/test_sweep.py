"""``experiments.sweep`` from files to report with a tiny model; what it makes of drift and errors."""

import csv
import json

import numpy as np
import pytest
from scipy.stats import spearmanr
from tiny_nequip import random_params
from tiny_potential import labelled_dataset

from experiments.sweep import __main__ as sweep
from experiments.sweep import report as _sweep_report
from experiments.sweep.drift import DRIFTS, interval, predictions, rank_correlation
from experiments.sweep.speed import Throughput, measure
from mlipjax.data import write_dataset
from mlipjax.models import NequIPConfig, nequip, save
from mlipjax.train.checkpoint import Checkpoints


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model of two layers without directions, and three labelled files."""
    folder = tmp_path_factory.mktemp("sweep")
    config = NequIPConfig(species=(1, 6, 8), cutoff=3.0, hidden_irreps="4x0e", lmax=0, n_layers=2, radial_hidden=(4,))
    potential = nequip(config)
    save(folder / "model", potential, random_params(potential, dtype=np.float32))
    for seed, name in enumerate(("train", "test", "ood")):
        write_dataset(folder / f"{name}.extxyz", labelled_dataset((12,) * 6, seed))
    return folder


def run(folder, out, *options):
    files = [part for name in ("train", "test", "ood") for part in (f"--{name}", str(folder / f"{name}.extxyz"))]
    sizes = ["--frames", "4", "--test-frames", "6", "--epochs", "2", "--seeds", "0", "1", "--rates", "1e-3", "1e-2"]
    sizes += ["--decays", "1.0", "--frozen", "0", "1", "--model", str(folder / "model"), "--out", str(out)]
    return sweep.run([*files, *sizes, *options])


@pytest.fixture(scope="module")
def results(folder):
    out = folder / "out"
    assert run(folder, out, "--width", "1", "--speed-steps", "2") == 0
    return out, json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_every_setting_has_a_row_and_the_report_its_figures(results):
    out, found = results
    rows = found["rows"]
    assert len({(row["seed"], row["learning_rate"], row["decay"], row["frozen"]) for row in rows}) == len(rows) == 8
    assert found["sizes"] == {"train": 4, "id": 6, "ood": 6}
    for row in rows:
        assert len(row["losses"]) == 2
        for test in ("id", "ood"):
            low, high = row[test]["confidence_95"]["force_rmse_meV_per_A"]
            assert low <= row[test]["force_rmse_meV_per_A"] <= high
        assert set(row["early"]) == set(DRIFTS)
        assert min(row["early"].values()) > -1e-6
    # ten times the learning rate moves the features further
    mean = {
        rate: np.mean([r["early"]["wasserstein"] for r in rows if r["learning_rate"] == rate]) for rate in (1e-3, 1e-2)
    }
    assert mean[1e-2] > 2.0 * mean[1e-3] > 0.0
    assert found["throughput"]["seconds"]["1"] > 0.0
    html = (out / "report.html").read_text()
    assert html.count("<figure>") == 2
    assert "8 settings in one program, 1 at a time" in html
    for name in ("heat_map", "drift"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    with open(out / "table.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8


@pytest.mark.slow
def test_a_finished_run_says_so_and_other_settings_are_refused(folder, results, capsys):
    out, _ = results
    before = (out / "results.json").read_bytes()
    assert run(folder, out, "--width", "1", "--speed-steps", "2") == 0
    assert "is done" in " ".join(capsys.readouterr().out.split())
    assert (out / "results.json").read_bytes() == before
    assert run(folder, out, "--width", "2", "--speed-steps", "2") == 1
    assert "holds a run with width=1, this one has width=2" in capsys.readouterr().err


def test_bad_input_is_one_line(folder, tmp_path, capsys):
    cases = [
        (("--width", "0", "--speed-steps", "0"), "measures no width"),
        (("--width", "1", "--model", str(tmp_path / "none" / "model")), "none/model"),
    ]
    for number, (options, message) in enumerate(cases):
        assert run(folder, tmp_path / str(number), *options) == 1
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
    arguments = ["--train", str(folder / "train.extxyz"), "--out", str(tmp_path / "last")]
    assert sweep.run(arguments) == 1
    assert "id, ood is not given" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_numbers(folder, results, tmp_path, monkeypatch, capsys):
    class Stopping(Checkpoints):
        def save(self, step, state):
            super().save(step, state)
            raise RuntimeError("stopped by the test")

    options = ("--width", "1", "--speed-steps", "2")
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "Checkpoints", Stopping)
        assert run(folder, tmp_path / "out", *options) == 1
    assert "stopped by the test" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.json").exists()
    assert run(folder, tmp_path / "out", *options) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["rows"] == results[1]["rows"]


def fake_rows(error_of, n_seeds=3):
    """Runs whose error is a function of their rate and of their drift within it."""
    rng = np.random.default_rng(0)
    rows = []
    for rate in (1e-4, 1e-3, 1e-2):
        for decay in (1.0, 0.75, 0.5, 0.25):
            for seed in range(n_seeds):
                drift = rate * (1.0 + decay) * np.exp(0.1 * rng.standard_normal())
                errors = {"force_rmse_meV_per_A": error_of(rate, drift, rng)}
                early = dict.fromkeys(DRIFTS, drift)
                row = {"learning_rate": rate, "decay": decay, "frozen": 0, "seed": seed, "early": early}
                rows.append({**row, "ood": errors, "id": {"force_rmse_meV_per_A": 10.0}})
    return rows


def test_drift_that_decides_is_found_also_within_a_rate():
    found = predictions(fake_rows(lambda rate, drift, rng: 100.0 * drift), n_resamples=200)
    assert (found["n_runs"], found["n_choices"]) == (36, 12)
    for name in ("spearman", "spearman_within_rates"):
        one = found["wasserstein"]["ood_force_rmse"][name]
        assert one["value"] == pytest.approx(1.0)
        assert one["confidence_95"][0] > 0.9


def test_drift_that_only_repeats_the_rate_is_told_from_one_that_says_more():
    found = predictions(
        fake_rows(lambda rate, drift, rng: 100.0 * rate * np.exp(0.1 * rng.standard_normal())), n_resamples=200
    )
    plain, within = (found["wasserstein"]["ood_force_rmse"][k] for k in ("spearman", "spearman_within_rates"))
    assert plain["confidence_95"][0] > 0.5
    assert within["confidence_95"][0] < 0.0 < within["confidence_95"][1]


def test_rank_correlation_is_spearmans_and_undefined_for_a_constant():
    rng = np.random.default_rng(1)
    x, y = rng.integers(0, 5, 30), rng.standard_normal(30)
    assert rank_correlation(x, y) == pytest.approx(spearmanr(x, y).statistic)
    constant = interval(np.ones(30), y, list(range(30)))
    assert constant["value"] is constant["confidence_95"] is None
    assert interval(x.astype(float), np.where(y > 1.0, np.nan, y), list(range(30)))["n"] == np.sum(y <= 1.0)


def test_timings_are_of_the_programs_that_ran():
    """Functions of known cost: the second argument is an order, the program sleeps per call."""
    calls = []

    def run(state, order, shared):
        calls.append(order.shape)
        return state + order.sum() + shared

    speed = measure(run, (np.arange(6.0), np.ones((6, 3))), np.float64(1.0), widths=(1, 2), n_settings=4)
    assert (speed.n_settings, speed.n_steps) == (4, 3)
    assert set(speed.seconds) == set(speed.compile_seconds) == {"1", "2"}
    assert min(speed.separate_seconds, *speed.seconds.values()) > 0.0
    assert set(calls) == {(3,)}
    fast = Throughput(4, 3, 2.0, 9.0, {"1": 2.5, "2": 1.0}, {"1": 9.0, "2": 9.0})
    assert fast.best_width == 2


def test_heat_maps_show_every_mean():
    rows = fake_rows(lambda rate, drift, rng: 1000.0 * rate)
    figure = _sweep_report.heat_maps(rows)
    ood = figure.axes[1]
    assert [text.get_text() for text in ood.texts] == ["0.1", "1.0", "10.0"] * 4
    assert [text.get_text() for text in ood.get_xticklabels()] == ["0.0001", "0.001", "0.01"]
    assert figure.axes[0].get_yticklabels()[0].get_text() == "decay 1, 0 frozen"
