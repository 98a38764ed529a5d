"""The compiled pieces of a training run, and what is put together from them on the host."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.losses import Loss, LossTerms, LossWeights, label_counts
from mlipjax.optim import Hyper, Optimizer
from mlipjax.potential import Potential
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.predict import Apply, StructurePrediction, predict
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import LossGradient, StepInfo, accumulate, add_replayed, apply_gradient, loss_gradient
from mlipjax.typing import Array, Params


@dataclasses.dataclass(frozen=True)
class Program:
    """Compiled pieces of a training run; each compiles once per batch shape."""

    optimizer: Optimizer
    loss: Loss
    apply: Apply
    score: Callable[..., Array]
    counts: Callable[[Any, Any], LossTerms]
    gradient: Callable[[Params, Batch, LossWeights, LossTerms], LossGradient]
    update: Callable[[TrainState, LossGradient, Hyper], tuple[TrainState, StepInfo]]


def compile_program(potential: Potential, optimizer: Optimizer, loss: Loss) -> Program:
    """Compile lazily what ``train`` needs."""
    return Program(
        optimizer=optimizer,
        loss=loss,
        apply=jax.jit(potential.apply),
        score=jax.jit(lambda *arguments: loss(*arguments)[0]),
        counts=jax.jit(label_counts),
        gradient=jax.jit(loss_gradient(potential, optimizer, loss)),
        update=jax.jit(apply_gradient(optimizer)),
    )


def run_step(
    program: Program,
    state: TrainState,
    micro_batches: Sequence[Batch],
    hyper: Hyper,
    replayed: Sequence[Batch] = (),
    replay_weight: float = 1.0,
) -> tuple[TrainState, StepInfo]:
    """One optimiser step on micro-batches: the same gradient as one large batch of all of them.

    ``replayed`` is a batch of its own, in micro-batches too: its loss has its own denominators, is multiplied by
    ``replay_weight`` and added.
    """
    total = _gradient(program, state.params, micro_batches, hyper.weights)
    if replayed:
        weights = jax.tree.map(lambda weight: replay_weight * weight, hyper.weights)
        total = add_replayed(total, _gradient(program, state.params, replayed, weights))
    return program.update(state, total, hyper)


def _gradient(program: Program, params: Params, micro_batches: Sequence[Batch], weights: LossWeights) -> LossGradient:
    counts = _sum_counts(program, micro_batches)
    return accumulate(program.gradient(params, batch, weights, counts) for batch in micro_batches)


def validation_loss(
    program: Program, params: Params, batches: LabelledBatches, weights: LossWeights
) -> tuple[float, Sequence[StructurePrediction]]:
    """Return the weighted loss of a data set, as one batch would have it, and the predictions."""
    counts = _sum_counts(program, (batches.batch(plan) for plan in batches.plans))
    losses: list[Array] = []

    def score(prediction, batch):
        losses.append(program.score(prediction, batch.labels, batch.graph, weights, counts))

    predictions = predict(program.apply, params, batches, score)
    return float(sum(float(loss) for loss in losses)), predictions


def _sum_counts(program: Program, batches: Iterable[Batch]) -> LossTerms:
    counts = [jax.device_get(program.counts(batch.labels, batch.graph)) for batch in batches]
    return LossTerms(*(np.sum(values, dtype=values[0].dtype) for values in zip(*counts, strict=True)))
