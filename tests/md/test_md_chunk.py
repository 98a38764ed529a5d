"""A chunk as a function: replicas, compilation, gradients, flags."""

import dataclasses
import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from pair_potential import argon, argon_spec, cluster, pair_potential

import mlipjax.md as md
from mlipjax.units import BOLTZMANN

WIDE = md.Limits(temperature_K=1e4, contact_ratio=0.5)
LANGEVIN = md.Langevin(5.0, 60.0, 20.0)
N_STEPS = 8


@functools.cache
def spec():
    return md.VerletSpec.for_systems([cluster()], 6.5, skin=1.0)


@functools.cache
def compiled(dtype="float64"):
    """One program per number of replicas serves all tests: eight steps, two frames."""
    return jax.jit(md.chunk(pair_potential(dtype)[0], spec(), N_STEPS, record_every=N_STEPS // 2))


def start(ensemble=LANGEVIN, n_replicas=1, dtype="float64"):
    return md.init(pair_potential(dtype), spec(), md.Start(cluster()), ensemble, jax.random.key(3), n_replicas)


def test_one_replica_alone_moves_as_it_does_among_others():
    together = start(n_replicas=2)
    one = jax.tree.map(lambda leaf: leaf[1:], (together.dynamics, together.table))
    alone = dataclasses.replace(together, dynamics=one[0], table=one[1])
    assert np.array_equal(start().dynamics.momentum[0], together.dynamics.momentum[0])
    assert not np.allclose(together.dynamics.momentum[0], together.dynamics.momentum[1])

    _, params = pair_potential()
    after, info = compiled()(params, together, LANGEVIN, WIDE)
    after_alone, info_alone = compiled()(params, alone, LANGEVIN, WIDE)
    for name in ("position", "momentum", "force", "energy"):
        batched, single = getattr(after.dynamics, name)[1], getattr(after_alone.dynamics, name)[0]
        np.testing.assert_allclose(batched, single, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(info.trace.temperature[1], info_alone.trace.temperature[0], rtol=1e-10)


def test_new_values_compile_nothing():
    _, params = pair_potential()
    run = jax.jit(compiled())
    state, _ = run(params, start(), LANGEVIN, WIDE)
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    hotter = LANGEVIN.replace(temperature_K=80.0, timestep_fs=4.0, friction_per_ps=3.0)
    run(other, md.rebuild(spec(), state), hotter, WIDE.replace(temperature_K=500.0))
    assert run._cache_size() == 1


def test_trace_and_frames_tell_of_the_same_steps():
    _, params = pair_potential()
    after, info = compiled()(params, start(n_replicas=2), LANGEVIN, WIDE)
    assert info.trace.temperature.shape == (2, 8)
    assert info.frames.position.shape == (2, 2, 5, 3)
    np.testing.assert_array_equal(info.frames.energy, info.trace.potential_energy[:, 3::4])
    np.testing.assert_array_equal(info.frames.position[:, -1], after.dynamics.position)
    mass = np.asarray(after.dynamics.mass)
    kinetic = 0.5 * np.sum(np.asarray(info.frames.momentum) ** 2 / mass[:, None], axis=(2, 3))
    kelvin = 2.0 * kinetic / (md.degrees_of_freedom(5) * BOLTZMANN)
    np.testing.assert_allclose(info.trace.temperature[:, 3::4], kelvin, rtol=1e-12)
    position = np.asarray(after.dynamics.position)
    distance = np.linalg.norm(position[:, :, None] - position[:, None], axis=-1) + 99.0 * np.eye(5)
    np.testing.assert_allclose(info.trace.min_distance[:, -1], distance.min(axis=(1, 2)), rtol=1e-12)
    moved = np.linalg.norm(position - cluster().positions, axis=-1).max(axis=1)
    np.testing.assert_allclose(info.trace.max_displacement[:, -1], moved, rtol=1e-12)
    assert np.all(np.asarray(info.trace.pressure) == 0.0)
    assert int(after.step) == 8
    assert np.all(info.n_done == 8)


def test_float32_stays_float32():
    ensemble = md.NoseHoover(5.0, 60.0, 100.0)
    _, params = pair_potential("float32")
    after, info = compiled("float32")(params, start(ensemble, dtype="float32"), ensemble, WIDE)
    leaves = jax.tree.leaves((after.dynamics, info.trace))
    assert {leaf.dtype.name for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.floating)} == {"float32"}


def test_missing_edges_are_reported():
    potential, params = pair_potential()
    state = start()
    few_slots = dataclasses.replace(spec(), n_neighbors=3)
    _, info = jax.jit(md.chunk(potential, few_slots, 1))(params, state, LANGEVIN, WIDE)
    assert info.overflow.all()
    assert np.all(info.n_neighbors == 4)
    few_candidates = dataclasses.replace(spec(), n_candidates=3)
    assert md.rebuild(few_candidates, state).table.overflow.all()
    _, info = compiled()(params, state, LANGEVIN.replace(timestep_fs=400.0), WIDE)
    assert info.moved_too_far.all()
    assert not info.overflow.any()


def test_a_replica_that_breaks_the_limits_is_held():
    _, params = pair_potential()
    state = start(n_replicas=2)
    kelvin = compiled()(params, state, LANGEVIN, WIDE)[1].trace.temperature
    hot = 0 if kelvin[0, 3] > kelvin[1].max() else 1
    limits = WIDE.replace(temperature_K=float(kelvin[hot].max()) * 0.999)
    after, info = compiled()(params, state, LANGEVIN, limits)
    done, trace = int(info.n_done[hot]), np.asarray(info.trace.temperature[hot])
    assert not info.good[hot]
    assert done == 1 + int(np.argmax(trace > limits.temperature_K))
    assert np.all(trace[done - 1 :] == trace[done - 1])
    # once held, a replica does not move in the next chunk either
    again, info = compiled()(params, after, LANGEVIN, limits)
    assert int(info.n_done[hot]) == 0
    np.testing.assert_array_equal(again.dynamics.position[hot], after.dynamics.position[hot])


def end_state(ensemble, weights, sizes, state, params, logs):
    """A number that depends on the whole end state; ``logs`` are logarithms of factors on the ensemble's numbers."""
    numbers = jax.tree.map(lambda number, log: number * jnp.exp(log), ensemble, logs)
    potential, _ = pair_potential()
    after, info = md.chunk(potential, sizes, 4)(params, state, numbers, WIDE)
    d = after.dynamics
    scalars = jnp.sum(d.energy) + 1e3 * jnp.sum(info.trace.pressure) + 1e-2 * jnp.sum(info.trace.temperature)
    return jnp.sum(weights * (d.position + d.momentum)) + 1e2 * scalars


@pytest.mark.parametrize(
    "ensemble",
    [
        pytest.param(LANGEVIN, id="langevin"),
        pytest.param(md.CSVR(5.0, 60.0, 50.0), id="csvr", marks=pytest.mark.slow),
        pytest.param(md.IsotropicNPT(5.0, 60.0, 50.0, 100.0, 400.0), id="npt", marks=pytest.mark.slow),
    ],
)
def test_gradient_of_a_chunk_agrees_with_central_differences(ensemble):
    params = pair_potential().params
    sizes, system = (argon_spec(), argon()) if ensemble.moves_cell else (spec(), cluster())
    state = md.init(pair_potential(), sizes, md.Start(system), ensemble, jax.random.key(3))
    weights = jax.random.normal(jax.random.key(4), state.dynamics.position.shape)
    loss = jax.jit(functools.partial(end_state, ensemble, weights, sizes, state))
    point = (params, jax.tree.map(lambda _: jnp.zeros(()), ensemble))
    exact = jax.grad(loss, argnums=(0, 1))(*point)

    flat, build = jax.flatten_util.ravel_pytree(point)
    step = 1e-5
    slopes = []
    for direction in np.eye(len(flat)):
        up, down = (loss(*build(flat + sign * step * direction)) for sign in (1.0, -1.0))
        slopes.append(float(up - down) / (2.0 * step))
    exact = np.asarray(jax.flatten_util.ravel_pytree(exact)[0])
    assert np.abs(exact).min() > 0.0
    np.testing.assert_allclose(exact, slopes, rtol=2e-4, atol=1e-6 * np.abs(exact).max())


def test_wrong_numbers_of_steps_are_refused():
    potential, _ = pair_potential()
    with pytest.raises(ValueError, match="positive multiple"):
        md.chunk(potential, spec(), 10, record_every=4)
    with pytest.raises(ValueError, match="positive multiple"):
        md.chunk(potential, spec(), 0)
