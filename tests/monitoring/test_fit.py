"""Monitors of a tiny model: what the charts say of frames in and out of control."""

import dataclasses

import jax
import numpy as np
import pytest
from monitor_case import N_FRAMES, features, jittered, model, monitor
from tiny_potential import CUTOFF

from mlipjax.graph import batch_graphs
from mlipjax.monitoring import (
    FRAME_INDICES,
    atom_indices,
    contributions,
    fit_monitor,
    frame_features,
    read,
    read_frames,
    read_graph,
    split_reference,
)
from mlipjax.system import System

SIZES = {"n_atoms": 32, "n_neighbors": 64, "n_graphs": 3}


@jax.jit
def readings_of(charts, rows, graph):
    potential, params = model()
    return read_graph(potential, params, charts, rows, graph)


def readings(*systems):
    graph = batch_graphs(systems, CUTOFF, dtype=np.float64, **SIZES)
    return jax.device_get(readings_of(monitor().charts, monitor().rows(graph.atomic_numbers), graph)), graph


def test_features_of_frames_are_those_of_the_potential():
    potential, params = model()
    systems = jittered(3, 0.05, 5)
    values, numbers, frame = frame_features(model(), systems, dtype="float64", batch_size=2).atoms()
    graph = batch_graphs(systems, CUTOFF, dtype=np.float64)
    exact = np.asarray(jax.jit(potential.apply)(params, graph).features)[:, potential.feature_slices[-1]]
    np.testing.assert_allclose(values, exact[np.asarray(graph.atom_mask)], rtol=1e-10)
    np.testing.assert_array_equal(numbers, np.concatenate([system.atomic_numbers for system in systems]))
    np.testing.assert_array_equal(frame, np.repeat([0, 1, 2], 10))
    both = frame_features(model(), systems, layers="all", dtype="float64").atoms()[0]
    assert both.shape == (30, 16)
    np.testing.assert_allclose(both[:, 8:], values, rtol=1e-10)


def test_frames_like_the_reference_are_in_control_and_others_are_not():
    inside = read_frames(monitor(), features(200, 0.03, 1))
    outside = read_frames(monitor(), features(50, 0.12, 2))
    # 5 % nominal, 200 frames, limits from 60: two and a half times the level is far out
    assert (inside.alarm.mean(axis=0) < 0.125).all()
    assert (outside.alarm.mean(axis=0) > 0.5).all()
    np.testing.assert_array_equal(outside.alarm, outside.frame > monitor().charts.frame_limits)


def test_indices_of_a_frame_are_made_of_those_of_its_atoms():
    found, fitted = read_frames(monitor(), features()), monitor()
    values, numbers, frame = features().atoms()
    rows = np.asarray(fitted.rows(numbers))
    atoms = atom_indices(fitted.charts, values, rows)
    q, t2 = np.asarray(atoms.q) / fitted.charts.q_limit[rows], np.asarray(atoms.t2) / fitted.charts.t2_limit[rows]
    for k, index in enumerate((q, t2, q + t2)):
        np.testing.assert_allclose(found.frame[:, k], np.bincount(frame, index) / 10, rtol=1e-9)
    np.testing.assert_allclose(found.frame[:, 3], (q + t2).reshape(-1, 10).max(axis=1), rtol=1e-9)
    np.testing.assert_array_equal(found.worst_atom, (q + t2).reshape(-1, 10).argmax(axis=1))
    share = (q + t2).reshape(-1, 10).max(axis=1) / (q + t2).reshape(-1, 10).sum(axis=1)
    np.testing.assert_allclose(found.worst_share, share, rtol=1e-9)
    own = rows.reshape(-1, 10) == 1
    expected = np.where(own, np.asarray(atoms.q).reshape(-1, 10), 0.0).sum(axis=1) / own.sum(axis=1)
    np.testing.assert_allclose(found.element_q[:, 1], expected, rtol=1e-9)


