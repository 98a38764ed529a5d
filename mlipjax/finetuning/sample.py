"""From one sampled frame to the next: chunks of MD, watched by charts."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from mlipjax.devices import SHARE, SHARE_SECOND, WHOLE, over_devices
from mlipjax.finetuning.alarm import Reading, WatchState, release, watch_chunk
from mlipjax.finetuning.setup import Setup, SystemControls
from mlipjax.finetuning.state import SystemState
from mlipjax.md.chunk import ChunkInfo, chunk
from mlipjax.md.state import SimState, rebuild
from mlipjax.monitoring import MonitorState
from mlipjax.potential import Model
from mlipjax.typing import Array, Bool, Int, Params


class SampleInfo(NamedTuple):
    """Record of the way to the next frame of every replica.

    Attributes:
        md: with a leading axis for the chunks.
        fresh: (R,) false for a replica that was held at an alarmed frame taken before: its frame is no new one.
        reading: of the charts, with a leading axis for the chunks; empty if MD is not watched.
    """

    md: ChunkInfo
    fresh: Bool[Array, " R"]
    reading: Reading


def sample_frame(
    setup: Setup,
    params: Params,
    state: SystemState,
    controls: SystemControls,
    round: Int[Array, ""],
    *,
    mesh: Mesh | None = None,
) -> tuple[SystemState, SampleInfo]:
    """Run MD to the next frame of every replica of a system and put the frames into its buffer.

    Where frames are chosen to be labelled, they become candidates instead. A replica that the charts find out of
    control is held where it is, and that is its frame.

    Args:
        setup: of this system alone.
        params: of the potential that moves the replicas.
        state: of the system.
        controls: its ensemble and limits.
        round: now.
        mesh: devices that the replicas are divided over.
    """
    (own,), config = setup.systems, setup.config
    advance = chunk(potential := setup.moving(own), own.spec, own.steps_per_chunk)

    def move(params: Params, monitor: MonitorState | None, controls: SystemControls, *replicas: Any) -> Any:
        def body(carry: tuple[SimState, WatchState | None], _: None) -> tuple[Any, tuple[ChunkInfo, Reading]]:
            before, watch = carry
            before = rebuild(own.spec, before)
            after, info = advance(params, before, controls.ensemble, controls.limits)
            if config.alarm is None or watch is None or monitor is None:
                return (after, watch), (info, _no_reading(after))
            model = Model(potential, params)
            after, info, watch, reading = watch_chunk(model, monitor, config.alarm, before, after, info, watch)
            return (after, watch), (info, reading)

        return jax.lax.scan(body, replicas, length=own.chunks_per_frame)

    held = jnp.zeros((state.sim.n_replicas,), bool) if state.watch is None else state.watch.held
    replicas = SimState.specs(), SHARE
    move = over_devices(move, mesh, (WHOLE, WHOLE, WHOLE, *replicas), (replicas, SHARE_SECOND))
    (sim, watch), (info, reading) = move(params, state.monitor, controls, state.sim, state.watch)
    if config.alarm is not None and watch is not None:
        watch = release(config.alarm, watch)
    state, info = dataclasses.replace(state, sim=sim, watch=watch), SampleInfo(info, ~held, reading)
    if state.candidates is not None:
        candidates = state.candidates.append(sim.dynamics.position, sim.dynamics.cell)
        return dataclasses.replace(state, candidates=candidates), info
    buffer = state.buffer.append(sim.dynamics.position, sim.dynamics.cell, round)
    return dataclasses.replace(state, buffer=buffer), info


def _no_reading(sim: SimState) -> Reading:
    """Readings of no index: the same fields, without numbers."""
    nothing = jnp.zeros((sim.n_replicas, 0), sim.dynamics.position.dtype)
    return Reading(nothing, jnp.zeros((sim.n_replicas,), bool))
