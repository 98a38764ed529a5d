"""Coverage, correlation and ROC of error bars, against other libraries and by construction."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from mlipjax.statistics import draw_groups, paired_bootstrap
from mlipjax.uncertainty import Errors, Spread, score, score_structures
from mlipjax.uncertainty.scores import auroc, spearman


def planted(n=60, seed=0, of_truth=1.0):
    """Errors that are normal with known standard deviations, and error bars ``of_truth`` times as long."""
    rng = np.random.default_rng(seed)
    stds = [np.exp(rng.normal(size=(20, 3))) * np.exp(rng.normal()) for _ in range(n)]
    energy = np.exp(rng.normal(size=n))
    spreads = [
        Spread(of_truth * np.array([e]), np.ones(20), of_truth * own) for e, own in zip(energy, stds, strict=True)
    ]
    errors = Errors(rng.normal(size=n) * energy, [rng.normal(size=(20, 3)) * own for own in stds], list(range(n)))
    return spreads, errors


def test_right_error_bars_hold_as_often_as_they_say_and_find_large_errors():
    found = score(*planted())
    for part in ("energy", "forces"):
        for key, level in (("coverage_68", 0.683), ("coverage_95", 0.95)):
            low, high = found[part]["confidence_95"][key]
            assert low - 0.02 < level < high + 0.02
    assert found["forces"]["auroc"] > 0.8
    assert found["structures"]["spearman"] > 0.8
    assert (found["n_structures"], found["n_groups"]) == (60, 60)


def test_error_bars_that_are_too_short_are_seen():
    assert score(*planted(of_truth=0.3))["forces"]["coverage_68"] < 0.3


def test_numbers_are_those_of_other_libraries():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=200), 1)  # with ties
    y = x + rng.normal(size=200)
    assert spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert auroc(x, y > 1.0) == pytest.approx(roc_auc_score(y > 1.0, x))
    assert np.isnan(auroc(x, y > 100.0))
    assert np.isnan(spearman(np.ones(5), y[:5]))


def test_frames_of_one_trajectory_are_little_evidence():
    spreads, errors = planted(n=40)
    alone = score(spreads, errors)["forces"]["confidence_95"]["coverage_68"]
    copied = [0] * 4 + [1] * 4 + [2] * 4
    rows = [i for i in range(3) for _ in range(4)]
    grouped = score([spreads[i] for i in rows], errors.subset(rows))
    assert grouped["n_groups"] == 3
    same = Errors(errors.energy[rows], [errors.forces[i] for i in rows], copied)
    low, high = score([spreads[i] for i in rows], same)["forces"]["confidence_95"]["coverage_68"]
    assert high - low > 2 * (alone[1] - alone[0])
    single = score(spreads[:3], Errors(errors.energy[:3], errors.forces[:3], ["a"] * 3))
    assert single["forces"]["confidence_95"]["auroc"] is None


def test_structures_without_forces_have_no_scores():
    spreads, errors = planted(n=5)
    none = Errors(errors.energy, [np.full((20, 3), np.nan)] * 5, errors.groups)
    found = score(spreads, none)
    assert found["forces"] is None
    assert score_structures(np.ones(5), none) is None
    assert found["large_force_error_eV_per_A"] is None


def test_groups_are_drawn_whole():
    for rows in draw_groups(["a", "b", "a", "c"], 20):
        assert (rows == 0).sum() == (rows == 2).sum()


def mean_root(values):
    return float(np.sqrt(values.mean()))


def test_paired_intervals_decide_what_unpaired_ones_cannot():
    """Both models find the same structures hard; the first is better by 5 % on each of them."""
    rng = np.random.default_rng(0)
    hard = np.exp(1.5 * rng.normal(size=30))
    first, second = (0.95 * hard * np.exp(0.02 * rng.normal(size=30)))[None] ** 2, hard[None] ** 2
    found = paired_bootstrap(first, second, mean_root)
    assert found.value == pytest.approx(mean_root(first) - mean_root(second))
    assert found.decided
    assert found.high < 0.0
    ends = [
        np.percentile([mean_root(own[0, rows]) for rows in draw_groups(range(30))], [2.5, 97.5])
        for own in (first, second)
    ]
    assert ends[0][1] > ends[1][0]  # each for itself: they overlap


def test_seeds_are_a_level_of_their_own():
    rng = np.random.default_rng(1)
    frames = np.exp(rng.normal(size=40))
    offsets = np.array([0.7, 1.3, 0.9])  # what a seed is worth
    first, second = offsets[:, None] * frames, 0.95 * frames[None] * np.ones((3, 1))
    assert not paired_bootstrap(first, second, np.mean).decided
    assert paired_bootstrap(first[:1], second, np.mean).decided


def test_a_single_group_decides_nothing_and_other_structures_are_refused():
    first, second = np.ones((1, 4)), np.zeros((1, 4))
    assert not paired_bootstrap(first, second, np.mean, groups=["a"] * 4).decided
    with pytest.raises(ValueError, match="found 4 and 3 structures"):
        paired_bootstrap(first, second[:, :3], np.mean)
