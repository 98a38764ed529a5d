"""Every number of the microscope on features whose answer is known."""

import numpy as np
import pytest
from scipy.stats import ortho_group, wasserstein_distance

from mlipjax.representation import (
    chart_residual,
    components,
    davies_bouldin,
    effective_rank,
    estimate,
    half_samples,
    linear_cka,
    principal_angles,
    silhouette,
    sliced_wasserstein,
    standardise,
    tsne_maps,
    wasserstein_per_channel,
    within_classes,
)


def cross(center):
    """Four points at distance 1 from their centroid."""
    return np.asarray(center) + np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


CLASSES = np.array(["a"] * 4 + ["b"] * 4)


def test_davies_bouldin_of_two_crosses_is_two_spreads_over_their_distance():
    assert davies_bouldin(np.concatenate([cross([0, 0]), cross([8, 0])]), CLASSES) == pytest.approx(2.0 / 8.0)
    assert np.isnan(davies_bouldin(cross([0, 0]), CLASSES[:4]))


def test_silhouette_of_two_pairs_on_a_line():
    # points 0, 1 and 10, 11: a = 1; b = 10.5 for the outer, 9.5 for the inner points
    value = silhouette(np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 1]))
    assert value == pytest.approx(np.mean([9.5 / 10.5, 8.5 / 9.5, 8.5 / 9.5, 9.5 / 10.5]))
    assert silhouette(np.array([[0.0], [1.0], [0.0], [1.0]]), np.array([0, 0, 1, 1])) < 0.0


def test_standardised_separation_does_not_depend_on_the_scale_of_a_channel():
    features = np.concatenate([cross([0, 0]), cross([3, 2])])
    stretched = features * [1.0, 1000.0]
    assert abs(davies_bouldin(features, CLASSES) - davies_bouldin(stretched, CLASSES)) > 0.03
    scores = [davies_bouldin(standardise(x), CLASSES) for x in (features, stretched)]
    assert scores[0] == pytest.approx(scores[1])


def test_a_constant_channel_stays_silent_when_standardised():
    features = np.column_stack([np.arange(5.0), np.full(5, 3.0) + 1e-12 * np.arange(5.0)])
    standard = standardise(features)
    np.testing.assert_array_equal(standard[:, 1], 0.0)
    np.testing.assert_allclose(standard[:, 0].std(), 1.0)
    half = standardise(0.5 * features, like=features)
    np.testing.assert_allclose(half[:, 0].std(), 0.5)


def test_wasserstein_of_a_shift_is_its_length():
    x = np.random.default_rng(0).standard_normal((200, 3))
    shift = np.array([0.5, -2.0, 0.0])
    np.testing.assert_allclose(wasserstein_per_channel(x, x + shift), np.abs(shift), atol=1e-12)
    # a random unit vector in three dimensions has |u . v| = |v| / 2 on average
    expected = np.linalg.norm(shift) / 2.0
    assert sliced_wasserstein(x, x + shift, n_slices=4000) == pytest.approx(expected, rel=0.03)


def test_wasserstein_of_unequal_samples_is_that_of_scipy_and_copies_change_nothing():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 2)), rng.standard_normal((40, 2)) ** 2
    expected = [wasserstein_distance(x[:, c], y[:, c]) for c in range(2)]
    np.testing.assert_allclose(wasserstein_per_channel(x, y), expected, rtol=1e-12)
    np.testing.assert_allclose(wasserstein_per_channel(x, np.concatenate([y, y, y])), expected, rtol=1e-12)


def test_slices_of_gaussians_are_those_of_their_widths():
    # along every direction N(0, 1) against N(0, 3²): W1 = (3 - 1) E|z| = 2 sqrt(2 / pi), whatever the sample sizes
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((4000, 4)), 3.0 * rng.standard_normal((3000, 4))
    assert sliced_wasserstein(x, y) == pytest.approx(2.0 * np.sqrt(2.0 / np.pi), rel=0.03)
    # single precision in, double precision out; the same seed, the same directions
    single = sliced_wasserstein(x.astype(np.float32), y.astype(np.float32))
    assert single == pytest.approx(sliced_wasserstein(x, y), rel=1e-6)
    assert sliced_wasserstein(x, y) == sliced_wasserstein(x, y) != sliced_wasserstein(x, y, seed=1)
    assert sliced_wasserstein(2.0 * x, 2.0 * y) == pytest.approx(2.0 * sliced_wasserstein(x, y))


