"""Conclusions of the experiment: from made-up errors whose answer is known, and never more than they hold."""

import numpy as np
import pytest

from experiments.bias import claims
from experiments.bias.config import PRESETS, Config
from experiments.bias.report import verdict
from experiments.lab.s0 import validation_frames


def frames(rng, n, force, offset, spread=0.5):
    """Errors of n frames: force RMSE in meV/Å, energy offset and scatter in meV/atom."""
    return {
        "energy": (offset + spread * rng.normal(size=n)).tolist(),
        "force_squared": (force**2 * rng.uniform(0.8, 1.2, n)).tolist(),
        "stress": [0.1] * n,
        "extrapolates": [i % 4 == 0 for i in range(n)],
    }


def row(rng, arm, force, offset=0.0, labels=20, seed=0, strategy="naive", kept=20.0):
    tests = {name: {"frames": frames(rng, 12, force, offset)} for name in ("naive: run 4", "periodic: round 4")}
    kept = {"frames": frames(rng, 30, kept, 0.0)}
    return {"arm": arm, "labels": labels, "seed": seed, "strategy": strategy, "tests": tests, "retained": kept}


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(claims, "RESAMPLES", 200)
    rng = np.random.default_rng(0)
    rows = [row(rng, "zero-shot", 40.0, 5.0, labels=0, strategy="")]
    for seed in range(3):
        rows += [row(rng, "naive", 30.0, 5.0, seed=seed, kept=40.0), row(rng, "periodic", 15.0, 0.0, seed=seed)]
        rows += [row(rng, "naive", 31.0, 5.0, seed=seed, kept=22.0, strategy="lora")]
    q = {name: [1.0 + i / 10 for i in range(12)] for name in rows[0]["tests"]}
    sets = {
        "naive": {"periodic": {"O": [3.0] * 9, "Co": [8.0] * 9}},
        "periodic": {"naive": {"O": [1.0, 1.2] * 5, "Co": [2.0] * 10}},
    }
    run = {"time_ps": [0.1], "stopped": None, "events": {"H-Cl": [1.0]}, "start_events": {"H-Cl": 0.0}}
    return {
        "system": "made up", "rows": rows, "strategies": ["naive", "lora"], "common": 20, "n_seeds": 3,
        "n_tests": dict.fromkeys(q, 12), "sets_q": sets, "test_q": {"naive": q}, "own": {"naive": run},
        "outliers": {"naive": {"message": "2 energy labels stand out", "in_training": [5], "held_out": [3]}},
    }  # fmt: skip


def find(results, text):
    return next(claim for claim in claims.find_claims(results) if text in claim.statement)


def test_a_clear_difference_is_supported_with_its_ratio(results):
    claim = find(results, "lower force errors than naive")
    assert claim.answer == "supported"
    assert claim.low < claim.value < claim.high
    assert claim.value == pytest.approx(30.0 / 15.0, rel=0.1)
    assert claim.n == 24
    assert find(results, "fine-tuning on periodic data lowers").value == pytest.approx(40.0 / 15.0, rel=0.1)
    assert find(results, "naive data are constrained").value == pytest.approx(np.sqrt(3.0 / 1.1 * 8.0 / 2.0))


def test_the_opposite_is_contradicted_and_no_difference_is_not_decided(results):
    # all forget alike but the arms whose retained error does not change
    assert find(results, "fine-tuning on naive data forgets").answer == "supported"
    assert find(results, "fine-tuning on periodic data forgets").answer == "not decided"
    # made alike: scatter of 0.5 meV/atom in both
    assert find(results, "lower offset-free energy errors than naive").answer == "not decided"
    assert find(results, "energy errors of naive are mostly").answer == "supported"
    assert find(results, "energy errors of periodic are mostly").answer == "contradicted"


def test_a_handful_of_frames_decides_nothing():
    answers = [claims._answer(2.0, 1.5, 2.5, 1.0, n) for n in (3, 30)]
    assert answers == ["not decided", "supported"]


def test_a_difference_too_small_to_care_about_contradicts_a_claim_of_interest():
    intervals = ((1.05, 1.02, 1.08), (1.2, 1.05, 1.3), (1.2, 0.95, 1.4), (1.05, 1.01, 1.15))
    answers = [claims._answer(*found, 1.0, 30, interest=1.1) for found in intervals]
    assert answers == ["contradicted", "supported", "not decided", "not decided"]


def test_growth_is_told_for_each_strategy(results):
    growth = claims.growth_by_strategy(results)
    assert growth["naive"]["naive"][0] == pytest.approx(2.0, rel=0.15)
    assert growth["lora"]["naive"][0] == pytest.approx(1.1, rel=0.15)
    assert "periodic" not in growth["lora"]


def test_verdict_says_what_is_and_is_not_supported_and_that_short_runs_decide_nothing(results):
    text, alarm = verdict(results, claims.find_claims(results))
    assert not alarm
    assert text.index("Supported") < text.index("Not decided")
    assert "3 seed(s)" in text
    assert "H-Cl 0 to between 1 and 1" in text
    assert "neither show nor exclude" in text
    assert "2 energy labels stand out (1 in training, 1 held out)" in text
    for bad in results["rows"]:
        if bad["arm"] == "naive":
            for errors in bad["tests"].values():
                errors["frames"]["force_squared"] = [99.0**2 + i for i in range(12)]
    assert verdict(results, claims.find_claims(results))[1]


@pytest.mark.parametrize(("n", "expected"), [(4, [2]), (11, [5]), (33, [5, 16, 27])])
def test_validation_frames_are_a_tenth_spread_evenly(n, expected):
    assert validation_frames(n) == expected


def test_what_is_given_replaces_the_preset_also_if_it_is_nothing():
    config = Config(md_steps=0, retained=0, learning_rate=1e-3, strategies=("lora", "l2sp"))
    assert (config.md_steps, config.retained, config.learning_rate) == (0, 0, 1e-3)
    assert config.strategies == ("lora", "l2sp")
    assert config.labels == PRESETS["quick"].labels
    assert PRESETS["full"].seeds == 3
