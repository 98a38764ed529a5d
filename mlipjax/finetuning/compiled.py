"""The whole of a periodic fine-tune as one compiled, differentiable program; and the same, round by round.

``run_compiled`` is pure. ``run_rounds`` drives the same program from Python: what a round reports is checked, and a
round whose neighbour tables overflowed is repeated with larger ones.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.finetuning.alarm import WatchState
from mlipjax.finetuning.pieces import (
    RETRIES,
    LoopResult,
    OnPiece,
    Piece,
    Stage,
    Stopped,
    alarm_stop,
    collapsing,
    enlarged,
    not_finite,
    out_of_bounds,
)
from mlipjax.finetuning.records import record_labels
from mlipjax.finetuning.round import make_round
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState, LabelBuffer, RoundInfo
from mlipjax.md.start import Start
from mlipjax.md.state import init as init_replicas
from mlipjax.md.state import rebuild
from mlipjax.monitoring import MonitorState
from mlipjax.oracles import JittableOracle, check_cutoff, energy_offsets
from mlipjax.potential import Model
from mlipjax.train import TrainState
from mlipjax.typing import Key, Params

Run = Callable[[FineTuneState, Controls], tuple[FineTuneState, RoundInfo]]


def init(
    setup: Setup,
    params: Params,
    start: Start,
    controls: Controls,
    key: Key,
    *,
    n_replicas: int,
    capacity: int,
) -> FineTuneState:
    """State before the first round.

    Args:
        setup: static parts.
        params: of the universal model; their dtype is the dtype of the run.
        start: where every replica starts.
        controls: the ensemble gives the temperature of drawn velocities.
        key: PRNG key of the run.
        n_replicas: trajectories run side by side.
        capacity: frames the buffer holds, all rounds together.

    Raises:
        ValueError: if the ensemble cannot simulate the system (see ``md.init``).
    """
    sim_key, train_key, run_key = jax.random.split(key, 3)
    sim = init_replicas(Model(setup.potential, params), setup.spec, start, controls.ensemble, sim_key, n_replicas)
    dtype = sim.dynamics.position.dtype
    last = setup.potential.feature_slices[-1]
    n_components = setup.config.chart_components
    charts = (len(setup.potential.species), last.stop - last.start, n_components, dtype)
    return FineTuneState(
        round=jnp.zeros((), jnp.int32),
        key=run_key,
        train=TrainState.create(params, setup.optimizer, train_key),
        sim=sim,
        buffer=LabelBuffer.empty(start.system, capacity, dtype),
        monitor=MonitorState.empty(*charts) if n_components else None,
        energy_shift=jnp.zeros((), dtype),
        watch=None if setup.config.alarm is None else WatchState.start(sim),
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
) -> LoopResult:
    """Run rounds one after the other, each a compiled program; records are those of ``HostLoop``.

    Args:
        setup: static parts; tables grow when they have to.
        oracle: one that can live inside a compiled program.
        controls: the numbers of the run.
        state: before the first round.
        n_rounds: rounds to run.
        on_piece: is told of every round before it, and of its stages after it.

    Raises:
        ValueError: if the oracle needs pairs further apart than the student's graphs hold.
        Stopped: if a replica became too hot, too dense or not finite, training diverged, no label could be used, or
            an alarm is to stop the run.
    """
    history: list[dict[str, Any]] = []
    for _ in range(n_rounds):
        this = int(state.round)
        on_piece(Piece(this, "sample", 0, setup.config.labels_per_replica))
        for _ in range(RETRIES):
            # the program searches again; here it gives the tables the shapes of the setup
            start = dataclasses.replace(state, sim=rebuild(setup.spec, state.sim))
            after, info = _round(setup, oracle, start, controls)
            if bool(info.md_valid[0]):
                break
            spec = enlarged(setup, state, bool(info.moved_too_far[0]), int(info.n_neighbors[0]))
            setup = dataclasses.replace(setup, spec=spec)
        else:
            raise collapsing()
        info = jax.tree.map(lambda leaf: np.asarray(leaf[0]), info)
        _check(setup, info, this)
        for stage, record in _records(setup, info, after).items():
            history.append({"key": [this, stage, 0], "round": this, "stage": stage, **record})
            on_piece(Piece(this, stage, 1, 1, history[-1]))
        state = after
    return LoopResult(state, history)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _round(
    setup: Setup, oracle: JittableOracle, state: FineTuneState, controls: Controls
) -> tuple[FineTuneState, RoundInfo]:
    return run_compiled(setup, oracle, 1)(state, controls)


def _check(setup: Setup, info: RoundInfo, round: int) -> None:
    alarm = setup.config.alarm
    if not info.md_good:
        raise out_of_bounds(round)
    if alarm is not None and alarm.on_alarm == "stop" and np.any(info.alarms):
        raise alarm_stop(round, alarm, np.flatnonzero(info.alarms).tolist(), _lists(info.alarm_index))
    if not np.any(info.labelled):
        raise Stopped(f"round {round}: energies or forces of all labels are not finite")
    if not info.train_finite:
        raise not_finite(round)


def _records(setup: Setup, info: RoundInfo, after: FineTuneState) -> dict[Stage, dict[str, Any]]:
    """Records that the host loop would have written, by stage."""
    watched: dict[str, Any] = {}
    if info.alarm_index.shape[-1]:
        watched = {"alarms": np.flatnonzero(info.alarms).tolist(), "alarm_index": _lists(info.alarm_index)}
    traces = {"temperature_K": _lists(info.temperature), "potential_energy_eV": _lists(info.potential_energy)}
    check_zero = int(after.round) == 1 and not setup.config.estimate_shift
    good, n_failed = np.asarray(info.labelled), int(info.labels_failed)
    return {
        "sample": {**traces, **watched},
        "label": record_labels(info.errors, good, n_failed, after, check_zero=check_zero),
        "train": {"loss": _lists(info.loss)},
        "finish": {},
    }


def _lists(values: Any) -> list[Any]:
    return np.asarray(values, np.float64).tolist()
