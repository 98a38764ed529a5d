"""One chunk that counts: repeated from its start state until every step saw all its edges."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from mlipjax.devices import SHARE, WHOLE, bring_back, get, over_devices, put
from mlipjax.graph import VerletSpec
from mlipjax.md.chunk import ChunkInfo, chunk
from mlipjax.md.job import Job
from mlipjax.md.restart import Checkpoint
from mlipjax.md.schedule import next_piece, shorten_chunk
from mlipjax.md.state import SimState, rebuild, rebuild_at, refresh
from mlipjax.potential import Potential


@partial(jax.jit, static_argnums=(0, 1, 2, 3), static_argnames="mesh")
def run_chunk(
    potential: Potential,
    spec: VerletSpec,
    n_steps: int,
    record_every: int,
    *arguments: Any,
    mesh: Mesh | None = None,
) -> Any:
    """Return ``chunk(potential, spec, n_steps, record_every)(*arguments)``, compiled once for equal static arguments.

    Args:
        potential, spec, n_steps, record_every: of ``chunk``.
        *arguments: parameters, state, ensemble and limits.
        mesh: devices that the replicas are divided over.
    """
    function, state = chunk(potential, spec, n_steps, record_every), SimState.specs()
    return over_devices(function, mesh, (WHOLE, state, WHOLE, WHOLE), (state, SHARE))(*arguments)


_refreshed = jax.jit(refresh, static_argnums=(0, 1))


def advance(job: Job, now: Checkpoint) -> tuple[Checkpoint, ChunkInfo, int]:
    """Run the next piece of a simulation.

    Tables that overflowed grow, a chunk in which atoms moved too far becomes shorter; the piece then starts again
    from the same state.

    Returns:
        Where the run that stood at ``now`` stands then, what happened (on the host), and how often the piece was
        repeated. A replica that moves too far in a single step is marked as not good.
    """
    potential, params, repeats = job.model.potential, job.params, 0
    while True:
        if now.steps_since_search >= now.chunk_steps:
            now = dataclasses.replace(now, state=rebuild(now.spec, now.state, job.mesh), steps_since_search=0)
        step = int(now.state.step)
        piece, record_every = next_piece(step, job.n_steps, now.chunk_steps, now.steps_since_search, job.frame_every)
        begun = put(now.state, job.mesh, SimState.specs())
        arguments = (params, begun, job.ensemble, job.limits)
        state, info = run_chunk(potential, now.spec, piece, record_every, *arguments, mesh=job.mesh)
        state, info = bring_back(state, job.mesh), get(info)
        if np.any(info.overflow):
            now = _with_larger_tables(job, now, info)
            if step == 0:
                # the first forces were computed with tables that may have lacked edges
                begun = put(now.state, job.mesh, SimState.specs())
                again = bring_back(_refreshed(potential, now.spec, params, begun), job.mesh)
                now = dataclasses.replace(now, state=again)
        elif np.any(info.moved_too_far) and now.chunk_steps > 1:
            shorter = shorten_chunk(now.chunk_steps, job.frame_every)
            now = dataclasses.replace(now, chunk_steps=shorter, steps_since_search=shorter)
        else:
            info = dataclasses.replace(info, good=info.good & ~info.moved_too_far)
            statistics = now.statistics.add(info, state.dynamics.degrees)
            since = now.steps_since_search + piece
            done = dataclasses.replace(now, state=state, steps_since_search=since, statistics=statistics)
            return done, info, repeats
        repeats += 1


def _with_larger_tables(job: Job, now: Checkpoint, info: ChunkInfo) -> Checkpoint:
    """Sizes that hold all replicas and the neighbours counted in the chunk, and candidates found anew with them."""
    table, like = now.state.table, job.start.system
    positions, cells = np.asarray(table.reference_positions), np.asarray(table.reference_cell)
    systems = [
        dataclasses.replace(like, positions=position, cell=cell)
        for position, cell in zip(positions, cells, strict=True)
    ]
    spec = now.spec.grown(systems, int(np.max(info.n_neighbors)))
    state = rebuild_at(spec, now.state, table.reference_positions, table.reference_cell, job.mesh)
    return dataclasses.replace(now, spec=spec, state=state)
