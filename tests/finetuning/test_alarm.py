"""Alarms inside the loop: a planted departure raises one, a calm run none; what follows; and exactness after a kill."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finetuning.loop_case import CONFIG, atoms, case, start

from mlipjax.finetuning import RoundConfig, run_compiled
from mlipjax.finetuning.alarm import AlarmConfig, WatchState, cross_limits, end_round
from mlipjax.finetuning.host import HostLoop
from mlipjax.finetuning.pieces import Stopped
from mlipjax.graph import batch_graphs
from mlipjax.md.freedom import Freedom
from mlipjax.md.observables import temperature
from mlipjax.md.state import rebuild, refresh
from mlipjax.monitoring import fit_charts, graph_features
from mlipjax.oracles import Labeller
from mlipjax.system import System

# one program each: operation by operation they take several times as long to compile
limits_by_folds = jax.jit(cross_limits, static_argnums=4)
charts_of = jax.jit(fit_charts, static_argnums=(3, 4))

BENT = 1
"""Replica whose first molecule starts with a bond of 0.7 times its length."""


def config(on_alarm, margin=3.0):
    return dataclasses.replace(
        CONFIG, train_steps=1, chart_components=2, alarm=AlarmConfig(on_alarm, margin=margin, folds=4)
    )


def reference_charts(setup, params, margin):
    """Charts of many rattled copies of the start: what a monitor fitted beforehand would be."""
    frames = []
    for seed in range(24):
        frame = atoms()
        frame.rattle(0.06, seed=100 + seed)
        frames.append(System.from_ase(frame))
    graph = batch_graphs(frames, setup.potential.cutoff, n_atoms=24 * 6, dtype=np.float64)
    features = graph_features(setup.potential, params, jax.tree.map(jnp.asarray, graph), "last")
    species = setup.potential.species_index(jnp.asarray(atoms().numbers))
    charts = charts_of(features, jnp.tile(species, 24), jnp.ones(24 * 6), 2, 2)
    stacked = features.reshape(24, 6, -1)
    return limits_by_folds(charts, stacked, species, jnp.ones(24, bool), AlarmConfig(margin=margin, folds=4)), stacked


@pytest.fixture(scope="module")
def watched():
    setup, teacher, params, controls = case(config("rollback"))
    charts, _ = reference_charts(setup, params, 3.0)
    return setup, teacher, params, controls, charts


@functools.partial(jax.jit, static_argnums=(0, 1))
def refreshed(potential, spec, params, sim):
    return refresh(potential, spec, params, rebuild(spec, sim))


def begin(watched, *, bent, setup=None):
    own, _, params, controls, charts = watched
    setup = own if setup is None else setup
    state = start(setup, params, controls)
    system = dataclasses.replace(state.systems[0], monitor=charts)
    if bent:
        position = system.sim.dynamics.position
        bond = position[BENT, 1] - position[BENT, 0]
        moved = dataclasses.replace(
            system.sim, dynamics=system.sim.dynamics.set(position=position.at[BENT, 1].add(-0.3 * bond))
        )
        sim = refreshed(setup.potential, setup.systems[0].spec, params, moved)
        system = dataclasses.replace(system, sim=sim, watch=WatchState.start(sim))
    return state.with_system(0, system)


def host(watched, folder, state, n_rounds=1, on_piece=lambda piece: None, setup=None):
    own, teacher, _, controls, _ = watched
    folder.mkdir(exist_ok=True)
    with Labeller(teacher, folder / "labels.db") as labeller:
        loop = HostLoop(own if setup is None else setup, labeller, controls, folder, on_piece)
        return loop.run(state, n_rounds)


@pytest.mark.slow
def test_a_calm_run_raises_no_alarm_and_takes_all_its_frames(watched, tmp_path):
    result = host(watched, tmp_path, begin(watched, bent=False))
    readings = [record for record in result.history if record["stage"] == "sample"]
    assert [record["alarms"] for record in readings] == [[], []]
    values = np.concatenate([np.ravel(record["alarm_index"]) for record in readings])
    assert np.all((values > 0.0) & (values < 1.0))
    assert int(result.state.systems[0].buffer.count) == 4


@pytest.mark.slow
def test_a_planted_departure_is_labelled_at_once_and_rolled_back(watched, tmp_path):
    state = begin(watched, bent=True)
    result = host(watched, tmp_path, state)
    samples = [record for record in result.history if record["stage"] == "sample"]
    # sampling ended with the alarm: one frame of each replica instead of two
    assert [record["alarms"] for record in samples] == [[BENT]]
    assert samples[0]["alarm_index"][BENT][0] > 1.0 > samples[0]["alarm_index"][0][0]
    stages = [record["stage"] for record in result.history]
    assert stages == ["sample", "label", "train", "finish"]
    end, first = result.state.systems[0], state.systems[0]
    assert np.asarray(end.buffer.labelled).tolist()[:2] == [True, True]
    assert int(end.buffer.count) == 2
    # the alarmed frame is the short bond; the replica is back where it was last in control
    np.testing.assert_array_equal(end.sim.dynamics.position[BENT], first.sim.dynamics.position[BENT])
    assert not np.array_equal(end.sim.dynamics.position[BENT], end.buffer.position[1])
    assert not np.array_equal(end.sim.dynamics.position[0], first.sim.dynamics.position[0])
    assert not np.array_equal(end.sim.dynamics.momentum[BENT], first.sim.dynamics.momentum[BENT])
    assert not bool(end.watch.alarmed.any())


@pytest.mark.slow
def test_killed_between_alarm_and_fine_tune_it_ends_with_the_same_bits(watched, tmp_path):
    class Killed(Exception):
        pass

    def kill_after_every_piece(piece):
        if piece.record is not None:
            raise Killed

    whole = host(watched, tmp_path / "whole", begin(watched, bent=True), n_rounds=2).state
    for _ in range(20):
        try:
            found = host(watched, tmp_path / "killed", begin(watched, bent=True), 2, kill_after_every_piece).state
            break
        except Killed:
            continue
    else:
        pytest.fail("the run never finished")
    for a, b in zip(
        *(
            jax.tree.leaves(
                (s.train.params, s.systems[0].buffer, s.systems[0].sim.dynamics.position, s.systems[0].watch.alarmed)
            )
            for s in (found, whole)
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_stop_saves_the_frame_and_says_what_to_do(watched, tmp_path):
    setup = dataclasses.replace(watched[0], config=config("stop"))
    with pytest.raises(
        Stopped, match=f"combined index of replica {BENT} of system 0 is .* times its limit; see stopped.extxyz"
    ):
        host(watched, tmp_path, begin(watched, bent=True, setup=setup), setup=setup)
    assert (tmp_path / "stopped.extxyz").exists()


@pytest.mark.slow
def test_in_the_compiled_loop_the_alarmed_frame_is_taken_once(watched):
    setup, teacher, _, controls, _ = watched
    run = jax.jit(run_compiled(setup, teacher, 1))
    state, info = run(begin(watched, bent=True), controls)
    found = info.systems[0]
    assert found.alarms[0].tolist() == [False, True]
    assert found.alarm_index.shape == (1, 2, 2)
    assert float(found.alarm_index[0, BENT, 0]) > 1.0
    # slots are replica by replica, frame by frame: the held replica's second frame is no new one
    assert np.asarray(state.systems[0].buffer.labelled)[:4].tolist() == [True, True, True, False]
    assert int(found.labels_made[0]) == 3
    assert int(found.labels_failed[0]) == 0
    calm, info = run(begin(watched, bent=False), controls)
    assert not info.systems[0].alarms.any()
    assert bool(calm.systems[0].buffer.labelled[:4].all())


def test_limits_hold_for_what_was_labelled_and_not_for_what_is_far(watched):
    setup, _, params, _, _ = watched
    charts, features = reference_charts(setup, params, 1.0)
    assert np.all(np.isfinite(charts.frame_limits))
    species = setup.potential.species_index(jnp.asarray(atoms().numbers))
    # cross-validated by hand: the largest index is that of some frame judged by the other three quarters
    few = limits_by_folds(charts, features, species, jnp.arange(24) < 3, AlarmConfig(folds=4))
    assert np.all(np.isinf(few.frame_limits))
    wider = limits_by_folds(charts, features, species, jnp.ones(24, bool), AlarmConfig(margin=2.5, folds=4))
    np.testing.assert_allclose(wider.frame_limits, 2.5 * np.asarray(charts.frame_limits))
    fold = np.arange(24) // 6
    rows = np.tile(np.asarray(species), 24)
    worst = 0.0
    for k in range(4):
        own = np.repeat(fold != k, 6)
        fitted = fit_charts(features.reshape(144, -1), jnp.asarray(rows), jnp.asarray(own, float), 2, 2)
        x = np.asarray(features.reshape(144, -1)) - np.asarray(fitted.mean)[rows]
        scores = np.einsum("npf,nf->np", np.asarray(fitted.components)[rows], x)
        q = (x**2).sum(axis=1) - (scores**2).sum(axis=1)
        worst = max(worst, (q / np.asarray(charts.q_limit)[rows]).reshape(24, 6)[fold == k].mean(axis=1).max())
    assert float(charts.frame_limits[0]) == pytest.approx(worst, rel=1e-6)


def test_rolled_back_velocities_are_new_and_thermal(watched):
    state = begin(watched, bent=False).systems[0]
    alarmed = dataclasses.replace(state.watch, alarmed=jnp.array([False, True]))
    _, sim = end_round(AlarmConfig("rollback"), alarmed, state.sim, jax.random.key(5), 600.0)
    np.testing.assert_array_equal(sim.dynamics.momentum[0], state.sim.dynamics.momentum[0])
    rolled = jax.jit(lambda key: end_round(AlarmConfig("rollback"), alarmed, state.sim, key, 600.0)[1].dynamics)
    found = [rolled(jax.random.key(seed)) for seed in range(40)]
    kelvin = [float(temperature(d.momentum[1], d.mass[1])) for d in found]
    assert np.mean(kelvin) == pytest.approx(600.0, rel=0.15)  # 15 degrees of freedom, 40 draws: 6 %


def test_rolled_back_replicas_leave_fixed_atoms_at_rest(watched):
    state = begin(watched, bent=False).systems[0]
    held = Freedom.of(np.arange(6) != 2)
    sim = dataclasses.replace(state.sim, dynamics=state.sim.dynamics.set(freedom=held))
    alarmed = dataclasses.replace(WatchState.start(sim), alarmed=jnp.array([True, True]))
    _, rolled = end_round(AlarmConfig("rollback"), alarmed, sim, jax.random.key(5), 600.0)
    still = np.all(np.asarray(rolled.dynamics.momentum) == 0.0, axis=2)
    assert still.tolist() == [[False, False, True, False, False, False]] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"index": "nothing"}, "found index 'nothing'"),
        ({"on_alarm": "panic"}, "found on_alarm 'panic'"),
        ({"margin": 0.5}, "margin must be 1 or more"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AlarmConfig(**settings)


def test_alarms_without_charts_are_refused():
    with pytest.raises(ValueError, match="alarms need charts"):
        RoundConfig(alarm=AlarmConfig())
