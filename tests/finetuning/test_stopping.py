"""When a periodic fine-tune may stop: the evidence is what its formula says, is seldom wrong, and is found."""

import numpy as np
import pytest
from scipy.integrate import quad

from mlipjax.finetuning.stopping import ERROR, evidence, reason_to_stop
from mlipjax.finetuning.verdict import find_trend, judge_run
from mlipjax.settings import PeriodicSettings


@pytest.mark.parametrize(("k", "n", "p0"), [(8, 8, 0.5), (3, 9, 0.5), (19, 20, 0.9), (0, 0, 0.7)])
def test_evidence_of_one_round_is_the_mean_likelihood_ratio(k, n, p0):
    ratio = quad(lambda p: (p / p0) ** k * ((1.0 - p) / (1.0 - p0)) ** (n - k) / (1.0 - p0), p0, 1.0)[0]
    assert evidence([k], [n], p0) == pytest.approx(0.5 + 0.5 * ratio, rel=1e-8)


def test_looking_after_every_round_is_wrong_less_often_than_promised():
    rng = np.random.default_rng(0)
    n_runs, n_rounds, size = 1000, 25, 5
    wrong = 0
    for _ in range(n_runs):
        hits = rng.binomial(size, 0.5, n_rounds)
        found = (evidence(hits[: t + 1], [size] * (t + 1), 0.5) for t in range(n_rounds))
        wrong += any(value >= 1.0 / ERROR for value in found)
    assert wrong / n_runs < ERROR
    # a fixed test after every round would not be: it is the looking that costs
    assert wrong > 0


def test_a_good_model_is_found_also_after_bad_rounds():
    assert evidence([5, 5], [5, 5], 0.5) > 1.0 / ERROR
    assert evidence([0] * 10 + [5] * 4, [5] * 14, 0.5) > 1.0 / ERROR
    assert evidence([0] * 10 + [5], [5] * 11, 0.5) < 1.0 / ERROR
    assert evidence([], [], 0.5) == 1.0


def history(*rounds, alarms=None):
    """Force errors of each round in eV/Å, of two systems."""
    records = []
    for number, errors in enumerate(rounds):
        for system, own in enumerate((errors[::2], errors[1::2])):
            sample = {"temperature_K": [[300.0]] * 2, "alarms": (alarms or {}).get(number, []) * (system == 0)}
            sample["alarm_index"] = [[0.5 * (number > 0)]] * 2
            base = {"round": number, "system": system}
            records.append({"stage": "sample", **base, **sample})
            records.append({"stage": "label", **base, "force_rmse_eV_per_A": own})
    return records


GOOD, BAD = [0.02] * 6, [0.2] * 6


def test_a_run_stops_when_all_that_was_asked_for_holds():
    settings = PeriodicSettings(until_force_rmse=50.0)
    assert reason_to_stop(settings, history()) is None
    assert reason_to_stop(settings, history(BAD, GOOD)) is None  # six frames are not enough
    found = reason_to_stop(settings, history(BAD, GOOD, GOOD))
    assert "force RMSE 20 meV/Å, below 50" in found
    assert "6 of 6 frames" in found
    assert reason_to_stop(settings, history(GOOD, GOOD, [0.01] * 5 + [0.4])) is None  # by the root mean square
    assert reason_to_stop(PeriodicSettings(), history(GOOD, GOOD, GOOD)) is None
    both = PeriodicSettings(until_force_rmse=50.0, until_alarm_rate=0.3, on_alarm="label")
    assert reason_to_stop(both, history(GOOD, GOOD, GOOD)) is None
    calm = history(*[GOOD] * 8)
    assert "alarm rate below 0.3" in reason_to_stop(both, calm)
    assert reason_to_stop(both, history(*[GOOD] * 8, alarms={6: [0, 1], 7: [0, 1]})) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"until_alarm_rate": 0.1}, "needs charts that raise alarms"),
        ({"until_alarm_rate": 1.5, "on_alarm": "label"}, "until_alarm_rate must be between 0 and 1, found 1.5"),
        ({"until_force_rmse": -1.0}, "until_force_rmse must be positive, found -1.0"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        PeriodicSettings(**settings)


def test_whether_errors_fall_is_told_against_what_frames_differ_by():
    rng = np.random.default_rng(1)

    def frames(mean, n=12):
        return (mean * (1.0 + 0.2 * rng.normal(size=n))).tolist()

    assert find_trend(history(frames(0.2), frames(0.1))) == "falling"
    assert find_trend(history(frames(0.1), frames(0.1))) == "level"
    assert find_trend(history(frames(0.1), frames(0.2))) == "rising"
    assert find_trend(history(frames(0.1))) == "unknown"
    assert find_trend(history([0.1], [0.05])) == "unknown"


def test_a_run_that_has_no_labels_yet_has_a_verdict_too():
    report = {"rounds": [], "status": "running", "labels_made": 0, "labels_failed": 0, "oracle": "xtb"}
    found = judge_run(report, [])
    assert (found.trend, found.alarm) == ("unknown", False)
    assert judge_run({**report, "status": "stopped: too hot"}, []).alarm
