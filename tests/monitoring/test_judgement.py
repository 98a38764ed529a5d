"""The verdict on simulated streams whose rate of alarms is known, and on single frames that are far out."""

import dataclasses

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mlipjax.monitoring.judgement import FALSE_ALARM, GROSS, judge
from mlipjax.monitoring.limits import Conformal, thinned_limit


def stream(rng, n, phi=0.0, n_atoms=16):
    """Mean of squared AR(1) series: like an index of a frame of so many atoms."""
    x = lfilter([np.sqrt(1 - phi**2)], [1, -phi], rng.standard_normal((n_atoms, n + 200)), axis=1)[:, 200:]
    return (x**2).mean(axis=0)


@pytest.mark.parametrize(
    ("phi", "n_calibration", "n", "level"),
    [(0.0, 10, 200, 0.01), (0.0, 400, 400, 0.01), (0.8, 20, 200, 0.01), (0.8, 400, 400, 0.05), (0.9, 400, 1000, 0.01)],
)
def test_frames_in_control_are_rarely_called_out(phi, n_calibration, n, level):
    rng = np.random.default_rng(0)
    trials = 150
    false = 0
    for _ in range(trials):
        calibration = thinned_limit([stream(rng, n_calibration, phi)], level)
        false += judge(stream(rng, n, phi), [0] * n, calibration).out
    # no more than what binomial scatter of the promised rate allows in one of a thousand test runs
    assert false <= stats.binom.isf(1e-3, trials, FALSE_ALARM)


def test_ten_calibration_frames_promise_little_and_say_so():
    rng = np.random.default_rng(1)
    calibration = thinned_limit([stream(rng, 10)], 0.01)
    values = np.sort(stream(rng, 200))
    values[-29:] = 1.3 * calibration.limit
    found = judge(np.random.default_rng(2).permutation(values), [0] * 200, calibration)
    # by the largest of ten, a seventh of the frames may well exceed it
    assert found.level == pytest.approx(1 / 11)
    assert found.highest_level == pytest.approx(1 - 0.05 ** (1 / 10))
    assert found.in_control
    assert "10 independent calibration frames" in found.promise
    assert "26 %" in found.promise
    # the same frames, six of them some thirty times the limit, are not
    values[-6:] = np.array([30, 31, 33, 35, 36, 38]) * calibration.limit
    found = judge(values, [0] * 200, calibration)
    assert not found.in_control
    assert (found.worst, found.n_alarms) == (199, 29)
    assert found.worst_ratio == pytest.approx(38.0)
    assert "38 times the limit" in found.words


@pytest.mark.parametrize("phi", [0.0, 0.95, 0.995])
@pytest.mark.parametrize("n", [30, 200, 20_000])
def test_one_gross_frame_is_out_among_any_number_of_correlated_ones(phi, n):
    rng = np.random.default_rng(3)
    calibration = thinned_limit([stream(rng, 1000, phi)], 0.01)
    values = stream(rng, n, phi)
    values[n // 2] = 30.0 * calibration.limit
    found = judge(values, [0] * n, calibration)
    assert not found.in_control
    assert found.worst == n // 2


def test_the_further_out_the_surer():
    rng = np.random.default_rng(4)
    calibration = thinned_limit([stream(rng, 1000)], 0.01)
    values = np.minimum(stream(rng, 100), 0.9 * calibration.limit)
    verdicts = []
    for ratio in (1.05, 1.5, 3.0, 6.0, GROSS + 0.1):
        values[50] = ratio * calibration.limit
        verdicts.append(judge(values, [0] * 100, calibration))
    weights = [verdict.p_weight for verdict in verdicts]
    assert weights == sorted(weights, reverse=True)
    assert verdicts[0].in_control
    assert not verdicts[-1].in_control


def test_a_trajectory_that_leaves_half_way_is_not_two_frames():
    """All later frames moderately above the limit: about a common mean they would be worth two independent frames."""
    rng = np.random.default_rng(5)
    calibration = thinned_limit([stream(rng, 2000)], 0.01)
    values = stream(rng, 200)
    values[100:] = np.maximum(values[100:] * 2.0, 1.2 * calibration.limit)
    found = judge(values, [0] * 200, calibration)
    assert found.n_effective > 20
    assert found.too_many
    assert not judge(np.full(50, 1.1) * calibration.limit + stream(rng, 50), range(50), calibration).in_control


def test_what_is_not_a_number_is_out_and_the_worst():
    calibration = Conformal(1.0, 0.01, 200, 200, 1.0)
    values = np.full(20, 0.5)
    values[7] = np.nan
    found = judge(values, [0] * 20, calibration)
    assert not found.in_control
    assert (found.worst, found.n_unknown, found.n_alarms) == (7, 1, 1)
    assert "never seen" in found.words
    with pytest.raises(ValueError, match="no frame"):
        judge(np.zeros(0), [], calibration)


def test_long_calibration_makes_no_excuses():
    calibration = Conformal(1.0, 0.01, 5000, 5000, 1.0)
    found = judge(np.full(20, 0.5), range(20), calibration)
    assert found.promise == ""
    assert found.in_control
    assert dataclasses.asdict(found)["worst_ratio"] == 0.5


def test_too_few_frames_to_tell_are_not_called_in_control():
    """Nearly all frames of five runs out, by a limit that 27 correlated frames gave: no proof, and no assurance."""
    calibration = Conformal(1.0, 1 / 14, 27, 13, 2.1)
    runs = np.repeat(np.arange(5), 10)
    values = 1.0 + np.repeat([0.1, 0.2, 0.3, 0.4, 0.5], 10) + 0.01 * np.random.default_rng(8).normal(size=50)
    values[:3] = 0.9
    found = judge(values, runs, calibration)
    assert found.n_effective < 10
    assert found.undecided
    assert not found.in_control
    assert "47 of 50 frames exceed the limit (94 %)" in found.words
    # no more of them out than expected: nothing speaks against control
    values[3:] = 0.9
    assert judge(values, runs, calibration).in_control


def test_one_frame_a_little_beyond_the_limit_is_not_called_in_control():
    calibration = Conformal(1.0, 0.01, 200, 200, 1.0)
    assert judge(np.array([0.9]), [0], calibration).in_control
    assert not judge(np.array([1.2]), [0], calibration).in_control
    assert judge(np.full(40, 1.2), range(40), calibration).words.count("100 %") == 1