def test_slices_see_what_single_channels_do_not():
    x = np.random.default_rng(2).standard_normal((500, 1))
    positive, negative = np.hstack([x, x]), np.hstack([x, -x])
    assert wasserstein_per_channel(positive, np.hstack([x, np.sort(-x, axis=0)])).max() < 0.2
    assert sliced_wasserstein(positive, negative) > 0.3


def test_cka_is_blind_to_rotation_scale_and_shift_and_small_for_strangers():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2000, 6)) * np.arange(1, 7)
    turned = 3.0 * x @ ortho_group.rvs(6, random_state=0) + 5.0
    assert linear_cka(x, turned) == pytest.approx(1.0)
    assert linear_cka(x, rng.standard_normal((2000, 9))) < 0.02
    # two equal orthogonal directions, one of them shared: |Y'X|² / (|X'X| |Y'Y|) = 1 / (sqrt 2 sqrt 2)
    basis = np.linalg.qr(rng.standard_normal((50, 4)) - rng.standard_normal((50, 4)).mean(axis=0))[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]
    assert linear_cka(basis[:, [0, 1]], basis[:, [1, 2]]) == pytest.approx(0.5)


def test_effective_rank_counts_equal_directions():
    corners = np.array([[s if i == j else 0.0 for j in range(5)] for i in range(5) for s in (-1.0, 1.0)])
    assert effective_rank(corners) == pytest.approx(5.0)
    assert effective_rank(corners * [1, 1, 1, 0, 0]) == pytest.approx(3.0)
    # singular values 2 : 1 : 1 have probabilities 1/2, 1/4, 1/4 and 1.5 ln 2 of entropy
    assert effective_rank(corners * [2, 1, 1, 0, 0]) == pytest.approx(2.0**1.5)
    assert np.isnan(effective_rank(np.ones((4, 3))))


def test_components_are_those_of_a_singular_value_decomposition():
    rng = np.random.default_rng(9)
    spread = np.array([1.0, 0.5, 1e-2, 1e-4, 1e-6, 0.0])
    x, y = (rng.standard_normal((300, 6)) * spread @ ortho_group.rvs(6, random_state=i) + 3.0 for i in range(2))
    left, values, right = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    found = components(x)
    assert components(found) is found
    # second moments have twice the digits: 1e-6 of the largest one is known to some 1e-4 of itself
    np.testing.assert_allclose(found.singular_values[:4], values[:4], rtol=1e-7)
    np.testing.assert_allclose(found.singular_values[4:], values[4:], rtol=1e-3, atol=1e-7 * values[0])
    np.testing.assert_allclose(np.abs(np.diag(right @ found.directions))[:4], 1.0, rtol=1e-9)
    scores = found.centred @ found.directions[:, :3] / found.singular_values[:3]
    np.testing.assert_allclose(np.abs(np.sum(scores * left[:, :3], axis=0)), 1.0, rtol=1e-9)
    p = values / values.sum()
    assert effective_rank(found) == effective_rank(x) == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-6)
    for space in ("channels", "atoms"):
        angles = principal_angles(found, components(y), 3, space)
        np.testing.assert_array_equal(angles, principal_angles(x, y, 3, space))
    assert linear_cka(found, y) == linear_cka(x, y)


def test_the_rank_within_classes_does_not_count_what_tells_them_apart():
    features = np.concatenate([cross([0, 0]), cross([50, 0])])
    inner = within_classes(features, CLASSES)
    np.testing.assert_allclose([inner[:4].mean(axis=0), inner[4:].mean(axis=0)], 0.0, atol=1e-12)
    assert effective_rank(inner) == pytest.approx(2.0)
    assert effective_rank(features) < 1.3


@pytest.mark.parametrize("degrees", [0.0, 25.0, 90.0])
def test_a_turned_plane_is_seen_at_its_angle(degrees):
    rng = np.random.default_rng(4)
    plane = rng.standard_normal((100, 2)) @ np.diag([3.0, 2.0])
    flat = np.hstack([plane, np.zeros((100, 1))])
    t = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(t), np.sin(t)], [0, -np.sin(t), np.cos(t)]])
    np.testing.assert_allclose(principal_angles(flat, flat @ turn, 2), [0.0, degrees], atol=1e-6)
    # the same atoms keep their scores, whatever the basis
    np.testing.assert_allclose(principal_angles(flat, flat @ turn, 2, "atoms"), 0.0, atol=1e-5)


