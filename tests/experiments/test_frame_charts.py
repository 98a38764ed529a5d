"""Charts of atoms, read as means over frames; maps of frames."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lab.charts import Chart, mean_features, per_frame, principal_map
from mlipjax.monitoring import COMPONENTS, fit_charts, q_residual
from mlipjax.system import System

RNG = np.random.default_rng(0)
NUMBERS = [np.array([8, 1, 1]), np.array([1, 8, 8, 1]), np.array([8, 1])] * 8
SYSTEMS = [System(np.zeros((len(z), 3)), z, np.zeros((3, 3))) for z in NUMBERS]
VALUES = RNG.normal(size=(sum(map(len, NUMBERS)), 8)).astype(np.float32)


def test_q_of_a_frame_is_the_mean_over_its_atoms_of_one_element():
    chart = Chart.fit(VALUES, SYSTEMS)
    assert chart.elements == (1, 8)
    flat = np.concatenate(NUMBERS)
    rows = jnp.asarray((flat == 8).astype(int))
    state = fit_charts(jnp.asarray(VALUES), rows, jnp.ones(len(flat), jnp.float32), 2, COMPONENTS)
    q = per_frame(np.asarray(q_residual(state, jnp.asarray(VALUES), rows)), SYSTEMS)
    found = chart.read(VALUES, SYSTEMS)
    for z in (1, 8):
        expected = [own[numbers == z].mean() for own, numbers in zip(q, NUMBERS, strict=True)]
        np.testing.assert_allclose(found[z], expected, rtol=1e-5)


def test_frames_that_are_not_known_do_not_shape_the_chart():
    n = sum(map(len, NUMBERS[:15]))
    few, whole = Chart.fit(VALUES[:n], SYSTEMS[:15]), Chart.fit(VALUES, SYSTEMS, 15)
    for z, q in few.read(VALUES, SYSTEMS).items():
        np.testing.assert_allclose(whole.read(VALUES, SYSTEMS)[z], q, rtol=1e-4)


def test_a_frame_is_the_mean_feature_of_each_element_side_by_side():
    means = mean_features(VALUES, SYSTEMS)
    assert means.shape == (24, 16)
    np.testing.assert_allclose(means[0], np.concatenate([VALUES[1:3].mean(axis=0), VALUES[0]]), rtol=1e-6)


def test_a_map_keeps_distances_in_a_plane_and_says_how_much_it_shows():
    plane = RNG.normal(size=(30, 2)) * [3.0, 1.0] @ np.linalg.qr(RNG.normal(size=(5, 5)))[0][:2]
    maps, explained = principal_map({"a": plane[:10], "b": plane[10:]})
    both = np.concatenate([maps["a"], maps["b"]])
    np.testing.assert_allclose(np.linalg.norm(both[0] - both[20]), np.linalg.norm(plane[0] - plane[20]), rtol=1e-9)
    assert sum(explained) == pytest.approx(1.0)
    assert explained[0] > explained[1]
