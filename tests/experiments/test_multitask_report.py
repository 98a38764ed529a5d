"""Report of experiments.multitask: intervals, improvement over scratch, verdict; and its materials."""

import json

import numpy as np
import pytest

from experiments.multitask import __main__ as multitask
from experiments.multitask import report
from experiments.multitask.config import Config
from experiments.multitask.data import beyond_composition
from experiments.multitask.figures import data_efficiency
from experiments.multitask.runs import Run, _options
from mlipjax.data import Dataset
from mlipjax.models import registry
from mlipjax.system import Labels, System

N = 400
ERRORS = {"scratch": (0.010, 0.050), "ft": (0.008, 0.045), "lp": (0.015, 0.046), "mft": (0.008, 0.030)}


def results(errors=ERRORS, seeds=3):
    """Results, predictions and targets of runs whose MAE is known: errors of one size and random sign."""
    rng = np.random.default_rng(0)
    targets = {"id": np.linspace(0.2, 0.3, N).tolist(), "ood": np.linspace(0.35, 0.45, N).tolist()}
    predictions, rows = {}, []
    for mode, sizes in errors.items():
        for seed in range(seeds):
            predictions[Run(mode, 2000, seed)] = {
                test: np.array(targets[test]) + size * rng.choice([-1.0, 1.0], N)
                for test, size in zip(("id", "ood"), sizes, strict=True)
            }
            left = None if mode == "scratch" else {"force_mae_meV_per_A": 100.0 + seed}
            rows.append({"mode": mode, "n": 2000, "seed": seed, "force_field": left, "seconds": 1.0})
    found = {
        "settings": {"model": "universal", "n_train": "2000", "steps": "500"},
        "property": "gap", "unit": "Hartree", "domain": "tails", "rows": rows,
        "before": {"force_mae_meV_per_A": 90.0}, "n_retained": 200, "force_field": "its training set",
        "versions": {"mlipjax": "test"},
    }  # fmt: skip
    found["summary"] = report.summarise(found, predictions, targets)
    return found, predictions, targets


def test_improvement_over_scratch_and_the_ratio_are_those_of_the_errors():
    found, *_ = results()
    rows = {row["mode"]: row for row in found["summary"]}
    assert rows["mft"]["ood"]["mae"] == pytest.approx(0.030)
    assert rows["mft"]["ood"]["better_percent"] == pytest.approx(40.0)
    assert rows["lp"]["id"]["better_percent"] == pytest.approx(-50.0)
    assert rows["scratch"]["id"]["better_percent"] == 0.0
    assert rows["ft"]["ratio"] == pytest.approx(0.045 / 0.008)
    assert rows["ft"]["force_mae_meV_per_A"] == 101.0
    # all errors have one size: resampling changes nothing
    np.testing.assert_allclose(rows["ft"]["id"]["mae_95"], 0.008, rtol=1e-12)


def test_intervals_hold_the_spread_of_structures():
    rng = np.random.default_rng(1)
    errors = np.tile(np.abs(rng.normal(size=1000)), (3, 1))
    _, low, high = report._interval(errors)
    # three equal seeds: what is left is the standard error of a mean over structures
    half = 1.96 * errors[0].std() / np.sqrt(1000)
    assert (high - low) / 2 == pytest.approx(half, rel=0.15)


def test_the_verdict_says_what_holds_and_warns_if_it_does_not():
    text, answer, alarm = report.verdict(results()[0])
    assert (answer, alarm) == ("supported", False)
    assert "mft is 33.3 % better than ft" in text
    assert "structures paired, better by 33.3 to 33.3 %; 5 % are of interest)." in text
    assert "+40.0 % [+40.0, +40.0] OOD (paper +17.1)" in text
    assert "the ID error is 2.2 times the paper's" in text
    assert "force MAE 90 before, after ft 101, lp 101, mft 101" in text
    text, answer, alarm = report.verdict(results({**ERRORS, "mft": (0.008, 0.055)})[0])
    assert (answer, alarm) == ("contradicted", True)
    assert "worse than ft" in text


