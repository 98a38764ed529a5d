"""The whole of a periodic fine-tune as one compiled, differentiable program."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from mlipjax.finetuning.alarm import WatchState
from mlipjax.finetuning.round import make_round
from mlipjax.finetuning.setup import Controls, Setup
from mlipjax.finetuning.state import FineTuneState, LabelBuffer, RoundInfo
from mlipjax.md.state import init as init_replicas
from mlipjax.monitoring import MonitorState
from mlipjax.oracles import JittableOracle, check_cutoff, energy_offsets
from mlipjax.system import System
from mlipjax.train import TrainState
from mlipjax.typing import Key, Params

Run = Callable[[FineTuneState, Controls], tuple[FineTuneState, RoundInfo]]


def init(
    setup: Setup,
    params: Params,
    system: System,
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
        system: where every replica starts.
        controls: the ensemble gives the temperature of the first velocities.
        key: PRNG key of the run.
        n_replicas: trajectories run side by side.
        capacity: frames the buffer holds, all rounds together.
    """
    sim_key, train_key, run_key = jax.random.split(key, 3)
    sim = init_replicas(setup.potential, setup.spec, params, system, controls.ensemble, sim_key, n_replicas)
    dtype = sim.dynamics.position.dtype
    last = setup.potential.feature_slices[-1]
    n_components = setup.config.chart_components
    charts = (len(setup.potential.species), last.stop - last.start, n_components, dtype)
    return FineTuneState(
        round=jnp.zeros((), jnp.int32),
        key=run_key,
        train=TrainState.create(params, setup.optimizer, train_key),
        sim=sim,
        buffer=LabelBuffer.empty(system, capacity, dtype),
        # empty charts raise no alarm
        monitor=MonitorState.empty(*charts) if n_components else None,
        energy_shift=jnp.zeros((), dtype),
        watch=None if setup.config.alarm is None else WatchState.start(sim),
    )


def run_compiled(setup: Setup, oracle: JittableOracle, n_rounds: int, *, checkpoint: bool = False) -> Run:
    """Return a pure function ``(state, controls) -> (state, infos)`` that runs ``n_rounds`` rounds in one ``lax.scan``.

    The function can be jitted, mapped over states (seeds) or controls (sweeps), and differentiated with respect to
    initial parameters, learning rate, layer decay and temperature. Flags in ``RoundInfo`` say whether tables held:
    check them outside (``check_rounds``).

    Args:
        setup: static parts.
        oracle: one that can live inside a compiled program.
        n_rounds: rounds to run.
        checkpoint: recompute each round when differentiating, instead of storing what is inside.

    Raises:
        ValueError: if the oracle needs pairs further apart than the student's graphs hold.
    """
    check_cutoff(oracle, setup.potential.cutoff)
    body = make_round(setup, oracle, jnp.asarray(energy_offsets(oracle, setup.potential)))
    if checkpoint:
        body = jax.checkpoint(body)

    def run(state: FineTuneState, controls: Controls) -> tuple[FineTuneState, RoundInfo]:
        return jax.lax.scan(lambda carry, _: body(carry, controls), state, length=n_rounds)

    return run


def check_rounds(info: RoundInfo) -> None:
    """Raise ``RuntimeError`` naming the first round whose result cannot be used."""
    problems = (
        ("md_valid", "a neighbour table overflowed or went stale; use a larger skin or shorter chunks"),
        ("md_good", "a replica became too hot, too dense or not finite; look at its last frame"),
        ("train_finite", "the gradient of an optimiser step was not finite; lower the learning rate"),
    )
    for flag, meaning in problems:
        good = jnp.atleast_1d(getattr(info, flag))
        if not bool(jnp.all(good)):
            first = int(jnp.argmin(good.reshape(good.shape[0], -1).all(axis=1)))
            raise RuntimeError(f"round {first}: {meaning}")
