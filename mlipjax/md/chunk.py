"""A chunk: a fixed number of steps in one compiled program, between two searches for neighbours.

Candidates are searched between chunks (``rebuild``) and stay fixed within: replicas move under ``vmap``, where a
``lax.cond`` would become a select and search in every step. Whether the candidates lasted is reported in ``ChunkInfo``;
a driver on the host repeats a chunk that went wrong from its start state, with larger tables or fewer steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.graph import GraphBatch, VerletSpec
from mlipjax.md.dynamics import Dynamics
from mlipjax.md.ensembles import Ensemble
from mlipjax.md.evaluation import Geometry, evaluate, observe
from mlipjax.md.gate import Limits, keeps_limits
from mlipjax.md.observables import pressure, temperature
from mlipjax.md.state import SimState, cast
from mlipjax.potential import Potential
from mlipjax.typing import Array, Bool, Float, Int, Params


@struct.dataclass
class Trace:
    """Observables after every step; (R, S) for R replicas and S steps.

    Attributes:
        temperature: K.
        potential_energy: interaction energy in eV.
        pressure: eV/Å^3, with the kinetic part; 0 without a volume.
        min_distance: Å.
        max_displacement: Å, since the start of the chunk.
    """

    temperature: Float[Array, "R S"]
    potential_energy: Float[Array, "R S"]
    pressure: Float[Array, "R S"]
    min_distance: Float[Array, "R S"]
    max_displacement: Float[Array, "R S"]


@struct.dataclass
class Frames:
    """Snapshots; F of them for each of R replicas.

    Attributes:
        position: (R, F, N, 3) Å, as in ``Dynamics``: continuous within a chunk.
        momentum: (R, F, N, 3) sqrt(amu eV).
        cell: (R, F, 3, 3) Å, rows.
        force: (R, F, N, 3) eV/Å.
        energy: (R, F) interaction energy in eV.
        stress: (R, F, 3, 3) eV/Å^3, tension positive.
    """

    position: Float[Array, "R F N 3"]
    momentum: Float[Array, "R F N 3"]
    cell: Float[Array, "R F 3 3"]
    force: Float[Array, "R F N 3"]
    energy: Float[Array, "R F"]
    stress: Float[Array, "R F 3 3"]


@struct.dataclass
class ChunkInfo:
    """Record of a chunk.

    Attributes:
        trace: observables after every step.
        frames: snapshots after every ``record_every`` steps.
        good: (R,) false if a replica broke the limits. It then stays where it is: its end state is the offending one.
        n_done: (R,) steps a replica advanced; fewer than the chunk's if it broke the limits, 0 if it started broken.
        n_neighbors: (R,) largest number of neighbours of an atom.
        overflow: (R,) true if candidates or edges did not fit their tables, at the start or at some step.
        moved_too_far: (R,) true if atoms moved so far at some step that edges may be missing.
    """

    trace: Trace
    frames: Frames
    good: Bool[Array, " R"]
    n_done: Int[Array, " R"]
    n_neighbors: Int[Array, " R"]
    overflow: Bool[Array, " R"]
    moved_too_far: Bool[Array, " R"]

    @property
    def valid(self) -> Bool[Array, "*rounds R"]:
        """Tell whether a replica saw all its edges at every step."""
        return ~(self.overflow | self.moved_too_far)


ChunkFunction = Callable[[Params, SimState, Any, Limits], tuple[SimState, ChunkInfo]]


def chunk(potential: Potential, spec: VerletSpec, n_steps: int, record_every: int | None = None) -> ChunkFunction:
    """Return a pure function that runs ``n_steps`` steps: ``(params, state, ensemble, limits) -> (state, info)``.

    The function can be jitted, differentiated (with respect to parameters, positions and every number of the
    ensemble) and mapped over. Parameters, ensemble and limits are arguments, so new values compile nothing. In
    reverse mode every step is computed again, so that only the phase space of the steps is stored.

    Args:
        potential: what to simulate with.
        spec: static sizes, those the state's table was built with.
        n_steps: steps of the chunk.
        record_every: steps between frames, a divisor of ``n_steps``; ``None`` for one frame, at the end.

    Raises:
        ValueError: if the numbers of steps are not positive or do not divide.
    """
    record_every = n_steps if record_every is None else record_every
    if n_steps < 1 or record_every < 1 or n_steps % record_every:
        raise ValueError(f"found {n_steps=} and {record_every=}; the first must be a positive multiple of the second.")

    def run(params: Params, state: SimState, ensemble: Ensemble, limits: Limits) -> tuple[SimState, ChunkInfo]:
        dtype = state.dynamics.position.dtype
        ensemble, limits = cast(ensemble, dtype), cast(limits, dtype)

        look = partial(jax.vmap(partial(observe, spec, state.atomic_numbers, state.head)), state.table)
        measure = partial(evaluate, potential, params, stress=spec.has_volume)
        step = jax.checkpoint(partial(_step, ensemble, limits, look, measure), prevent_cse=False)
        _, start = look(state.dynamics)
        good = jax.vmap(partial(keeps_limits, limits))(state.dynamics, start.contact_ratio)
        dynamics, info = _scan(step, (state.dynamics, good), start, n_steps // record_every, record_every)
        return replace(state, dynamics=dynamics, step=state.step + n_steps), info

    return run


Carry = tuple[Dynamics, Bool[Array, " R"]]


def _step(
    ensemble: Ensemble,
    limits: Limits,
    look: Callable[[Dynamics], tuple[GraphBatch, Geometry]],
    measure: Callable[[GraphBatch, Dynamics], Dynamics],
    carry: Carry,
    _: None,
) -> tuple[Carry, tuple[Trace, Geometry, Bool[Array, " R"]]]:
    """One step of all replicas; a replica that broke the limits does not move."""
    dynamics, good = carry
    dynamics = _where(good, jax.vmap(ensemble.before)(dynamics), dynamics)
    graphs, geometry = look(dynamics)
    dynamics = measure(graphs, dynamics)
    dynamics = _where(good, jax.vmap(ensemble.after)(dynamics), dynamics)
    trace = Trace(
        temperature=jax.vmap(partial(temperature, degrees=dynamics.degrees))(dynamics.momentum, dynamics.mass),
        potential_energy=dynamics.energy,
        pressure=jax.vmap(pressure)(dynamics.momentum, dynamics.mass, dynamics.stress, dynamics.cell),
        min_distance=geometry.min_distance,
        max_displacement=geometry.displacement,
    )
    still_good = good & jax.vmap(partial(keeps_limits, limits))(dynamics, geometry.contact_ratio)
    return (dynamics, still_good), (trace, geometry, good)


def _scan(
    step: Callable[..., Any], carry: Carry, start: Geometry, n_frames: int, record_every: int
) -> tuple[Dynamics, ChunkInfo]:
    """Scan over frames, and within a frame over steps; the start counts for the flags, not for the trace."""

    def frame(carry: Carry, _: None) -> tuple[Carry, tuple[Frames, Any]]:
        carry, steps = jax.lax.scan(step, carry, length=record_every)
        d = carry[0]
        return carry, (Frames(d.position, d.momentum, d.cell, d.force, d.energy, d.stress), steps)

    (dynamics, good), (frames, steps) = jax.lax.scan(frame, carry, length=n_frames)
    steps = jax.tree.map(lambda x: x.reshape(n_frames * record_every, *x.shape[2:]), steps)
    # scans put time first, users find the replica first
    frames, (trace, geometry, advanced) = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), (frames, steps))
    return dynamics, ChunkInfo(
        trace=trace,
        frames=frames,
        good=good,
        n_done=jnp.sum(advanced, axis=1),
        n_neighbors=jnp.maximum(start.n_neighbors, jnp.max(geometry.n_neighbors, axis=1)),
        overflow=start.overflow | jnp.any(geometry.overflow, axis=1),
        moved_too_far=start.moved_too_far | jnp.any(geometry.moved_too_far, axis=1),
    )


def _where(condition: Bool[Array, " R"], new: Dynamics, old: Dynamics) -> Dynamics:
    return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(condition, a, b), new, old)
