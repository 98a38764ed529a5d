"""A run over a mixture of tasks on the host: intervals of steps, validation after each, checkpoints, exact resume."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.optim import Hyper
from mlipjax.train.loop import NonFiniteError
from mlipjax.train.multitask import MixtureProgram, TaskStep, check_groups
from mlipjax.train.recorder import Recorder, Snapshots
from mlipjax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class MixtureConfig:
    """Length of a run and what decides.

    Attributes:
        total_steps: optimiser steps, whichever task they are for.
        interval: steps between two validations.
        score: task and error whose lowest value decides which parameters are kept.
    """

    total_steps: int
    interval: int
    score: tuple[str, str]

    def __post_init__(self) -> None:
        if self.total_steps < 1 or self.interval < 1:
            raise ValueError(f"found {self.total_steps} steps and an interval of {self.interval}; both from 1.")


class MixtureListener:
    """What a run reports while it runs; this base class listens to nothing."""

    def steps(self, done: int, total: int) -> None:
        """After some steps."""

    def interval(self, record: dict[str, Any]) -> None:
        """After every interval, with its line of ``metrics.jsonl``."""


def train_mixture(
    program: MixtureProgram,
    state: TrainState,
    hyper: Hyper,
    config: MixtureConfig,
    *,
    folder: str | os.PathLike[str] | None = None,
    snapshots: Snapshots | None = None,
    listener: MixtureListener | None = None,
) -> TrainState:
    """Train for all steps; ``best_params`` are the averaged ones with the lowest score, of an interval or the start.

    Every interval ends with the validation of every task and a checkpoint (at most one per minute), so a run that was
    killed repeats part of an interval and then ends with the same parameters, bit for bit (on CPUs).

    Args:
        program: compiled mixture.
        state: where to start; a checkpoint in ``folder`` takes precedence.
        hyper: learning rate, layer-wise decay and pull.
        config: length of the run.
        folder: for checkpoints and ``metrics.jsonl``; ``None`` keeps nothing.
        snapshots: at which steps the averaged parameters are kept, and how.
        listener: is told of steps and intervals.

    Raises:
        NonFiniteError: if a loss, gradient or score is not finite. The state before is saved.
        ValueError: if a task's head is not among the parameters.
    """
    check_groups(program.mixture, state.params)
    listener = MixtureListener() if listener is None else listener
    turns, numbers = program.mixture.turns(state.key, config.total_steps)
    with Recorder(folder, 60.0, snapshots) as recorder:
        state = recorder.resume(state)
        if int(state.step) == 0:
            # what was there before training is a candidate too
            state, _ = _validate(program, state, config, {"tasks": {}})
        while (done := int(state.step)) < config.total_steps:
            started = time.monotonic()
            stop = min(done + config.interval - done % config.interval, config.total_steps)
            before, infos, kept = state, [], []
            for index in range(done, stop):
                state, step = program.step(state, int(turns[index]), int(numbers[index]), hyper)
                infos.append(step)
                if index + 1 in recorder.snapshots.steps:
                    kept.append(state)
                if (index + 1) % 10 == 0:
                    listener.steps(index + 1, config.total_steps)
            # first whether all steps were finite: that waits for the device, and snapshots of NaN are refused
            record = _summary(infos, before, recorder)
            for one in kept:
                recorder.snapshots.take(one)
            state, record = _validate(program, state, config, record)
            record["seconds"] = round(time.monotonic() - started, 3)
            recorder.write(record)
            recorder.save(state, now=stop == config.total_steps)
            listener.interval(record)
    return state


def _summary(infos: list[TaskStep], before: TrainState, recorder: Recorder) -> dict[str, Any]:
    """Mean terms of every task over an interval, and how many steps it had."""
    found = jax.device_get(infos)
    bad = [index for index, step in enumerate(found) if not step.info.finite]
    if bad:
        recorder.save(before, now=True)
        step = found[bad[0]]
        raise NonFiniteError(
            f"step {int(before.step) + bad[0] + 1} ({', '.join(step.terms)}): loss {float(step.info.loss):g}, gradient "
            f"norm {float(step.info.gradient_norm):g}. Look for overlapping atoms or wrong values, or lower the "
            "learning rate."
        )
    tasks: dict[str, dict[str, list[float]]] = {}
    for step in found:
        for task, terms in step.terms.items():
            for name, value in terms.items():
                tasks.setdefault(task, {}).setdefault(name, []).append(float(value))
    return {
        "tasks": {
            task: {"steps": len(next(iter(terms.values()))), "train": {k: float(np.mean(v)) for k, v in terms.items()}}
            for task, terms in tasks.items()
        }
    }


def _validate(
    program: MixtureProgram, state: TrainState, config: MixtureConfig, record: dict[str, Any]
) -> tuple[TrainState, dict[str, Any]]:
    errors = {task.name: task.evaluate(state.ema_params) for task in program.mixture.tasks if task.evaluate is not None}
    task, error = config.score
    score = errors[task][error]
    step = int(state.step)
    if not math.isfinite(score):
        raise NonFiniteError(f"step {step}: the validation error of {task!r} is {score}. Lower the learning rate.")
    for name, values in errors.items():
        record["tasks"].setdefault(name, {"steps": 0, "train": {}})["valid"] = values
    if score < float(state.best_metric):
        state = dataclasses.replace(
            state,
            best_metric=jnp.asarray(score, state.best_metric.dtype),
            # of a mixture this is the step, not the epoch: tasks have epochs of their own
            best_epoch=jnp.asarray(step, jnp.int32),
            best_params=state.ema_params,
        )
    return state, {"step": step, **record, "score": score, "best_step": int(state.best_epoch)}
