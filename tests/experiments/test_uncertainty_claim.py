"""``experiments.uncertainty``: its rule, its comparison, and what it needs."""

import numpy as np
import pytest

from experiments.uncertainty import report, runs
from experiments.uncertainty.config import PRESETS, Config
from experiments.uncertainty.report import Estimate


def repetitions(n=3):
    """Structures of four rungs; one index is the error itself, another one nothing."""
    found = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        wrong = np.exp(rng.normal(size=40))
        index = {"llpr": (wrong**2).tolist(), "combined": rng.normal(size=40).tolist()}
        found.append({"groups": [f"rung {k // 10}" for k in range(40)], "wrong": wrong.tolist(), "index": index})
    return found


def test_correlations_are_of_ranks_and_paired():
    perfect = report.correlation(repetitions(), "llpr")
    assert tuple(perfect) == pytest.approx((1.0, 1.0, 1.0))
    nothing = report.correlation(repetitions(), "combined")
    assert nothing.low < 0.0 < nothing.high
    difference = report.correlation(repetitions(), "llpr", "combined")
    assert difference.value == pytest.approx(1.0 - nothing.value)
    assert report.answer(difference) == "supported"


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (Estimate(0.1, 0.01, 0.2), "supported"),
        (Estimate(0.04, 0.01, 0.06), "not decided"),
        (Estimate(0.1, -0.01, 0.2), "not decided"),
        (Estimate(-0.02, -0.05, 0.03), "contradicted"),
    ],
)
def test_the_answer_is_that_of_the_rule(effect, expected):
    assert report.answer(effect) == expected


def test_every_repetition_has_seeds_of_its_own():
    units = runs.units_of(Config(repetitions=2, members=3))
    tunes = [unit.name for unit in units if unit.name.startswith("tune")]
    assert tunes == [f"tune-{seed}" for seed in range(6)]
    assert [unit.after for unit in units if unit.name == "judge-1"] == [("tune-3", "tune-4", "tune-5")]
    assert PRESETS["quick"].repetitions == 1
    with pytest.raises(ValueError, match="--members must be 2 or more"):
        Config(members=1)


def test_parts_do_not_overlap():
    places = [*runs.TRAIN.values(), *runs.CALIBRATE.values(), *runs.LADDER.values()]
    rows = [row for start, stop in places for row in range(start, stop)]
    assert len(rows) == len(set(rows))


def test_missing_data_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("MLIPJAX_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="is missing: give --data, or point MLIPJAX_DATA"):
        _ = Config().file
