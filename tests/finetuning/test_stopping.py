"""When a periodic fine-tune may stop: the evidence is what its formula says, is seldom wrong, and is found."""

import numpy as np
import pytest
from scipy.integrate import quad

from mlipjax.finetuning.errors import force_errors, persistence, thinned
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


GOOD, BAD = [0.02, 0.019, 0.021, 0.018, 0.02, 0.022], [0.2, 0.19, 0.21, 0.18, 0.2, 0.22]


def test_a_run_stops_when_all_that_was_asked_for_holds():
    settings = PeriodicSettings(until_force_rmse=50.0)
    assert reason_to_stop(settings, history()) is None
    assert reason_to_stop(settings, history(BAD, GOOD)) is None  # six frames are not enough
    found = reason_to_stop(settings, history(BAD, GOOD, GOOD))
    assert "force RMSE 20 meV/Å, below 50" in found
    assert "6 of 6 independent frames" in found
    assert reason_to_stop(settings, history(GOOD, GOOD, [0.01] * 5 + [0.4])) is None  # by the root mean square
    assert reason_to_stop(PeriodicSettings(), history(GOOD, GOOD, GOOD)) is None
    both = PeriodicSettings(until_force_rmse=50.0, until_alarm_rate=0.3, on_alarm="label")
    assert reason_to_stop(both, history(GOOD, GOOD, GOOD)) is None
    calm = history(*[GOOD] * 8)
    assert "alarm rate below 0.3" in reason_to_stop(both, calm)
    assert reason_to_stop(both, history(*[GOOD] * 8, alarms={6: [0, 1], 7: [0, 1]})) is None


def correlated(rng, rho, means, n_replicas=2, n_labels=5):
    """History of runs whose errors are e^(0.2 x) times a mean, x autoregressive along each of the trajectories."""
    x, records = rng.normal(size=n_replicas), []
    for number, mean in enumerate(means):
        errors = []
        for _ in range(n_labels):
            x = rho * x + np.sqrt(1.0 - rho**2) * rng.normal(size=n_replicas)
            errors += (mean * np.exp(0.2 * x)).tolist()
        records.append({"stage": "sample", "round": number, "temperature_K": [[300.0]] * n_replicas})
        records.append({"stage": "label", "round": number, "force_rmse_eV_per_A": errors})
    return records


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_how_much_neighbouring_frames_correlate_is_found_in_short_rounds(rho):
    strata = force_errors(correlated(np.random.default_rng(0), rho, [0.1] * 400))
    assert persistence(strata) == pytest.approx(rho, abs=0.08)
    assert len(thinned(strata)[0].squares) == {0.0: 10, 0.5: 4, 0.9: 2}[rho]


def test_frames_that_follow_each_other_closely_are_not_counted_as_proofs():
    rng, limit = np.random.default_rng(0), PeriodicSettings(until_force_rmse=110.0)
    # half of all frames are above the limit, wherever the others are: nothing should ever be proved
    runs = [correlated(rng, 0.8, [0.11] * 8, n_replicas=4) for _ in range(60)]
    early = [[record for record in run if record["round"] <= last] for run in runs for last in range(8)]
    wrong = np.reshape([reason_to_stop(limit, history) is not None for history in early], (60, 8)).any(1).mean()
    as_if_independent = 0.0
    for run in runs:
        hits = [sum(e < 0.11 for e in record["force_rmse_eV_per_A"]) for record in run if record["stage"] == "label"]
        as_if_independent += any(evidence(hits[: t + 1], [20] * (t + 1), 0.5) >= 1.0 / ERROR for t in range(8)) / 60
    assert wrong < 0.15 < as_if_independent


def test_a_trend_is_not_seen_in_frames_that_follow_each_other_closely():
    rng = np.random.default_rng(0)
    found = [find_trend(correlated(rng, 0.9, [0.1] * 6)) for _ in range(200)]
    assert found.count("falling") + found.count("rising") < 0.12 * 200
    assert find_trend(correlated(rng, 0.9, [0.4, 0.3, 0.2, 0.1])) == "falling"


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


def test_chosen_frames_belong_to_the_trajectories_they_were_sampled_on():
    base = {"round": 0, "system": 0}
    sample = {"stage": "sample", **base, "temperature_K": [[300.0]] * 2}
    label = {"stage": "label", **base, "force_rmse_eV_per_A": [0.1, 0.2, 0.3], "frames": [0, 1, 3]}
    (stratum,) = force_errors([sample, label])
    assert [own.tolist() for own in stratum.trajectories] == [[0.1], [0.2, 0.3]]
    # of ten candidates: frames 1 and 4 of the second replica, frame 3 of the first
    chosen = {"stage": "select", **base, "chosen": [3, 6, 8, 9]}
    (stratum,) = force_errors([sample, chosen, label])
    assert [own.tolist() for own in stratum.trajectories] == [[0.2], [0.1, 0.3]]


def test_a_run_that_has_no_labels_yet_has_a_verdict_too():
    report = {"rounds": [], "status": "running", "labels_made": 0, "labels_failed": 0, "oracle": "xtb"}
    found = judge_run(report, [])
    assert (found.trend, found.alarm) == ("unknown", False)
    assert judge_run({**report, "status": "stopped: too hot"}, []).alarm
