"""One optimiser step, its two halves for accumulating over micro-batches, and many steps as one ``lax.scan``.

All functions here are pure and return pure functions; whoever calls them decides what to compile::

    step = jax.jit(train_step(potential, optimizer, loss))
    state, info = step(state, batch, hyper)

The graph of differentiation is complete: ``jax.grad`` through ``fit`` with respect to learning rate, layer decay,
loss weights or initial parameters is meaningful, and ``jax.vmap`` over them trains many models at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlipjax.losses import Loss, label_counts, pull_loss
from mlipjax.optim import Hyper, Optimizer, ema_update, merge
from mlipjax.potential import Potential
from mlipjax.train.objectives import ForceField, Objective
from mlipjax.train.state import Batch, TrainState
from mlipjax.typing import Array, Params


class LossGradient(NamedTuple):
    """Loss, its unweighted terms, and its gradient with respect to the trainable parameters (``None`` elsewhere)."""

    loss: Array
    terms: Any
    gradient: Any


class StepInfo(NamedTuple):
    """Report of a step.

    Attributes:
        loss: () weighted loss before the step, the pull towards earlier parameters included.
        terms: unweighted terms of the labels; of several tasks, those of each by its name.
        gradient_norm: () norm of the gradient before clipping.
        finite: () false if loss or gradient was NaN or infinite: then the step left the state as it was.
    """

    loss: Array
    terms: Any
    gradient_norm: Array
    finite: Array


def loss_gradient(objective: Objective, optimizer: Optimizer) -> Callable[[Params, Batch, Any, Any], LossGradient]:
    """Return ``(params, batch, weights, counts) -> LossGradient``.

    With ``counts`` of a whole batch, the results of its micro-batches add up to the whole batch's.
    """

    def compute(params: Params, batch: Batch, weights: Any, counts: Any) -> LossGradient:
        trainable, frozen = optimizer.split(params)

        def loss(trainable: Any) -> tuple[Array, Any]:
            return objective(merge(trainable, frozen), batch, weights, counts)

        (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(trainable)
        return LossGradient(value, terms, gradient)

    return compute


def apply_gradient(
    optimizer: Optimizer,
) -> Callable[[TrainState, LossGradient, Hyper], tuple[TrainState, StepInfo]]:
    """Return ``(state, gradient, hyper) -> (state, info)``: update parameters and their average.

    The pull of ``hyper`` is added here, once per step, whatever the number of micro-batches. A loss or gradient that
    is not finite changes nothing (``info.finite`` says so), so the state returned is always one to go on from or to
    save.
    """

    def update(state: TrainState, result: LossGradient, hyper: Hyper) -> tuple[TrainState, StepInfo]:
        result = add_pull(optimizer, state.params, result, hyper)
        squared_norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(result.gradient))
        finite = jnp.isfinite(result.loss) & jnp.isfinite(squared_norm)
        changes, opt_state = optimizer.update(result.gradient, state.opt_state, hyper)
        trainable, frozen = optimizer.split(state.params)
        params = merge(jax.tree.map(jnp.add, trainable, changes), frozen)
        step = state.step + 1
        stepped = {
            "step": step,
            "params": params,
            "ema_params": ema_update(state.ema_params, params, step, optimizer.config.ema_decay),
            "opt_state": opt_state,
            "epoch_loss": state.epoch_loss + result.loss.astype(state.epoch_loss.dtype),
        }
        before = {name: getattr(state, name) for name in stepped}
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), stepped, before)
        # the norm is for reading; its slope at a zero gradient is infinite and must not enter derivatives
        norm = jnp.sqrt(jax.lax.stop_gradient(squared_norm))
        return dataclasses.replace(state, **kept), StepInfo(result.loss, result.terms, norm, finite)

    return update


def add_pull(optimizer: Optimizer, params: Params, result: LossGradient, hyper: Hyper) -> LossGradient:
    """Add the pull of ``hyper``, if there is one, to the loss and gradient of the labels."""
    pull = hyper.pull
    if pull is None:
        return result
    trainable, frozen = optimizer.split(params)
    value, gradient = jax.value_and_grad(lambda part: pull_loss(pull, merge(part, frozen)))(trainable)
    return result._replace(loss=result.loss + value, gradient=jax.tree.map(jnp.add, result.gradient, gradient))


def train_step(
    potential: Potential, optimizer: Optimizer, loss: Loss
) -> Callable[[TrainState, Batch, Hyper], tuple[TrainState, StepInfo]]:
    """Return ``(state, batch, hyper) -> (state, info)``: one optimiser step on one batch.

    Args:
        potential: to train.
        optimizer: of its parameters.
        loss: of a batch.
    """
    gradient = loss_gradient(ForceField(potential, loss), optimizer)
    update = apply_gradient(optimizer)

    def step(state: TrainState, batch: Batch, hyper: Hyper) -> tuple[TrainState, StepInfo]:
        counts = label_counts(batch.labels, batch.graph)
        return update(state, gradient(state.params, batch, hyper.weights, counts), hyper)

    return step


def fit(
    potential: Potential, optimizer: Optimizer, loss: Loss, *, checkpoint: bool = False
) -> Callable[[TrainState, Batch, Hyper], tuple[TrainState, StepInfo]]:
    """Return ``(state, batches, hyper) -> (state, infos)``: ``train_step`` over the leading axis of ``batches``.

    Args:
        potential: what to train.
        optimizer: its optimiser.
        loss: its loss.
        checkpoint: recompute every step when differentiating through the loop, instead of storing what is inside:
            one more evaluation of each step for memory that holds one step at a time.
    """
    step = train_step(potential, optimizer, loss)
    body = jax.checkpoint(step) if checkpoint else step

    def run(state: TrainState, batches: Batch, hyper: Hyper) -> tuple[TrainState, StepInfo]:
        return jax.lax.scan(lambda carry, batch: body(carry, batch, hyper), state, batches)

    return run


def accumulate(results: Iterable[LossGradient]) -> LossGradient:
    """Add up the results of micro-batches, all computed with the counts of the whole batch.

    Raises:
        ValueError: if there is none.
    """
    total = None
    for result in results:
        total = result if total is None else _add(total, result)
    if total is None:
        raise ValueError("there is no micro-batch to accumulate.")
    return total


@jax.jit
def _add(a: LossGradient, b: LossGradient) -> LossGradient:
    return jax.tree.map(jnp.add, a, b)
