"""``experiments.strategies``: its rule, its comparison, and what is retained."""

import json
from typing import get_args

import numpy as np
import pytest

from experiments.lab import retained
from experiments.strategies import report, runs
from experiments.strategies.config import PRESETS, Config, Variant
from experiments.strategies.report import Estimate, Strategy

GROUPS = {"naive": 11, "periodic": 8, "single_trajectory": 10}


def made_up(errors, n_seeds=3):
    """Results of one model: by strategy, target and retained errors as multiples of those of the start."""
    rng = np.random.default_rng(0)
    hard = {name: np.exp(rng.normal(size=n)) for name, n in GROUPS.items()}
    kept = np.exp(rng.normal(size=60))

    def of_seeds(squares, factor):
        return (squares * (factor * np.exp(0.01 * rng.normal(size=(n_seeds, len(squares))))) ** 2).tolist()

    def row(target, growth):
        return {
            "target": {name: of_seeds(squares, target) for name, squares in hard.items()},
            "retained": of_seeds(kept, growth),
            "phonon_drift_THz": [0.1] * n_seeds,
            "pairs_with_holes": [["H-H"]] * n_seeds,
            "steps": 135,
            "frames_seen": 135,
            "cpu_seconds": 10.0,
        }

    start = {
        "target": {name: squares.tolist() for name, squares in hard.items()},
        "retained": kept.tolist(),
        "pairs_with_holes": [],
        "n_pairs": 28,
    }
    return {"start": start, "variants": {name: row(*one) for name, one in errors.items()}}


def test_ratios_are_paired_and_the_front_is_what_nothing_beats():
    own = report.compare(made_up({"naive": (0.4, 2.0), "lora": (0.5, 2.1), "replay": (0.5, 1.1)}))
    assert own["lora"].against.value == pytest.approx(0.5 / 0.4, rel=0.02)
    # structures differ by factors of e, strategies by 1 %: only paired intervals are this short
    assert own["lora"].against.high - own["lora"].against.low < 0.05
    assert own["replay"].growth.value == pytest.approx(1.1, rel=0.02)
    assert own["replay"].growth_against.value == pytest.approx(1.1 / 2.0, rel=0.02)
    assert [name for name, one in own.items() if one.front] == ["naive", "replay"]


def strategy(against=(1.0, 1.0, 1.0), growth=(1.0, 1.0, 1.0)):
    return Strategy(50.0, 30.0, Estimate(*against), Estimate(1.0, 1.0, 1.0), Estimate(*growth), True, {})


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ({"lora": ((1.2, 1.1, 1.3),), "replay": ((1.1, 1.0, 1.2), (0.6, 0.5, 0.7))}, "supported"),
        ({"lora": ((0.9, 0.85, 0.94),), "replay": ((1.1, 1.0, 1.2), (0.6, 0.5, 0.7))}, "contradicted"),
        ({"lora": ((1.2, 1.1, 1.3),), "replay": ((1.1, 1.0, 1.2), (1.0, 0.95, 1.1))}, "contradicted"),
        ({"lora": ((0.97, 0.9, 1.0),), "replay": ((1.1, 1.0, 1.2), (0.6, 0.5, 0.7))}, "not decided"),
        ({"lora": ((1.2, 1.1, 1.3),)}, "not decided"),
    ],
)
def test_the_answer_is_that_of_the_rule(others, expected):
    own = {"naive": strategy(), **{name: strategy(*found) for name, found in others.items()}}
    assert report.answer({"model": own}) == expected


def test_a_report_shows_every_strategy_of_every_model():
    names = get_args(Variant)
    errors = {name: (0.4 + 0.01 * k, 2.0 - 0.1 * k) for k, name in enumerate(names)}
    found = {"models": {m: made_up(errors) for m in "ab"}, "epochs": 3, "seeds": 3, "cpu_minutes": 60.0}
    outcome = report.outcome(json.loads(json.dumps(found)))
    assert len(outcome.content["table"].rows) == 2 * len(names)
    assert outcome.numbers["growth of retained force RMSE, a, naive"].value == pytest.approx(2.0, rel=0.02)
    assert outcome.numbers["target force RMSE / naive, b, lora"].n == sum(GROUPS.values())
    assert "lowest naive" in outcome.verdict
    # lower target always costs more of what was known: nothing beats anything
    assert all(row[13] == "yes" for row in outcome.content["table"].rows)


def test_every_fine_tune_comes_once_and_naive_always():
    for config in PRESETS.values():
        names = [unit.name for unit in runs.units_of(config)]
        n = len(config.models) * (1 + config.seeds * len(config.variants))
        assert len(set(names)) == len(names) == n
    with pytest.raises(ValueError, match="--variants must hold naive"):
        Config(variants=("lora", "replay"))


def test_what_is_replayed_is_not_what_is_tested():
    test, replay = retained.known_structures(retained.EMBEDDED, 20, 12, largest=24)
    assert (len(test), len(replay)) == (20, 12)
    assert max(system.n_atoms for system in (*test.systems, *replay.systems)) <= 24
    assert not {info["group"] for info in test.infos} & {info["group"] for info in replay.infos}
