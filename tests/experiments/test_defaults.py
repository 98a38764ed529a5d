"""``experiments.defaults``: what is held out, what is concluded, and one run from data to report."""

import json

import numpy as np
import pytest

from experiments.defaults import __main__ as defaults
from experiments.defaults import report
from experiments.defaults.config import Config
from experiments.defaults.recipes import RECIPES
from experiments.defaults.runs import _frames, units
from mlipjax.data.hashing import hash_dataset
from mlipjax.optim import make_strategy


def fake_rows(factor, n_seeds=3, n_frames=12):
    """Runs of two recipes of which the second has ``factor`` times the errors of the first, up to noise."""
    rng, rows = np.random.default_rng(0), []
    frames = 60.0 * np.exp(0.3 * rng.standard_normal(n_frames))  # some frames are hard for every model
    for seed in range(n_seeds):
        for system, model in (("chclca", "nequix-mp-1"), ("liclcocl2", "nequix-mp-1")):
            for recipe, scale in (("before", 1.0), ("muon", factor)):
                squares = (scale * frames * np.exp(0.02 * rng.standard_normal(n_frames))) ** 2
                errors = {"energy_std_meV_per_atom": 1.0, "retained_force_mae_meV_per_A": None}
                after = {**errors, "frame_squares_meV2_per_A2": squares.tolist()}
                after["force_rmse_meV_per_A"] = float(np.sqrt(squares.mean()))
                before = {**errors, "force_rmse_meV_per_A": 130.0}
                rows.append({
                    "model": model, "system": system, "recipe": recipe, "seed": seed, "steps": 150, "frames_seen": 150,
                    "before": before, "after": after, "training_cpu_seconds": 1.0,
                })  # fmt: skip
    return rows


def concluded(factor):
    results = {"settings": {"stage": "final"}, "summary": report.summarise(fake_rows(factor))}
    return report.outcome(results)


def test_a_recipe_that_is_better_everywhere_wins_and_one_that_is_not_does_not():
    better = concluded(0.8)
    assert better.answer == "supported"
    assert better.numbers["force RMSE / before, nequix-mp-1, chclca"].value == pytest.approx(0.8, abs=0.02)
    assert "muon" in better.verdict
    assert report.best(report.summarise(fake_rows(1.3))) == "before"
    assert concluded(1.3).answer == "not decided"


def test_ratios_of_like_recipes_hold_one_within_intervals_far_narrower_than_frames_differ():
    row = next(row for row in report.summarise(fake_rows(1.0)) if row["recipe"] == "muon")
    value, low, high = row["ratio"]
    assert low < 1.0 < high
    assert low < value < high
    assert high - low < 0.05


@pytest.mark.parametrize("system", ["chclca", "liclcocl2"])
def test_the_choice_sees_nothing_of_what_the_final_test_is_on(shared_data, system):
    choice, held_out = _frames(system, "choice")
    train, test = _frames(system, "final")
    assert len(choice) + len(held_out) == len(train)
    hashes = {hash_dataset(test.subset([i])) for i in range(len(test))}
    for part in (choice, held_out, train):
        assert not hashes & {hash_dataset(part.subset([i])) for i in range(len(part))}


def test_recipes_change_what_they_say_and_units_are_those_of_all_settings():
    params = {"layer_0": {"w": np.ones((2, 2))}, "readout": {"w": np.ones(2)}}
    usual = make_strategy("naive", params)
    assert RECIPES["muon"].change(usual) == usual  # the winner is the default
    assert RECIPES["before"].change(usual).learning_rate == 5e-4
    names = [unit.name for unit in units(Config())]
    assert len(set(names)) == len(names) == 3 * 2 * 2 * 2


@pytest.mark.slow
def test_a_run_from_frames_to_report_and_again(shared_data, tmp_path, capsys):
    options = ["--stage", "choice", "--models", "universal", "--systems", "liclcocl2", "--epochs", "1", "--seeds", "1"]
    options += ["--workers", "1", "--out", str(tmp_path)]
    for _ in range(2):
        assert defaults.run(options) == 0
    assert "is done" in " ".join(capsys.readouterr().out.split())
    found = json.loads((tmp_path / "results.json").read_text())
    by_recipe = {row["recipe"]: row for row in found["rows"]}
    before, after = (by_recipe["muon"][when]["force_rmse_meV_per_A"] for when in ("before", "after"))
    assert after < 0.8 * before
    assert by_recipe["muon"]["steps"] > 3 * by_recipe["before"]["steps"]
    assert (tmp_path / "errors.png").read_bytes().startswith(b"\x89PNG")
