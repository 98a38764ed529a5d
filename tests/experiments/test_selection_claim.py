"""``experiments.selection``: its rule, its comparison, and that all arms are alike but for the choice."""

import json

import numpy as np
import pytest

from experiments.selection import report, runs
from experiments.selection.config import PRESETS, Config
from experiments.selection.report import Estimate
from mlipjax.settings import PeriodicSettings


def squares(factor, n_seeds=5, noise=0.02):
    """Squared errors of two systems; an arm's errors are ``factor`` times those of random labels."""
    rng = np.random.default_rng(0)
    hard = np.exp(rng.normal(size=(n_seeds, 2, 30)))

    def arm(scale):
        return hard * (scale * np.exp(noise * rng.normal(size=hard.shape))) ** 2

    return {name: {"random": arm(1.0), "diverse": arm(factor)} for name in ("ether", "silicon")}


def test_ratios_are_paired_by_seed_and_frame():
    found = report.ratio(squares(0.9), "diverse", ["ether", "silicon"])
    assert found.value == pytest.approx(0.9, rel=0.01)
    # frames differ by factors of e, arms by 2 %: only paired intervals are this short
    assert found.high - found.low < 0.03
    assert found.low < 0.9 < found.high


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [
        ([Estimate(0.90, 0.85, 0.99), Estimate(1.0, 0.9, 1.1)], "supported"),
        ([Estimate(0.97, 0.96, 0.99), Estimate(1.1, 1.0, 1.2)], "contradicted"),
        ([Estimate(0.90, 0.80, 1.01), Estimate(1.1, 1.0, 1.2)], "not decided"),
        ([Estimate(0.96, 0.94, 0.98)], "not decided"),
    ],
)
def test_the_answer_is_that_of_the_rule(ratios, expected):
    assert report.answer({str(k): one for k, one in enumerate(ratios)}) == expected


def test_a_report_shows_every_arm(tmp_path):
    arms = {select: squares(0.9 + 0.02 * k) for k, select in enumerate(runs.SELECTIONS)}
    found = {
        "squares": {
            name: {select: arms[select][name]["diverse"].tolist() for select in runs.SELECTIONS}
            for name in ("ether", "silicon")
        },
        "zero_shot": {"ether": 30 * [9.0], "silicon": 30 * [16.0]},
        "labels": 120,
        "cpu_minutes": 3.0,
    }
    outcome = report.outcome(json.loads(json.dumps(found)))
    assert set(outcome.numbers) == {
        f"force RMSE, {select} / random" for select in runs.SELECTIONS if select != "random"
    }
    assert "Before any label the force RMSE is ether 3, silicon 4 meV/Å" in outcome.verdict
    assert len(outcome.content["table"].rows) == 5 + 2 * 6


def test_presets_are_loops_that_can_run():
    for config in PRESETS.values():
        names = [unit.name for unit in runs.units_of(config)]
        assert len(names) == len(set(names)) == len(config.systems) * (1 + config.seeds * len(runs.SELECTIONS))
        assert "random" in runs.SELECTIONS
        assert config.steps % config.sample_factor == 0
        PeriodicSettings(steps=config.steps, sample_factor=config.sample_factor, select="diverse")
    with pytest.raises(ValueError, match="--test-frames must be an even number, found 3"):
        Config(test_frames=3)
    with pytest.raises(ValueError, match="--systems must be different ones"):
        Config(systems=("ether", "ether"))
