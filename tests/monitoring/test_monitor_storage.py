"""Saving and loading monitors, and watching MD with them."""

import dataclasses
import functools
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from monitor_case import features, jittered, model, monitor
from tiny_potential import CUTOFF

from mlipjax import md
from mlipjax.graph import VerletSpec, build_table
from mlipjax.monitoring import (
    MonitorAlarm,
    Watch,
    frame_features,
    load_monitor,
    params_fingerprint,
    read_frames,
    save_monitor,
)


def test_loading_gives_back_the_same_bits(tmp_path):
    fitted = dataclasses.replace(monitor(), model=params_fingerprint(model()[1]))
    save_monitor(tmp_path / "m.npz", fitted)
    loaded = load_monitor(tmp_path / "m.npz", model()[1])
    for one, other in zip(jax.tree.leaves(fitted.charts), jax.tree.leaves(loaded.charts), strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        np.testing.assert_array_equal(one, other)
    assert dataclasses.replace(loaded, charts=None) == dataclasses.replace(fitted, charts=None)
    np.testing.assert_array_equal(read_frames(loaded, features()).frame, read_frames(fitted, features()).frame)
    with np.load(tmp_path / "m.npz", allow_pickle=False) as file:
        assert json.loads(str(file["header"]))["species"] == [1, 6, 8]


def test_other_files_and_other_models_are_refused(tmp_path):
    save_monitor(tmp_path / "m.npz", monitor())
    other = jax.tree.map(lambda leaf: leaf + 1.0, model()[1])
    with pytest.raises(ValueError, match="features of another model"):
        load_monitor(tmp_path / "m.npz", other)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_monitor(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    (tmp_path / "text.npz").write_text("nothing")
    for name in ("other.npz", "text.npz"):
        with pytest.raises(ValueError, match="not a monitor saved by mlipjax"):
            load_monitor(tmp_path / name)
    with pytest.raises(ValueError, match=r"saved as \.npz"):
        save_monitor(tmp_path / "m.json", monitor())


def test_the_fingerprint_does_not_depend_on_the_precision():
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), model()[1])
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
    assert params_fingerprint(params) == params_fingerprint(wide)
    assert params_fingerprint(params) != params_fingerprint(jax.tree.map(lambda leaf: leaf * 2, params))


def simulate(watch, temperature=30.0, n_steps=20):
    ensemble = md.make_ensemble("nvt", timestep_fs=0.5, temperature_K=temperature)
    limits = md.Limits(temperature_K=1e9, contact_ratio=0.0)
    return md.run(
        model(),
        md.Start(jittered(1, 0.03, 0)[0]),
        ensemble,
        n_steps,
        key=jax.random.key(0),
        n_replicas=2,
        chunk_steps=5,
        limits=limits,
        on_chunk=watch,
    )


def state_of(systems, step):
    """State of MD as a watch looks at it, for replicas of one structure."""
    spec = VerletSpec.for_systems(systems[:1], CUTOFF, 1.0)
    stacked = {name: jnp.stack([jnp.asarray(getattr(s, name)) for s in systems]) for name in ("positions", "cell")}
    table = jax.jit(jax.vmap(functools.partial(build_table, spec)))(stacked["positions"], stacked["cell"])
    dynamics = types.SimpleNamespace(position=stacked["positions"], cell=stacked["cell"])
    numbers = jnp.asarray(systems[0].atomic_numbers)
    return types.SimpleNamespace(
        table=table, dynamics=dynamics, atomic_numbers=numbers, head=jnp.zeros((), int), step=step
    )


def test_watching_reads_what_reading_frames_reads():
    watch, systems = Watch(monitor(), model()), jittered(2, 0.06, 4)
    watch(state_of(systems, 7))
    expected = read_frames(monitor(), frame_features(model(), systems, dtype="float64"))
    watch(state_of(systems, 56))  # too soon
    assert watch.steps == [7]
    np.testing.assert_allclose(watch.frame[0], expected.frame, rtol=1e-8)
    np.testing.assert_array_equal(watch.alarm[0], expected.alarm)
    strange = state_of(systems, 8)
    strange.atomic_numbers = strange.atomic_numbers.at[0].set(9)
    with pytest.raises(ValueError, match="no reference frame holds F"):
        Watch(monitor(), model())(strange)