@pytest.mark.parametrize(("mft", "answer"), [(0.040, "supported"), (0.0435, "contradicted"), (0.0429, "not decided")])
def test_the_rule_asks_for_five_percent(mft, answer):
    found, predictions, targets = results({**ERRORS, "mft": (0.008, mft)})
    rng = np.random.default_rng(3)  # errors of ft that differ, so that the interval is not a point
    spread = 1.0 + 0.1 * rng.choice([-1.0, 1.0], N)
    for run, values in predictions.items():
        if run.mode == "ft":
            values["ood"] = np.array(targets["ood"]) + 0.045 * spread / spread.mean()
    found["summary"] = report.summarise(found, predictions, targets)
    change, low, high = report.better_than_ft({row["mode"]: row for row in found["summary"]}, "mft")
    assert low < change < high
    assert change == pytest.approx(100 * (1 - mft / 0.045))
    assert report.verdict(found)[1] == answer


def test_mft_long_has_as_many_steps_of_the_property_as_the_others():
    config = Config(steps=30).resolved()
    steps = {mode: _options(config, Run(mode, 10, 0), "Hartree").steps for mode in ("ft", "mft", "mft-long")}
    assert steps == {"ft": 30, "mft": 30, "mft-long": 60}


def test_the_curve_is_drawn_where_there_are_sizes_and_improvements_are_numbers():
    found, predictions, targets = results()
    found["summary"] += [{**row, "n": 500} for row in found["summary"]]
    outcome = report.outcome(found, predictions, targets)
    assert list(outcome.content) == ["improvement", "residuals", "data_efficiency", "table"]
    assert outcome.numbers["OOD MAE better than scratch, mft"] == (pytest.approx(40.0), "%", N, 3)
    json.dumps(found)


def test_the_curve_has_numbers_on_both_axes_though_errors_differ_little():
    def row(n, error):
        return {
            "mode": "ft",
            "n": n,
            **{t: {"mae": error, "mae_95": [0.99 * error, 1.01 * error]} for t in ("id", "ood")},
        }

    figure = data_efficiency([row(500, 0.017), row(2000, 0.016)], "Hartree")
    figure.canvas.draw()
    for panel in figure.axes:
        low, high = panel.get_ylim()
        shown = [t for t in panel.get_yticklabels() if t.get_text() and low <= t.get_position()[1] <= high]
        assert len(shown) >= 3


def test_energies_beyond_composition_do_not_depend_on_the_energies_of_atoms():
    rng = np.random.default_rng(2)
    systems = [System(rng.normal(size=(4, 3)), rng.choice([8, 12, 14], 4), np.eye(3) * 5.0) for _ in range(40)]
    bonding = rng.normal(size=40)

    def data(e0s):
        energies = [4 * b + sum(e0s[int(z)] for z in s.atomic_numbers) for s, b in zip(systems, bonding, strict=True)]
        labels = tuple(Labels.create(4, energy) for energy in energies)
        return Dataset(tuple(systems), labels, tuple({} for _ in systems))

    plain, shifted = (beyond_composition(data(e0s)) for e0s in ({8: 0, 12: 0, 14: 0}, {8: -400, 12: -30, 14: -100}))
    np.testing.assert_allclose(plain, shifted, atol=1e-9)
    assert np.corrcoef(plain, bonding)[0, 1] > 0.9


def test_without_the_data_it_says_so_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path / "none"))
    assert multitask.run(["--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: the QM9 gaps of S3's split are not in")
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_the_experiment_runs_and_resumes(tmp_path):
    if not (registry.data_folder() / "qm9_gap").is_dir():
        pytest.skip("the QM9 gaps are not at hand (MLIPJAX_DATA)")
    arguments = ["--steps", "10", "--seeds", "1", "--n-train", "64", "--n-test", "32", "--n-valid", "16"]
    arguments += ["--modes", "scratch", "lp", "--hidden", "8", "--out", str(tmp_path)]
    assert multitask.run(arguments) == 0
    first = json.loads((tmp_path / "results.json").read_text())
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/evaluation.json")}
    assert sorted(path.parent.name for path in times) == ["lp-64-0", "scratch-64-0"]
    assert multitask.run(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert json.loads((tmp_path / "results.json").read_text())["summary"] == first["summary"]
    assert multitask.run([*arguments, "--batch-size", "8"]) == 1
