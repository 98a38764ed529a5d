"""The optimiser: clip, Adam, then learning rate times schedule times group multiplier; and the parameter average.

All numbers that a user may want to sweep over or differentiate with respect to are in ``Hyper``, an argument of
every update. Two steps differ from optax's stock versions in order to have derivatives everywhere: Adam keeps its
``eps`` inside the root (``m / sqrt(v + eps²)``: parameters without gradient have ``v = 0``, where the root of ``v``
alone has an infinite slope), and clipping divides by ``sqrt(max(|g|², max²))``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mlipjax.losses import LossWeights, Pull
from mlipjax.optim.directions import ADAM, Direction
from mlipjax.optim.groups import Rules, group_multipliers, split
from mlipjax.typing import Array, Params


@struct.dataclass
class Hyper:
    """Numbers of a training run; a pytree, so that they may be traced.

    Attributes:
        learning_rate: peak of the schedule.
        decay: layer-wise decay, the base of ``decay ** Group.power``.
        scales: (n_rules,) factor of each rule; 0 leaves its parameters where they are.
        weights: factors of the loss terms.
        pull: pull towards earlier parameters, if any; it may be traced like the rest.
    """

    learning_rate: float | Array
    decay: float | Array
    scales: tuple[float, ...] | Array
    weights: LossWeights
    pull: Pull | None = None


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Static configuration of an optimiser; its numbers are in ``Hyper``.

    Attributes:
        rules: parameter groups.
        total_steps, warmup_steps, schedule, final_factor: see ``schedule_factor``.
        clip: largest norm of the whole gradient.
        ema_decay: decay of the parameter average per step, once warmed up (``ema_update``).
        direction: of the steps.
    """

    rules: Rules
    total_steps: int
    warmup_steps: int = 0
    schedule: ScheduleName = "cosine"
    final_factor: float = 0.01
    clip: float = 1.0
    ema_decay: float = 0.999
    direction: Direction = ADAM


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """An optimiser as pure functions; it is its configuration, so that equal ones share compiled programs.

    ``init(params) -> opt_state``; ``split(params) -> (trainable, frozen)``;
    ``update(gradient, opt_state, hyper) -> (updates, opt_state)``, on trees with ``None`` for frozen leaves.

    Raises:
        ValueError: for a clip norm or an average's decay out of range, or a bad schedule.
    """

    config: OptimizerConfig

    def __post_init__(self) -> None:
        if not self.config.clip > 0.0:
            raise ValueError(f"clip must be a positive norm, found {self.config.clip}.")
        if not 0.0 <= self.config.ema_decay < 1.0:
            raise ValueError(f"ema_decay must lie in [0, 1), found {self.config.ema_decay}.")
        _ = self.transformation  # a bad schedule shows here

    @property
    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """Transformation that optax runs; made when it is needed, which is while tracing."""
        return optax.with_extra_args_support(
            optax.chain(
                clip_by_norm(self.config.clip),
                self.config.direction.transformation(),
                _scale_by_hyper(self.config),
            )
        )

    def init(self, params: Params) -> optax.OptState:
        """Return the state before the first step; frozen parameters have none."""
        return self.transformation.init(self.split(params)[0])

    def split(self, params: Params) -> tuple[Any, Any]:
        """Return ``(trainable, frozen)`` as ``groups.split`` does."""
        return split(params, self.config.rules)

    def update(self, gradient: Any, opt_state: optax.OptState, hyper: Hyper) -> tuple[Any, optax.OptState]:
        """Return what to add to the trainable parameters, and the next state."""
        return self.transformation.update(gradient, opt_state, None, hyper=hyper)


def clip_by_norm(max_norm: float) -> optax.GradientTransformation:
    """Scale the whole gradient down to ``max_norm`` if it is larger."""

    def update(updates, state, params=None):
        del params
        squared = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(updates))
        factor = max_norm / jnp.sqrt(jnp.maximum(squared, max_norm**2))
        return jax.tree.map(lambda leaf: leaf * factor.astype(leaf.dtype), updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


class _ScheduleState(NamedTuple):
    step: Array


def _scale_by_hyper(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
    """Multiply by ``-learning_rate * schedule(step) * group multiplier``: after Adam, which undoes earlier factors."""
    factor = schedule_factor(config.schedule, config.total_steps, config.warmup_steps, config.final_factor)

    def update(updates, state, params=None, **extra_args):
        del params
        hyper: Hyper = extra_args["hyper"]
        rate = hyper.learning_rate * factor(state.step)
        multipliers = group_multipliers(updates, config.rules, hyper.decay, hyper.scales)

        def scale(leaf, multiplier):
            return -jnp.asarray(rate * multiplier, leaf.dtype) * leaf

        return jax.tree.map(scale, updates, multipliers), _ScheduleState(state.step + 1)

    return optax.GradientTransformationExtraArgs(lambda params: _ScheduleState(jnp.zeros((), jnp.int32)), update)


def ema_update(average: Params, params: Params, step: Array, decay: float) -> Any:
    """Move the average towards ``params`` after update number ``step`` (counted from 1).

    The rate starts high, ``min(decay, (1 + step) / (10 + step))``: a fine-tune of a few hundred steps with
    ``decay = 0.999`` would otherwise return mostly the weights it started from. Where the two are equal (frozen
    leaves) the average does not change by a bit.

    Args:
        average: so far.
        params: after the update.
        step: () number of the update.
        decay: what is kept of the average, in the long run.
    """
    effective = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, p: a + jnp.asarray(1.0 - effective, a.dtype) * (p - a), average, params)


ScheduleName = Literal["cosine", "exponential", "constant"]


def schedule_factor(
    name: ScheduleName, total_steps: int, warmup_steps: int = 0, final_factor: float = 0.01
) -> optax.Schedule:
    """Return ``step -> factor``: linear warm-up to 1, then decay to ``final_factor`` at ``total_steps``.

    The factor of the very first step is ``1 / (warmup_steps + 1)``, not zero: no step is wasted.

    Args:
        name: shape after the warm-up; ``constant`` ignores ``final_factor``.
        total_steps: steps of the whole run; the factor stays at its last value afterwards.
        warmup_steps: steps of the warm-up, fewer than ``total_steps``.
        final_factor: value at the end, in (0, 1].

    Raises:
        ValueError: for step numbers or a final factor outside these ranges, or an unknown name.
    """
    if total_steps < 1 or not 0 <= warmup_steps < max(total_steps, 2):
        raise ValueError(f"need 0 <= warmup_steps < total_steps, found {warmup_steps} and {total_steps}.")
    if not 0.0 < final_factor <= 1.0:
        raise ValueError(f"final_factor must lie in (0, 1], found {final_factor}.")
    decay_steps = max(total_steps - warmup_steps, 1)
    if name == "cosine":
        decay = optax.cosine_decay_schedule(1.0, decay_steps, alpha=final_factor)
    elif name == "exponential":
        decay = optax.exponential_decay(1.0, decay_steps, final_factor, end_value=final_factor)
    elif name == "constant":
        decay = optax.constant_schedule(1.0)
    else:
        raise ValueError(f"unknown schedule {name!r}; choose cosine, exponential or constant.")
    if warmup_steps == 0:
        return decay
    warmup = optax.linear_schedule(1.0 / (warmup_steps + 1), 1.0, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])
