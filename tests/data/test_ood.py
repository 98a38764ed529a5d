import numpy as np
import pytest
from scipy.stats import norm

from mlipjax.data.ood import density_split, element_split, label_density


def test_the_density_of_normal_values_is_the_normal_density():
    values = np.random.default_rng(0).normal(2.0, 3.0, 20_000)
    density = label_density(values)
    inside = np.abs(values - 2.0) < 6.0
    np.testing.assert_allclose(density[inside], norm(2.0, 3.0).pdf(values[inside]), rtol=0.12, atol=2e-3)


def test_the_tails_of_one_mode_are_out_of_domain():
    values = np.random.default_rng(1).normal(size=2000)
    split = density_split(values, ood=0.1, id_test=0.05, valid=0.05)
    inside = np.concatenate([split.train, split.valid, split.id_test])
    assert np.sort(np.concatenate([inside, split.ood_test])).tolist() == list(range(2000))
    assert (len(split.ood_test), len(split.id_test), len(split.valid)) == (200, 100, 100)
    low, high = values[inside].min(), values[inside].max()
    out = values[split.ood_test]
    assert np.all((out < low) | (out > high))
    # 5 % of a normal lie beyond 1.645 on either side
    assert (low, high) == pytest.approx((-1.645, 1.645), abs=0.15)


def test_a_gap_between_two_modes_is_out_of_domain_too():
    rng = np.random.default_rng(2)
    values = np.concatenate([rng.normal(-4.0, 0.5, 500), rng.normal(4.0, 0.5, 500), [0.0, 0.1, -0.1]])
    split = density_split(values, ood=0.02, bandwidth=0.1)
    assert {1000, 1001, 1002} <= set(split.ood_test.tolist())


def test_the_draw_depends_on_the_seed_and_the_tails_do_not():
    values = np.random.default_rng(3).normal(size=300)
    first, second = density_split(values), density_split(values, seed=1)
    np.testing.assert_array_equal(first.ood_test, second.ood_test)
    assert first.id_test.tolist() != second.id_test.tolist()
    np.testing.assert_array_equal(first.train, density_split(values).train)


def test_elements_held_out_are_nowhere_in_training():
    rng = np.random.default_rng(4)
    numbers = [rng.choice([1, 6, 8, 9], 4) for _ in range(200)]
    split = element_split(numbers, [9])
    assert all(9 in numbers[i] for i in split.ood_test)
    assert not any(9 in numbers[i] for part in (split.train, split.valid, split.id_test) for i in part)
    assert "hold F" in split.description


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: label_density([1.0, 1.0, 1.0]), "three or more finite values that differ"),
        (lambda: density_split(np.arange(20.0), ood=1.5), "give a fraction"),
        (lambda: density_split(np.arange(20.0), ood=0.5, id_test=0.3, valid=0.3), "leave none of 10"),
        (lambda: element_split([np.array([1])], [8]), "0 of 1 structures hold O"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