def test_q_is_one_in_the_plane_and_grows_with_the_square_of_the_distance_from_it():
    rng = np.random.default_rng(5)
    n = 400
    chart = np.column_stack([5.0 * rng.standard_normal(n), 3.0 * rng.standard_normal(n), rng.standard_normal((n, 2))])
    elements = np.repeat([1, 8], n // 2)
    own = chart_residual(chart, elements, chart, elements, n_components=2)
    assert own[elements == 1].mean() == pytest.approx(1.0, rel=1e-5)
    assert own[elements == 8].mean() == pytest.approx(1.0, rel=1e-5)
    away = np.array([[0.0, 0.0, 10.0, 0.0], [0.0, 0.0, 20.0, 0.0], [100.0, 0.0, 0.0, 0.0]])
    q = chart_residual(chart, elements, away, np.array([1, 1, 1]), n_components=2)
    assert q[1] / q[0] == pytest.approx(4.0, rel=0.1)
    assert q[0] == pytest.approx(100.0 / 2.0, rel=0.25)  # mean Q of two left-out unit variances is 2
    assert np.isnan(chart_residual(chart, elements, away, np.array([1, 6, 92]), n_components=2)[1:]).all()


def test_elements_whose_chart_fits_itself_have_no_q():
    """Few atoms, or atoms that symmetry makes equal, as met in crystals: Q was 1e11 there, and is unknown now."""
    rng = np.random.default_rng(8)
    many = rng.standard_normal((100, 6))
    few = rng.standard_normal((19, 6))
    flat = np.hstack([rng.standard_normal((100, 2)), 1e-5 * rng.standard_normal((100, 4))])
    chart, elements = np.concatenate([many, few, flat]), np.repeat([1, 6, 8], [100, 19, 100])
    q = chart_residual(chart, elements, chart, elements, n_components=2)
    assert np.isfinite(q[elements == 1]).all()
    assert np.isnan(q[elements != 1]).all()


def test_maps_of_two_far_groups_keep_them_apart_and_depend_on_the_seed():
    rng = np.random.default_rng(6)
    features = np.concatenate([rng.standard_normal((30, 5)), 40.0 + rng.standard_normal((30, 5))])
    classes = np.repeat(["a", "b"], 30)
    maps = tsne_maps(features, classes, perplexities=(8.0,), seeds=(0, 1, 0))
    assert all(one.silhouette > 0.5 and one.davies_bouldin < 0.8 for one in maps)
    np.testing.assert_array_equal(maps[0].coordinates, maps[2].coordinates)
    assert maps[0].davies_bouldin != maps[1].davies_bouldin
    with pytest.raises(ValueError, match="60 atoms are too few for perplexity 60"):
        tsne_maps(features, classes, perplexities=(60.0,))


def test_widths_that_differ_are_refused_where_channels_are_paired():
    x, y = np.zeros((5, 3)), np.zeros((5, 2))
    for function in (wasserstein_per_channel, sliced_wasserstein, principal_angles):
        with pytest.raises(ValueError, match="3 and 2 of them"):
            function(x, y)
    with pytest.raises(ValueError, match="found 5 and 4"):
        linear_cka(x, np.zeros((4, 3)))


def test_halves_hold_whole_structures():
    structure = np.repeat(np.arange(9), 3)
    for half in half_samples(structure, 20):
        assert len(half) == 12
        assert set(np.bincount(structure[half], minlength=9)) == {0, 3}
    assert half_samples(np.arange(5), 20) == []


def test_the_interval_of_a_mean_is_that_of_its_standard_error_over_structures():
    rng = np.random.default_rng(7)
    values = np.repeat(rng.standard_normal(200), 5)  # five equal atoms each: 200 independent numbers, not 1000
    found = estimate(lambda rows: {"mean": values[rows].mean()}, np.repeat(np.arange(200), 5), n=1000)["mean"]
    width = 2 * 1.96 * values.std() / np.sqrt(200)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(width, rel=0.15)
    assert found.low < found.value < found.high


def test_few_structures_have_a_value_and_no_interval():
    found = estimate(lambda rows: {"n": float(len(rows))}, np.arange(4))["n"]
    assert found.value == 4.0
    assert np.isnan([found.low, found.high]).all()