def test_readings_know_neither_padding_nor_order_nor_neighbours_in_the_batch():
    first, second = jittered(2, 0.05, 3)
    alone, _ = readings(first)
    order = np.random.default_rng(4).permutation(10)
    shuffled = dataclasses.replace(first, positions=first.positions[order], atomic_numbers=first.atomic_numbers[order])
    together, graph = readings(second, shuffled)
    np.testing.assert_allclose(together.frame[1], alone.frame[0], rtol=1e-9)
    np.testing.assert_allclose(together.element_t2[1], alone.element_t2[0], rtol=1e-9)
    np.testing.assert_allclose(together.combined[10:20], alone.combined[:10][order], rtol=1e-9)
    assert not together.alarm[2].any()
    assert not together.q[20:].any()
    shares = np.asarray(contributions(together, graph))
    np.testing.assert_allclose([shares[:10].sum(), shares[10:20].sum(), shares[20:].sum()], [1, 1, 0], atol=1e-12)


def test_an_unknown_element_is_an_alarm_inside_and_an_error_outside():
    first, second = jittered(2, 0.03, 3)
    fitted = monitor()
    only = dataclasses.replace(fitted, species=(*fitted.species[:2], 9))
    graph = batch_graphs([first, second], CUTOFF, dtype=np.float64, **SIZES)
    rows = np.array(fitted.rows(graph.atomic_numbers))
    rows[0] = -1
    found = jax.device_get(readings_of(fitted.charts, rows, graph))
    assert np.isnan(found.frame[0]).all()
    assert found.alarm[0].all()
    assert np.isfinite(found.frame[1]).all()
    with pytest.raises(ValueError, match="no reference frame holds O, there are charts for H, C, F"):
        read_frames(only, features())


def test_reading_compiles_once_for_all_charts_and_frames():
    potential, _ = model()
    readings(*jittered(2, 0.03, 8))
    before = len(potential.module.log.sizes)
    compiled = readings_of._cache_size()
    for seed in range(3):
        readings(*jittered(3 - seed, 0.03, seed))
    assert len(potential.module.log.sizes) == before
    assert readings_of._cache_size() == compiled


def test_the_monitor_costs_no_gradient():
    potential, params = model()
    graph = batch_graphs(jittered(1, 0.03, 1), CUTOFF, dtype=np.float64, **SIZES)
    rows = monitor().rows(graph.atomic_numbers)

    def total(positions):
        features = potential.node_energy(params, graph, positions)[1][:, potential.feature_slices[-1]]
        return read(monitor().charts, features, rows, graph).frame.sum()

    assert not np.any(jax.jit(jax.grad(total))(graph.positions))


def test_reference_runs_are_kept_together():
    fit, calibration = split_reference(["a", "b", "c", "d"] * 5)
    assert {i % 4 for i in fit} == {0, 1}
    assert {i % 4 for i in calibration} == {2, 3}
    fit, calibration = split_reference(["only"] * 9)
    assert max(fit) < min(calibration)
    np.testing.assert_array_equal(np.sort(np.concatenate([fit, calibration])), np.arange(9))


def test_limits_come_from_frames_the_charts_have_not_seen():
    fitted = monitor()
    assert fitted.n_fit + fitted.n_calibration == N_FRAMES
    assert fitted.charts.count.sum() == 10 * fitted.n_fit
    for name in FRAME_INDICES:
        found = fitted.frame_calibration[name]
        assert found.n == fitted.n_calibration
        assert found.limit == pytest.approx(float(fitted.charts.frame_limits[FRAME_INDICES.index(name)]))
        assert found.n_used > 30  # independent frames are not thinned to nothing


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(ValueError, match="12 reference frames are too few"):
        fit_monitor(features(12), [0] * 12)
    with pytest.raises(ValueError, match="no structure"):
        frame_features(model(), [])
    lithium = System(np.zeros((1, 3)), np.array([3], np.int32), np.zeros((3, 3)), (False,) * 3)
    with pytest.raises(ValueError, match="does not know Li"):
        frame_features(model(), [lithium])
    late = [*jittered(20, 0.03, 0), *[_with_oxygen(system) for system in jittered(20, 0.03, 1)]]
    early = [dataclasses.replace(system, atomic_numbers=np.ones(10, np.int32)) for system in late[:20]]
    mixed = frame_features(model(), [*early, *late[20:]], dtype="float64")
    with pytest.raises(ValueError, match="only some of the reference runs hold O"):
        fit_monitor(mixed, [0] * 40)


def _with_oxygen(system):
    return dataclasses.replace(system, atomic_numbers=np.array([8] + [1] * 9, np.int32))
