"""Which of the sampled frames are labelled: properties of the choices, and the loop that makes them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import CONFIG, case, start
from hypothesis import given, settings
from hypothesis import strategies as st

from mlipjax.finetuning import AlarmConfig, RoundConfig, run_rounds, selection
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.selection import at_intervals, element_features, scales_of
from mlipjax.oracles import Labeller
from mlipjax.settings import PeriodicSettings, SystemSettings

farthest = jax.jit(selection.farthest, static_argnums=1)
largest = jax.jit(selection.largest, static_argnums=1)
at_random = jax.jit(selection.at_random, static_argnums=(1, 2))

FEW = settings(max_examples=25, deadline=None)
NOTHING = np.zeros((0, 3)), np.zeros(0, bool)


def points(seed, n=8, d=3):
    return np.random.default_rng(seed).normal(size=(n, d))


@FEW
@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans(), st.booleans())
def test_choices_do_not_depend_on_the_order_of_candidates(seed, n, is_known, is_weighted):
    features, std = points(seed), np.abs(points(seed + 1)[:, 0])
    known = (points(seed + 2, 2), np.ones(2, bool)) if is_known else NOTHING
    order = np.random.default_rng(seed).permutation(8)
    assert set(order[np.asarray(largest(std[order], n))]) == set(np.asarray(largest(std, n)))
    weights = std if is_weighted else None
    moved = farthest(features[order], n, *known, None if weights is None else weights[order])
    assert set(order[np.asarray(moved)]) == set(np.asarray(farthest(features, n, *known, weights)))


@FEW
@given(st.integers(0, 10**6), st.integers(1, 4), st.booleans())
def test_copies_are_not_chosen_together_nor_of_what_is_known(seed, n, is_known):
    unique = points(seed, 6)
    known, is_row = (unique[:2], np.ones(2, bool)) if is_known else NOTHING
    copies = np.concatenate([unique, unique])
    chosen = np.asarray(farthest(copies, n, known, is_row))
    assert len(set(chosen % 6)) == n
    if is_known:
        assert not {0, 1} & set(chosen % 6)


def test_farthest_points_are_those_of_a_plain_search():
    features, known = points(3, 20), points(4, 5)
    is_known = np.array([True, False, True, True, False])
    chosen, rest = [], list(known[is_known])
    for _ in range(6):
        gaps = [min(np.linalg.norm(x - y) for y in rest) for x in features]
        chosen.append(int(np.argmax(gaps)))
        rest.append(features[chosen[-1]])
    assert np.asarray(farthest(features, 6, known, is_known)).tolist() == sorted(chosen)


def test_weights_decide_between_equal_distances():
    corners = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    known, is_known = np.zeros((1, 2)), np.array([True])
    for k in range(3):
        weights = np.where(np.arange(3) == k, 2.0, 1.0)
        assert np.asarray(farthest(corners, 1, known, is_known, weights)).tolist() == [k]


def test_intervals_are_the_last_frames_of_each_replica():
    # two replicas, four frames of each, two labels of each: frames 1 and 3
    assert np.asarray(at_intervals(8, 4, 2)).tolist() == [2, 3, 6, 7]
    assert np.asarray(at_intervals(6, 2)).tolist() == [2, 5]
    assert np.asarray(at_intervals(4, 4)).tolist() == [0, 1, 2, 3]


def test_random_choices_are_by_key_and_take_all_alike():
    first = at_random(jax.random.key(1), 10, 4)
    np.testing.assert_array_equal(first, at_random(jax.random.key(1), 10, 4))
    counts = np.zeros(10)
    for seed in range(300):
        chosen = np.asarray(at_random(jax.random.key(seed), 10, 4))
        assert len(set(chosen)) == 4
        assert (np.diff(chosen) > 0).all()
        counts[chosen] += 1
    # 120 of 300 each; four standard deviations are 34
    assert np.abs(counts - 120).max() < 34


def test_what_is_not_a_number_is_most_uncertain():
    assert np.asarray(largest(jnp.array([1.0, jnp.nan, 3.0, 2.0]), 2)).tolist() == [1, 2]


def test_features_per_element_are_means_and_no_element_outweighs_another():
    features, species = points(5, 4 * 3, 2).reshape(4, 3, 2), np.array([0, 2, 2])
    found = np.asarray(element_features(features, species, 3))
    np.testing.assert_allclose(found[:, :2], features[:, 0], rtol=1e-6)
    np.testing.assert_allclose(found[:, 2:4], 0.0)
    np.testing.assert_allclose(found[:, 4:], features[:, 1:].mean(axis=1), rtol=1e-6)
    scaled = (found / np.asarray(scales_of(found, 3))).reshape(4, 3, 2)
    np.testing.assert_allclose(scaled.var(axis=0).sum(axis=1), [1.0, 0.0, 1.0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"select": "best"}, "select is 'best'; choose one of interval, random"),
        ({"sample_factor": 0}, "sample_factor must be at least 1, found 0"),
        ({"select": "alarm"}, "select=alarm needs charts; choose on_alarm ignore"),
        ({"select": "random", "on_alarm": "label"}, "which on_alarm=label interrupts; choose on_alarm off"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        PeriodicSettings(**options)


def test_frames_come_in_equal_steps():
    with pytest.raises(ValueError, match="steps=100 must be a multiple of sample_factor=7"):
        PeriodicSettings(select="random", sample_factor=7).of(SystemSettings())
    PeriodicSettings(sample_factor=7).of(SystemSettings())


def test_rounds_refuse_choices_that_cannot_be_made():
    with pytest.raises(ValueError, match="give an AlarmConfig"):
        RoundConfig(select="alarm")
    with pytest.raises(ValueError, match="choose one of both"):
        RoundConfig(select="diverse", chart_components=2, alarm=AlarmConfig("label"))


def chosen_of(history):
    return [record["chosen"] for record in history if record["stage"] == "select"]


@pytest.mark.slow
@pytest.mark.parametrize("select", ["random", "uncertain", "diverse", "uncertain-diverse", "alarm"])
def test_both_loops_choose_alike_and_a_killed_one_goes_on(select, tmp_path):
    watched = {"chart_components": 2, "alarm": AlarmConfig("ignore", folds=4)} if select == "alarm" else {}
    setup, teacher, params, controls = case(dataclasses.replace(CONFIG, select=select, train_steps=1, **watched))
    systems = tuple(dataclasses.replace(own, sample_factor=3) for own in setup.systems)
    setup = dataclasses.replace(setup, systems=systems)
    begin = start(setup, params, controls)
    expected = run_rounds(setup, teacher, controls, begin, 2)

    class Killed(Exception):
        pass

    def kill(piece):
        # in the middle of sampling, and between the choice and its labels
        if (
            piece.round == 1
            and piece.record is not None
            and (piece.stage, piece.done) in (("sample", 2), ("select", 1))
        ):
            raise Killed

    def loop(on_piece):
        with Labeller(teacher, tmp_path / "labels.db") as labeller:
            return HostLoop(setup, labeller, controls, tmp_path, on_piece).run(begin, 2)

    for _ in range(2):
        with pytest.raises(Killed):
            loop(kill)
    found = loop(lambda piece: None)
    assert chosen_of(found.history) == chosen_of(expected.history)
    (first, second), (own,) = chosen_of(found.history), found.state.systems
    assert len(first) == len(second) == 4
    assert int(own.buffer.count) == 8
    assert bool(own.buffer.labelled.all())
    if select in ("uncertain", "alarm"):
        assert first == [4, 5, 10, 11]  # nothing is known yet: the last of each interval
    np.testing.assert_allclose(own.buffer.position, expected.state.systems[0].buffer.position, rtol=0, atol=1e-9)
