"""The compiled pieces of a training run, and what is put together from them on the host."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.losses import Loss, LossTerms, LossWeights, label_counts
from mlipjax.optim import Hyper, Optimizer
from mlipjax.potential import Potential
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.predict import StructurePrediction, predict
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import LossGradient, StepInfo, accumulate, add_replayed, apply_gradient, loss_gradient
from mlipjax.typing import Array, Params


@dataclasses.dataclass(frozen=True)
class Program:
    """What is trained, how, and by which loss; a value, so that equal programs and batch shapes compile once."""

    potential: Potential
    optimizer: Optimizer
    loss: Loss

    def gradient(self, params: Params, batch: Batch, weights: LossWeights, counts: LossTerms) -> LossGradient:
        """``step.loss_gradient``, compiled."""
        return _loss_gradient(self, params, batch, weights, counts)

    def update(self, state: TrainState, result: LossGradient, hyper: Hyper) -> tuple[TrainState, StepInfo]:
        """``step.apply_gradient``, compiled."""
        return _apply_gradient(self.optimizer, state, result, hyper)


@functools.partial(jax.jit, static_argnums=0)
def _loss_gradient(program: Program, *arguments: Any) -> LossGradient:
    return loss_gradient(program.potential, program.optimizer, program.loss)(*arguments)


@functools.partial(jax.jit, static_argnums=0)
def _apply_gradient(optimizer: Optimizer, *arguments: Any) -> tuple[TrainState, StepInfo]:
    return apply_gradient(optimizer)(*arguments)


@functools.partial(jax.jit, static_argnums=0)
def _score(loss: Loss, *arguments: Any) -> Array:
    return loss(*arguments)[0]


counts_of = jax.jit(label_counts)
"""``losses.label_counts``, compiled."""


def run_step(
    program: Program,
    state: TrainState,
    micro_batches: Sequence[Batch],
    hyper: Hyper,
    replayed: Sequence[Batch] = (),
    replay_weight: float = 1.0,
) -> tuple[TrainState, StepInfo]:
    """One optimiser step on micro-batches: the same gradient as one large batch of all of them.

    Args:
        program: compiled parts of a step.
        state: before.
        micro_batches: of one batch.
        hyper: of this step.
        replayed: another batch, in micro-batches too; its loss has denominators of its own.
        replay_weight: factor of its loss.
    """
    total = _gradient(program, state.params, micro_batches, hyper.weights)
    if replayed:
        weights = jax.tree.map(lambda weight: replay_weight * weight, hyper.weights)
        total = add_replayed(total, _gradient(program, state.params, replayed, weights))
    return program.update(state, total, hyper)


def _gradient(program: Program, params: Params, micro_batches: Sequence[Batch], weights: LossWeights) -> LossGradient:
    counts = _sum_counts(micro_batches)
    return accumulate(program.gradient(params, batch, weights, counts) for batch in micro_batches)


def validation_loss(
    program: Program, params: Params, batches: LabelledBatches, weights: LossWeights
) -> tuple[float, Sequence[StructurePrediction]]:
    """Return the weighted loss of a data set, as one batch would have it, and the predictions.

    Args:
        program: compiled parts of a step.
        params: that predict.
        batches: the data set.
        weights: of the terms.
    """
    counts = _sum_counts(batches.batch(plan) for plan in batches.plans)
    losses: list[Array] = []

    def score(prediction, batch):
        losses.append(_score(program.loss, prediction, batch.labels, batch.graph, weights, counts))

    predictions = predict(program.potential, params, batches, score)
    return float(sum(float(loss) for loss in losses)), predictions


def _sum_counts(batches: Iterable[Batch]) -> LossTerms:
    counts = [jax.device_get(counts_of(batch.labels, batch.graph)) for batch in batches]
    return LossTerms(*(np.sum(values, dtype=values[0].dtype) for values in zip(*counts, strict=True)))
