"""The whole of a periodic fine-tune as one compiled, differentiable program; and the same, round by round.

``run_compiled`` is pure. ``run_rounds`` drives the same program from Python: what a round reports is checked, and a
round whose neighbour tables overflowed is repeated with larger ones.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.finetuning.alarm import WatchState
from mlipjax.finetuning.pieces import (
    RETRIES,
    LoopResult,
    OnPiece,
    Piece,
    Stopped,
    Until,
    alarm_stop,
    collapsing,
    enlarged,
    never,
    no_zero,
    not_finite,
    out_of_bounds,
)
from mlipjax.finetuning.records import record_labels
from mlipjax.finetuning.round import make_round
from mlipjax.finetuning.setup import Controls, Setup, SystemSetup
from mlipjax.finetuning.state import Candidates, FineTuneState, LabelBuffer, RoundInfo, SystemState, system_key
from mlipjax.md.start import Start
from mlipjax.md.state import init as init_replicas
from mlipjax.md.state import rebuild
from mlipjax.monitoring import MonitorState
from mlipjax.oracles import JittableOracle, check_cutoff, energy_offsets
from mlipjax.potential import Model
from mlipjax.train import TrainState
from mlipjax.typing import Key, Params

Run = Callable[[FineTuneState, Controls], tuple[FineTuneState, RoundInfo]]


class SystemStart(NamedTuple):
    """How a system starts.

    Attributes:
        start: where every replica starts.
        n_replicas: trajectories run side by side.
        capacity: frames its buffer holds, all rounds together.
    """

    start: Start
    n_replicas: int
    capacity: int


def init(setup: Setup, params: Params, starts: Sequence[SystemStart], controls: Controls, key: Key) -> FineTuneState:
    """State before the first round.

    Args:
        setup: static parts.
        params: of the universal model; their dtype is the dtype of the run.
        starts: of each system.
        controls: ensembles give the temperatures of drawn velocities.
        key: PRNG key of the run.

    Raises:
        ValueError: if an ensemble cannot simulate its system (see ``md.init``).
    """
    sim_key, train_key, run_key = jax.random.split(key, 3)
    return FineTuneState(
        round=jnp.zeros((), jnp.int32),
        key=run_key,
        train=TrainState.create(params, setup.optimizer, train_key),
        systems=tuple(
            _init_system(setup, own, params, start, numbers.ensemble, system_key(sim_key, index))
            for index, (own, start, numbers) in enumerate(zip(setup.systems, starts, controls.systems, strict=True))
        ),
    )


def _init_system(
    setup: Setup, own: SystemSetup, params: Params, start: SystemStart, ensemble: Any, key: Key
) -> SystemState:
    sim = init_replicas(Model(setup.moving(own), params), own.spec, start.start, ensemble, key, start.n_replicas)
    dtype = sim.dynamics.position.dtype
    last = setup.potential.feature_slices[-1]
    n_components = setup.config.chart_components
    charts = (len(setup.potential.species), last.stop - last.start, n_components, dtype)
    return SystemState(
        sim=sim,
        buffer=LabelBuffer.empty(start.start.system, start.capacity, dtype),
        energy_shift=jnp.zeros((), dtype),
        monitor=MonitorState.empty(*charts) if n_components else None,
        watch=None if setup.config.alarm is None else WatchState.start(sim),
        candidates=None
        if setup.config.select == "interval"
        else Candidates.empty(start.start.system, own.frames_per_replica * start.n_replicas, dtype),
    )


def run_compiled(setup: Setup, oracle: JittableOracle, n_rounds: int) -> Run:
    """Return a pure function ``(state, controls) -> (state, infos)`` that runs ``n_rounds`` rounds in one ``lax.scan``.

    The function can be jitted, mapped over states (seeds) or controls (sweeps), and differentiated with respect to
    initial parameters, learning rate, layer decay and temperature. Flags in ``RoundInfo`` say whether a round can be
    used: look at them outside, as ``run_rounds`` does.

    Args:
        setup: static parts.
        oracle: one that can live inside a compiled program.
        n_rounds: rounds to run.

    Raises:
        ValueError: if the oracle needs pairs further apart than the student's graphs hold.
    """
    check_cutoff(oracle, setup.potential.cutoff)
    body = make_round(setup, oracle, jnp.asarray(energy_offsets(oracle, setup.potential)))

    def run(state: FineTuneState, controls: Controls) -> tuple[FineTuneState, RoundInfo]:
        return jax.lax.scan(lambda carry, _: body(carry, controls), state, length=n_rounds)

    return run


def run_rounds(
    setup: Setup,
    oracle: JittableOracle,
    controls: Controls,
    state: FineTuneState,
    n_rounds: int,
    on_piece: OnPiece = lambda piece: None,
    until: Until = never,
) -> LoopResult:
    """Run rounds one after the other, each a compiled program; records are those of ``HostLoop``.

    Args:
        setup: static parts; tables grow when they have to.
        oracle: one that can live inside a compiled program.
        controls: the numbers of the run.
        state: before the first round.
        n_rounds: rounds to run.
        on_piece: is told of every round before it, and of its stages after it.
        until: says before a round whether it is wanted at all.

    Raises:
        ValueError: if the oracle needs pairs further apart than the student's graphs hold.
        Stopped: if a replica became too hot, too dense or not finite, training diverged, no label could be used, or
            an alarm is to stop the run.
    """
    history: list[dict[str, Any]] = []
    for _ in range(n_rounds):
        if (reason := until(history)) is not None:
            return LoopResult(state, history, reason)
        this = int(state.round)
        on_piece(Piece(this, "sample", 0, sum(own.frames_per_replica for own in setup.systems)))
        for _ in range(RETRIES):
            after, info = _round(setup, oracle, _with_tables(setup, state), controls)
            invalid = [i for i, system in enumerate(info.systems) if not bool(system.md_valid[0])]
            if not invalid:
                break
            for index in invalid:
                found, system = info.systems[index], state.systems[index]
                spec = setup.systems[index].spec
                spec = enlarged(spec, system, bool(found.moved_too_far[0]), int(found.n_neighbors[0]))
                setup = setup.with_spec(index, spec)
        else:
            raise collapsing()
        info = jax.tree.map(lambda leaf: np.asarray(leaf[0]), info)
        _check(setup, info, this)
        for record in _records(setup, info, after):
            history.append({"key": [this, record["stage"], 0, record["system"]], "round": this, **record})
            on_piece(Piece(this, record["stage"], 1, 1, history[-1]))
        state = after
    return LoopResult(state, history)


def _with_tables(setup: Setup, state: FineTuneState) -> FineTuneState:
    """Give the tables the shapes of the setup; the program searches again."""
    systems = (
        dataclasses.replace(system, sim=rebuild(own.spec, system.sim))
        for own, system in zip(setup.systems, state.systems, strict=True)
    )
    return dataclasses.replace(state, systems=tuple(systems))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _round(
    setup: Setup, oracle: JittableOracle, state: FineTuneState, controls: Controls
) -> tuple[FineTuneState, RoundInfo]:
    return run_compiled(setup, oracle, 1)(state, controls)


def _check(setup: Setup, info: RoundInfo, round: int) -> None:
    alarm = setup.config.alarm
    for index, system in enumerate(info.systems):
        if not system.md_good:
            raise out_of_bounds(round, index)
        if alarm is not None and alarm.on_alarm == "stop" and np.any(system.alarms):
            raise alarm_stop(round, index, alarm, np.flatnonzero(system.alarms).tolist(), _lists(system.alarm_index))
    if not any(np.any(system.labelled) for system in info.systems):
        raise Stopped(f"round {round}: energies or forces of all labels are not finite")
    if round == 0 and setup.config.estimate_shift:
        for index, system in enumerate(info.systems):
            if not np.any(system.labelled):
                raise no_zero(index)
    if not info.train_finite:
        raise not_finite(round)


def _records(setup: Setup, info: RoundInfo, after: FineTuneState) -> Iterator[dict[str, Any]]:
    """Records that the host loop would have written, in the order of stages."""
    for index, system in enumerate(info.systems):
        watched: dict[str, Any] = {}
        if system.alarm_index.shape[-1]:
            watched = {"alarms": np.flatnonzero(system.alarms).tolist(), "alarm_index": _lists(system.alarm_index)}
        traces = {"temperature_K": _lists(system.temperature), "potential_energy_eV": _lists(system.potential_energy)}
        yield {"stage": "sample", "system": index, **traces, **watched}
    if setup.config.select != "interval":
        for index, system in enumerate(info.systems):
            yield {"stage": "select", "system": index, "chosen": np.asarray(system.chosen).tolist()}
    check_zero = int(after.round) == 1 and not setup.config.estimate_shift
    for index, (own, system, state) in enumerate(zip(setup.systems, info.systems, after.systems, strict=True)):
        good, n_failed = np.asarray(system.labelled), int(system.labels_failed)
        shift = float(state.energy_shift)
        yield {
            "stage": "label",
            "system": index,
            **record_labels(own, system.errors, good, n_failed, shift, check_zero=check_zero),
        }
    yield {"stage": "train", "system": 0, "loss": _lists(info.loss)}
    yield {"stage": "finish", "system": 0}


def _lists(values: Any) -> list[Any]:
    return np.asarray(values, np.float64).tolist()
