"""Training over epochs on the host: validation, early stopping, checkpoints, and what happens if it diverges.

Nothing here decides numbers: what a step is on is a function of keys and of its number, the state holds the rest. A
run that is killed and started again with the same folder therefore ends with the same parameters, bit for bit (on
CPUs).
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data import write_dataset
from mlipjax.devices import WHOLE, bring_home, put
from mlipjax.optim import Hyper, Optimizer
from mlipjax.train.judge import Judge, NonFiniteError, consider
from mlipjax.train.recorder import Recorder, Snapshots
from mlipjax.train.state import TrainState
from mlipjax.train.step import StepInfo
from mlipjax.train.tasks import Drawn, Mixture, compiled_gradient, mixture_step

BAD_FRAMES = "nonfinite_frames.extxyz"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of a run and what is kept of it.

    Attributes:
        steps: optimiser steps, at most.
        epoch: steps between two validations.
        patience: stop after this many epochs without a lower score; ``None`` for never.
        checkpoint_seconds: least time between two checkpoints.
        apart: whether records have the mean terms of every task. Such a run is saved at the ends of epochs only: the
            sums are not part of its state.
    """

    steps: int
    epoch: int
    patience: int | None = None
    checkpoint_seconds: float = 60.0
    apart: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.epoch < 1:
            raise ValueError(f"found {self.steps} steps and epochs of {self.epoch}; both from 1.")

    def epoch_of(self, step: int) -> int:
        """Number, from 1, of the epoch that step number ``step`` (from 1) is in."""
        return -(-step // self.epoch)

    def ends_epoch(self, step: int) -> bool:
        """Return whether an epoch ends with step number ``step``; the last one may be shorter."""
        return step % self.epoch == 0 or step == self.steps


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """Parts of a run.

    Attributes:
        mixture: the tasks.
        optimizer: shared by them.
        state: where to start.
        hyper: numbers of the run.
        config: its length.
        judge: decides which parameters are kept; those before the first step are a candidate too (epoch 0).
    """

    mixture: Mixture
    optimizer: Optimizer
    state: TrainState
    hyper: Hyper
    config: TrainConfig
    judge: Judge


class Listener:
    """Told of a run while it runs; this base class does nothing."""

    def begin(self, record: dict[str, Any]) -> None:
        """Before the first step, with the errors of epoch 0; not of a run that goes on from a checkpoint."""

    def step(self, state: TrainState, info: StepInfo) -> None:
        """After every step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch, with its line of ``metrics.jsonl``."""


def train(
    training: Training,
    *,
    folder: str | os.PathLike[str] | None = None,
    snapshots: Snapshots | None = None,
    listener: Listener | None = None,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Train until the steps are done or validation stops improving.

    Args:
        training: what is trained; a checkpoint in ``folder`` takes precedence over its state.
        folder: for checkpoints and ``metrics.jsonl``; ``None`` keeps nothing.
        snapshots: at which steps the averaged parameters are kept, and how.
        listener: is told of every step and epoch.

    Returns:
        The last state, whose ``best_params`` are the averaged ones with the lowest score; and the records of all
        epochs, as in ``metrics.jsonl``.

    Raises:
        NonFiniteError: if a loss, gradient or score is not finite. The last good state is saved first.
        ValueError: if a task's head is not among the parameters.
    """
    listener = Listener() if listener is None else listener
    config, mixture = training.config, training.mixture
    mixture.check_groups(training.state.params)
    with Recorder(folder, config.checkpoint_seconds, snapshots) as recorder:
        state = put(_in_epochs(recorder.resume(training.state), config), mixture.mesh, WHOLE)
        if int(state.step) == 0:
            state, record = consider(training.judge, state, 0)
            listener.begin(record)
        draws = mixture.steps(state.key, config.steps, int(state.step))
        while not is_finished(state, config):
            started = time.monotonic()
            state, apart = _run_epoch(training, state, draws, recorder, listener)
            state, record = _finish_epoch(training, state, apart)
            record["seconds"] = round(time.monotonic() - started, 3)
            recorder.write(record)
            recorder.save(state)
            listener.epoch(record)
        recorder.save(state, now=True)
    return bring_home(state, mixture.mesh), recorder.records


def is_finished(state: TrainState, config: TrainConfig) -> bool:
    """Return whether a run in this state has done its steps or run out of patience."""
    step = int(state.step)
    if not config.ends_epoch(step):
        return False
    stale = config.epoch_of(step) - int(state.best_epoch)
    return step >= config.steps or (config.patience is not None and step > 0 and stale >= config.patience)


def _in_epochs(state: TrainState, config: TrainConfig) -> TrainState:
    """A checkpoint whose best epoch is one: mixtures of earlier versions kept the step, and all losses in one sum."""
    step = int(state.step)
    if step == 0 or not config.ends_epoch(step) or float(state.epoch_loss) == 0.0:
        return state
    best = config.epoch_of(int(state.best_epoch))
    return dataclasses.replace(
        state, best_epoch=jnp.asarray(best, jnp.int32), epoch_loss=jnp.zeros_like(state.epoch_loss)
    )


def _run_epoch(
    training: Training,
    state: TrainState,
    draws: Iterator[tuple[Drawn, ...]],
    recorder: Recorder,
    listener: Listener,
) -> tuple[TrainState, list[dict[str, Any]]]:
    """Run the steps of the current epoch that are still to do; return the terms of each too."""
    config, apart = training.config, []
    done = int(state.step)
    stop = min(config.epoch_of(done + 1) * config.epoch, config.steps)
    steps = itertools.islice(draws, stop - done)
    following = next(steps, None)
    while following is not None:
        before, drawn = state, following
        state, info = mixture_step(training.mixture, training.optimizer, state, drawn, training.hyper)
        # structures of the next step are put together while this one is computed
        following = next(steps, None)
        if not info.finite:
            recorder.save(before, now=True)
            raise NonFiniteError(_explain(training, before, drawn, info, recorder.folder))
        recorder.snapshots.take(state)
        listener.step(state, info)
        if config.apart:
            apart.append(info.terms)
        # the end of an epoch is saved after its validation, so that no checkpoint lies between the two
        elif following is not None:
            recorder.save(state)
    return state, apart


def _finish_epoch(
    training: Training, state: TrainState, apart: Sequence[dict[str, Any]]
) -> tuple[TrainState, dict[str, Any]]:
    """Validate the averaged parameters, keep them if they are the best, and start the next epoch's sum."""
    config, step = training.config, int(state.step)
    epoch = config.epoch_of(step)
    state, record = consider(training.judge, state, epoch)
    record["train_loss"] = float(state.epoch_loss) / (step - (epoch - 1) * config.epoch)
    for name, values in _means(apart).items():
        record["tasks"][name] = {**record["tasks"].get(name, {}), **values}
    return dataclasses.replace(state, epoch_loss=jnp.zeros_like(state.epoch_loss)), record


def _means(apart: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many steps of an epoch each task had, and its mean terms over them."""
    found: dict[str, list[Any]] = {}
    for terms in jax.device_get(apart):
        for task, values in terms.items():
            found.setdefault(task, []).append(values)

    def mean(values: list[Any], name: str) -> float:
        return float(np.mean([getattr(one, name) for one in values], dtype=np.float64))

    return {
        task: {"steps": len(values), "train": {name: mean(values, name) for name in values[0]._fields}}
        for task, values in found.items()
    }


def _explain(training: Training, state: TrainState, drawn: Sequence[Drawn], info: StepInfo, folder: Path | None) -> str:
    """Find the micro-batches at fault, save their frames, and say what to do."""
    found = ((one, _nonfinite(training, state, one)) for one in drawn)
    everything = drawn[0], [index for plan in drawn[0].plans for index in plan.indices]
    one, bad = next((pair for pair in found if pair[1]), everything)
    bad = sorted(bad)
    message = (
        f"step {int(state.step) + 1}: loss {float(info.loss):g}, gradient norm {float(info.gradient_norm):g}, on "
        f"frames {bad} of the {one.task.name} set. "
    )
    if folder is not None:
        write_dataset(folder / BAD_FRAMES, one.task.batches.dataset.subset(bad))
        message += f"They are saved in {folder / BAD_FRAMES}, the parameters before this step in the checkpoint. "
    return message + "Look for overlapping atoms or wrong labels in them, or lower the learning rate."


def _nonfinite(training: Training, state: TrainState, drawn: Drawn) -> list[int]:
    """Structures of the micro-batches whose loss or gradient is not finite."""
    bad: list[int] = []
    task = drawn.task
    for plan, part in zip(drawn.plans, drawn.parts, strict=True):
        result = compiled_gradient(
            task.objective, training.optimizer, state.params, part, task.prefactors,
            task.objective.counts(part), state.step,
        )  # fmt: skip
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.loss, result.gradient))):
            bad.extend(plan.indices)
    return bad
