"""Charts inside the loop: read after every chunk of MD, and what an alarm does.

The charts are those of the labelled frames under the newest parameters. Their limits are cross-validated: the labelled
frames are cut into blocks of time, every block is judged by charts of the others, and the limit is the largest index
found times a margin. With n labelled frames that is the best there is (no limit of n frames can promise fewer than one
false alarm in n + 1); it is a guard, not a calibrated test. In the first round there are no labelled frames yet, so
that nothing raises an alarm.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.graph import graph_from_table
from mlipjax.md.chunk import ChunkInfo
from mlipjax.md.dynamics import Dynamics, maxwell_boltzmann
from mlipjax.md.state import SimState
from mlipjax.monitoring import FRAME_INDICES, MonitorState, atom_indices, fit_charts, read_graph
from mlipjax.potential import Model
from mlipjax.typing import Array, Bool, Float, Int, Key

OnAlarm = Literal["ignore", "stop", "label", "rollback"]

_MIN_FRAMES = 4
"""Labelled frames below which nothing can be cross-validated: no limits, no alarms."""


@dataclasses.dataclass(frozen=True)
class AlarmConfig:
    """Conditions under which charts interrupt MD, and the reaction.

    Attributes:
        on_alarm: "ignore" counts alarms; "stop" ends the run with the frame saved; "label" holds the replica at the
            alarmed frame, which is labelled and trained on at once, and goes on from there; "rollback" does the same
            and then returns the replica to the last state in control, with fresh velocities.
        index: of a frame, the one that decides (``monitor.FRAME_INDICES``).
        margin: the limit is so many times the largest index of a labelled frame judged by the others.
        folds: blocks of time into which the labelled frames are cut.
    """

    on_alarm: OnAlarm = "label"
    index: str = "combined"
    margin: float = 1.5
    folds: int = 5

    def __post_init__(self) -> None:
        if self.index not in FRAME_INDICES:
            raise ValueError(f"found index {self.index!r}; choose one of {', '.join(FRAME_INDICES)}.")
        if self.on_alarm not in ("ignore", "stop", "label", "rollback"):
            raise ValueError(f"found on_alarm {self.on_alarm!r}; choose ignore, stop, label or rollback.")
        if not self.margin >= 1.0 or self.folds < 2:
            raise ValueError(f"margin must be 1 or more and folds 2 or more, found {self.margin} and {self.folds}.")

    @property
    def interrupts(self) -> bool:
        """Tell whether an alarm ends the sampling of its round, so that its frame is labelled next."""
        return self.on_alarm in ("label", "rollback")


@struct.dataclass
class WatchState:
    """State of the alarms of R replicas.

    Attributes:
        calm: each replica when it was last in control.
        alarmed: (R,) whether it raised an alarm in this round (with "stop": ever).
        held: (R,) whether it stands still, at its alarmed frame.
    """

    calm: Dynamics
    alarmed: Bool[Array, " R"]
    held: Bool[Array, " R"]

    @classmethod
    def start(cls, sim: SimState) -> WatchState:
        """All replicas in control."""
        none = jnp.zeros((sim.n_replicas,), bool)
        return cls(calm=sim.dynamics, alarmed=none, held=none)


class Reading(NamedTuple):
    """Reading of the charts after a chunk.

    Attributes:
        index: (R, 1) the deciding index over its limit; 0 without limits, and for a replica that is held; (R, 0) if MD
            is not watched.
        alarm: (R,) whether it exceeds 1.
    """

    index: Float[Array, "R W"]
    alarm: Bool[Array, " R"]


def watch_chunk(
    model: Model,
    charts: MonitorState,
    config: AlarmConfig,
    before: SimState,
    after: SimState,
    info: ChunkInfo,
    watch: WatchState,
) -> tuple[SimState, ChunkInfo, WatchState, Reading]:
    """Read the charts at the end of a chunk; hold replicas that are out of control, and those held before.

    Args:
        model: that drives the MD.
        charts: of labelled frames, with limits.
        config: what an alarm does.
        before, after: the replicas at both ends of the chunk.
        info: of the chunk; what happened to a held replica does not count.
        watch: so far.
    """
    held = watch.held
    k = FRAME_INDICES.index(config.index)
    rows = model.potential.species_index(after.atomic_numbers)
    d = after.dynamics

    def one(replica: tuple) -> Array:
        graph = graph_from_table(after.atomic_numbers, after.head, *replica)
        return read_graph(*model, charts, rows, graph).frame[0, k]

    limit = charts.frame_limits[k]
    value = jax.lax.map(one, (after.table, d.position, d.cell)) / limit
    # an unknown element makes the index NaN, and that is an alarm
    over = jnp.isfinite(limit) & ~(value <= 1.0) & ~held
    info = dataclasses.replace(
        info,
        good=info.good | held,
        overflow=info.overflow & ~held,
        moved_too_far=info.moved_too_far & ~held,
    )
    stay = over & (config.on_alarm != "ignore")
    watch = WatchState(
        calm=_choose(over | held, watch.calm, after.dynamics), alarmed=watch.alarmed | over, held=held | stay
    )
    kept = dataclasses.replace(after, dynamics=_choose(held, before.dynamics, after.dynamics))
    reading = Reading(jnp.where(jnp.isfinite(limit) & ~held, value, 0.0)[:, None], over)
    return kept, info, watch, reading


def release(config: AlarmConfig, watch: WatchState) -> WatchState:
    """After the frames are taken: with "label" the replicas go on, otherwise they stay held."""
    return dataclasses.replace(watch, held=watch.held & (config.on_alarm != "label"))


def end_round(
    config: AlarmConfig, watch: WatchState, sim: SimState, key: Key, temperature_K: Array | float
) -> tuple[WatchState, SimState]:
    """Roll alarmed replicas back if that is asked for, and forget the alarms of the round (not with "stop").

    Args:
        config: what an alarm does.
        watch: so far.
        sim: the replicas.
        key: of the new velocities.
        temperature_K: of the new velocities.
    """
    if config.on_alarm == "stop":
        return watch, sim
    if config.on_alarm == "rollback":
        # the same velocities and noise would lead a replica out again, by the same path
        keys = jax.vmap(lambda r: jax.random.split(jax.random.fold_in(key, r)))(jnp.arange(sim.n_replicas))

        def thermal(key: Key, mass: Array) -> Array:
            return maxwell_boltzmann(key, mass, temperature_K, freedom=watch.calm.freedom)

        momenta = jax.vmap(thermal)(keys[:, 0], watch.calm.mass)
        fresh = dataclasses.replace(watch.calm, momentum=momenta, rng=keys[:, 1])
        sim = dataclasses.replace(sim, dynamics=_choose(watch.alarmed, fresh, sim.dynamics))
    return WatchState.start(sim), sim


def cross_limits(
    charts: MonitorState,
    features: Float[Array, "C N F"],
    species: Int[Array, " N"],
    labelled: Bool[Array, " C"],
    config: AlarmConfig,
) -> MonitorState:
    """Charts with cross-validated limits; infinite ones with fewer than four labelled frames.

    Args:
        charts: fitted to all labelled frames.
        features: of all slots.
        species: element row of each atom.
        labelled: which slots count; they are in the order of time.
        config: folds and margin.
    """
    n_species, n_components = charts.eigenvalues.shape
    capacity, n_atoms, n_features = features.shape
    flat, rows = features.reshape(-1, n_features), jnp.tile(species, capacity)
    n = jnp.sum(labelled)
    fold = (jnp.cumsum(labelled) - 1) * config.folds // jnp.maximum(n, 1)

    def judge(k: Array) -> tuple[Array, Array]:
        others = jnp.repeat(labelled & (fold != k), n_atoms).astype(flat.dtype)
        fitted = fit_charts(flat, rows, others, n_species, n_components)
        found = atom_indices(fitted, flat, rows)
        return found.q.reshape(capacity, n_atoms), found.t2.reshape(capacity, n_atoms)

    q, t2 = jax.lax.map(judge, jnp.arange(config.folds))
    own = fold, jnp.arange(capacity)
    q, t2 = (jnp.where(labelled[:, None], index[own], 0.0) for index in (q, t2))
    tiny = jnp.finfo(features.dtype).tiny
    of_element = species[:, None] == jnp.arange(n_species)[None, :]
    known = jnp.any(of_element, axis=0)

    def largest(index: Array) -> Array:
        found = jnp.max(jnp.where(of_element[None], index[:, :, None], 0.0), axis=(0, 1))
        return jnp.where(known & (n >= _MIN_FRAMES), jnp.maximum(found, tiny), jnp.inf)

    q_limit, t2_limit = largest(q), largest(t2)
    relative = q / q_limit[None, species], t2 / t2_limit[None, species]
    combined = relative[0] + relative[1]
    frame = jnp.stack([*(jnp.mean(x, axis=1) for x in (*relative, combined)), jnp.max(combined, axis=1)], axis=-1)
    limits = jnp.where(n >= _MIN_FRAMES, config.margin * jnp.max(frame, axis=0), jnp.inf)
    return charts.replace(q_limit=q_limit, t2_limit=t2_limit, frame_limits=limits)  # pyright: ignore[reportAttributeAccessIssue]


def _choose(condition: Bool[Array, " R"], chosen: Dynamics, other: Dynamics) -> Dynamics:
    return jax.tree.map(lambda a, b: jax.vmap(jnp.where)(condition, a, b), chosen, other)
