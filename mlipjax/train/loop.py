"""Training over epochs on the host: validation, early stopping, checkpoints, and what happens if it diverges.

Nothing here decides numbers: the order of frames is a function of key and epoch, the state holds the rest. A run that
is killed and started again with the same folder therefore ends with the same parameters, bit for bit (on CPUs).
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data import write_dataset
from mlipjax.graph import BatchPlan
from mlipjax.optim import Hyper
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.judge import Judge, NonFiniteError
from mlipjax.train.program import Program, counts_of, run_step
from mlipjax.train.recorder import Recorder, Snapshots
from mlipjax.train.retention import Retention
from mlipjax.train.state import TrainState
from mlipjax.train.step import StepInfo

BAD_FRAMES = "nonfinite_frames.extxyz"


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Length of a run and what is kept of it.

    Attributes:
        epochs: at most this many.
        patience: stop after this many epochs without a lower score; ``None`` for never.
        checkpoint_seconds: least time between two checkpoints.
    """

    epochs: int
    patience: int | None = None
    checkpoint_seconds: float = 60.0


class Listener:
    """What a run reports while it runs; this base class listens to nothing."""

    def begin(self, record: dict[str, Any]) -> None:
        """Before the first step, with the errors of epoch 0; not of a run that goes on from a checkpoint."""

    def step(self, state: TrainState, info: StepInfo) -> None:
        """After every step."""

    def epoch(self, record: dict[str, Any]) -> None:
        """After every epoch, with its line of ``metrics.jsonl``."""


def train(
    program: Program,
    state: TrainState,
    train_batches: LabelledBatches,
    valid_batches: LabelledBatches | None,
    hyper: Hyper,
    config: TrainConfig,
    *,
    retention: Retention | None = None,
    folder: str | os.PathLike[str] | None = None,
    snapshots: Snapshots | None = None,
    listener: Listener | None = None,
) -> TrainState:
    """Train until the epochs are done or validation stops improving.

    Args:
        program: compiled pieces.
        state: where to start; a checkpoint in ``folder`` takes precedence.
        train_batches: what to train on.
        valid_batches: what decides which parameters are kept; its loss is that of the averaged parameters. The
            parameters before the first step are a candidate too (epoch 0). ``None`` keeps those of the last epoch.
        hyper: numbers of the run.
        config: length of the run.
        retention: structures to replay, and anchor structures: their loss, weighted, adds to the validation loss,
            and the sum is the score that decides.
        folder: for checkpoints and ``metrics.jsonl``; ``None`` keeps nothing.
        snapshots: at which steps the averaged parameters are kept, and how.
        listener: is told of every step and epoch.

    Returns:
        The last state; ``best_params`` are those of the epoch with the lowest score.

    Raises:
        NonFiniteError: if a loss or gradient is not finite. The last good state is saved first.
    """
    listener = Listener() if listener is None else listener
    retention = Retention() if retention is None else retention
    judge = Judge(program, valid_batches, retention, hyper)
    with Recorder(folder, config.checkpoint_seconds, snapshots) as recorder:
        state = recorder.resume(state)
        if int(state.step) == 0 and valid_batches is not None:
            state, record = judge.consider(state, 0)
            listener.begin(record)
        while not is_finished(state, train_batches.steps_per_epoch, config):
            started = time.monotonic()
            state = _run_epoch(program, state, train_batches, retention, hyper, recorder, listener)
            state, record = _finish_epoch(judge, state, train_batches.steps_per_epoch)
            record["seconds"] = round(time.monotonic() - started, 3)
            recorder.write(record)
            recorder.save(state)
            listener.epoch(record)
        recorder.save(state, now=True)
    return state


def is_finished(state: TrainState, steps_per_epoch: int, config: TrainConfig) -> bool:
    """Whether a run in this state has done its epochs or run out of patience.

    Args:
        state: of the run.
        steps_per_epoch: updates.
        config: epochs and patience.
    """
    epoch, within = divmod(int(state.step), steps_per_epoch)
    if within:
        return False
    stale = epoch - int(state.best_epoch)
    return epoch >= config.epochs or (config.patience is not None and epoch > 0 and stale >= config.patience)


def _run_epoch(
    program: Program,
    state: TrainState,
    batches: LabelledBatches,
    retention: Retention,
    hyper: Hyper,
    recorder: Recorder,
    listener: Listener,
) -> TrainState:
    """Run the steps of the current epoch that are still to do."""
    epoch, done = divmod(int(state.step), batches.steps_per_epoch)
    steps = batches.epoch(state.key, epoch)
    for number, plans in enumerate(steps[done:], start=done + 1):
        before = state
        parts = [("training", batches, plans)]
        if retention.replay is not None:
            parts.append(("replay", retention.replay, retention.replayed_plans(state.key, int(state.step))))
        drawn = [[source.batch(plan) for plan in chosen] for _, source, chosen in parts]
        replayed = drawn[1] if len(drawn) > 1 else ()
        state, info = run_step(program, state, drawn[0], hyper, replayed, retention.replay_weight)
        if not info.finite:
            recorder.save(before, now=True)
            raise NonFiniteError(_explain(program, before, parts, hyper, info, recorder.folder))
        recorder.snapshots.take(state)
        listener.step(state, info)
        # the end of an epoch is saved after its validation, so that no checkpoint lies between the two
        if number < len(steps):
            recorder.save(state)
    return state


def _finish_epoch(judge: Judge, state: TrainState, steps_per_epoch: int) -> tuple[TrainState, dict[str, Any]]:
    """Validate the averaged parameters, keep them if they are the best, and start the next epoch's sum."""
    epoch = int(state.step) // steps_per_epoch
    state, record = judge.consider(state, epoch)
    record["train_loss"] = float(state.epoch_loss) / steps_per_epoch
    return dataclasses.replace(state, epoch_loss=jnp.zeros_like(state.epoch_loss)), record


def _explain(
    program: Program,
    state: TrainState,
    parts: Sequence[tuple[str, LabelledBatches, Sequence[BatchPlan]]],
    hyper: Hyper,
    info: StepInfo,
    folder: Path | None,
) -> str:
    """Find the micro-batches at fault, save their frames, and say what to do."""
    found = ((part, _nonfinite(program, state, part[1], part[2], hyper)) for part in parts)
    everything = parts[0], [index for plan in parts[0][2] for index in plan.indices]
    (name, batches, _), bad = next((pair for pair in found if pair[1]), everything)
    bad = sorted(bad)
    message = (
        f"step {int(state.step) + 1}: loss {float(info.loss):g}, gradient norm {float(info.gradient_norm):g}, on "
        f"frames {bad} of the {name} set. "
    )
    if folder is not None:
        write_dataset(folder / BAD_FRAMES, batches.dataset.subset(bad))
        message += f"They are saved in {folder / BAD_FRAMES}, the parameters before this step in the checkpoint. "
    return message + "Look for overlapping atoms or wrong labels in them, or lower the learning rate."


def _nonfinite(
    program: Program, state: TrainState, batches: LabelledBatches, plans: Sequence[BatchPlan], hyper: Hyper
) -> list[int]:
    """Structures of the micro-batches whose loss or gradient is not finite."""
    bad: list[int] = []
    for plan in plans:
        batch = batches.batch(plan)
        counts = counts_of(batch.labels, batch.graph)
        result = program.gradient(state.params, batch, hyper.weights, counts)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((result.loss, result.gradient))):
            bad.extend(plan.indices)
    return bad