@pytest.mark.slow
def test_watching_md_reads_what_reading_frames_reads():
    watch = Watch(monitor(), model(), every=1)
    result = simulate(watch)
    assert watch.steps == [5, 10, 15, 20]
    start = jittered(1, 0.03, 0)[0]
    positions = np.asarray(result.state.dynamics.position)
    last = [dataclasses.replace(start, positions=position) for position in positions]
    expected = read_frames(monitor(), frame_features(model(), last, dtype="float64"))
    np.testing.assert_allclose(watch.frame[-1], expected.frame, rtol=1e-8)
    np.testing.assert_array_equal(watch.alarm[-1], expected.alarm)


def test_lasting_alarms_stop_a_run():
    limits = np.full(4, np.inf)
    calm = dataclasses.replace(monitor(), charts=monitor().charts.replace(frame_limits=limits))
    never, state = Watch(calm, model(), stop_after=1), state_of(jittered(2, 0.06, 4), 10)
    never(state)
    limits[3] = 0.0
    strict = dataclasses.replace(monitor(), charts=monitor().charts.replace(frame_limits=limits))
    watch = Watch(strict, model(), index="worst", stop_after=2, every=1)
    watch(state)
    state.step += 10
    with pytest.raises(MonitorAlarm, match="replica 0 has been out of control for 2 readings at step 20"):
        watch(state)
    with pytest.raises(ValueError, match="found index 'best'"):
        Watch(strict, model(), index="best")


@pytest.mark.slow
def test_lasting_alarms_stop_md():
    strict = dataclasses.replace(monitor(), charts=monitor().charts.replace(frame_limits=np.zeros(4)))
    watch = Watch(strict, model(), index="worst", stop_after=2, every=1)
    with pytest.raises(MonitorAlarm, match="out of control for 2 readings at step 10") as caught:
        simulate(watch)
    assert caught.value.step == 10


SIGNED = ("mean", "components")


def damaged_arrays(path):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(str(arrays["header"]))
    for change in (
        {"species": []},
        {"species": [999] * len(header["species"])},
        {"level": 2.0},
        {"level": "high"},
        {"layers": "none"},
        {"frame_calibration": {}},
        {"frame_calibration": 3},
        {"n_fit": None},
        {"surprise": 1},
    ):
        yield str(change), arrays | {"header": np.array(json.dumps(header | change))}
    for name in ("mean", "components", "eigenvalues", "count", "residual", "q_limit", "frame_limits"):
        yield f"{name} cut", arrays | {name: arrays[name][:-1]}
        yield f"{name} NaN", arrays | {name: np.full_like(arrays[name], np.nan)}
        yield f"{name} of whole numbers", arrays | {name: arrays[name].astype(int)}
        yield (
            f"{name} below zero" if name not in SIGNED else f"{name} huge",
            arrays | {name: np.full_like(arrays[name], -1e38 if name in SIGNED else -1.0)},
        )
        yield f"no {name}", {key: value for key, value in arrays.items() if key != name}
    yield "deep header", arrays | {"header": np.array("[" * 100_000)}
    yield "header is a list", arrays | {"header": np.array("[1]")}
    yield "pickled header", arrays | {"header": np.array([print], dtype=object)}


def test_damaged_monitors_are_refused_in_one_line(tmp_path):
    save_monitor(tmp_path / "m.npz", monitor())
    for name, arrays in damaged_arrays(tmp_path / "m.npz"):
        print(name)  # shown if it fails
        np.savez(tmp_path / "d.npz", **arrays)
        with pytest.raises(ValueError, match=r"d\.npz: not a monitor saved by mlipjax, or damaged \(") as error:
            load_monitor(tmp_path / "d.npz")
        assert "\n" not in str(error.value)
