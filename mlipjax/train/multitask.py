"""Several tasks on one backbone: each has its data, head, loss and batch size; a mixture says which one trains when.

S3 (arXiv 2601.08486) draws one task for every optimiser step, force field and property with probability 1/2 each; a
weighted sum of all tasks in every step is the alternative. Gradient and update of every task are compiled once, when
the task first comes up, and never again: changing tasks changes which compiled function is called.

In a step that was drawn for one task, parameters that only other tasks use (their heads), and the optimiser's moments
of them, stay as they are: with a zero gradient Adam would go on moving them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax import tree
from mlipjax.optim import Hyper, Optimizer, merge, schedule_factor
from mlipjax.train.state import TrainState
from mlipjax.train.step import LossGradient, StepInfo, accumulate, apply_gradient
from mlipjax.typing import Array, Key, Params


@struct.dataclass
class Prefactors:
    """Factors of a task's loss terms that move with the learning rate, from ``start`` to ``limit``.

    ``p(t) = limit + (start - limit) · lr(t) / lr(0)``, as in DeePMD-kit; equal trees of numbers.
    """

    start: Any
    limit: Any

    @classmethod
    def constant(cls, value: Any) -> Prefactors:
        """Factors that do not move."""
        return cls(value, value)

    def at(self, factor: Array) -> Any:
        """Factors when the learning rate is ``factor`` times its peak."""
        return jax.tree.map(lambda start, limit: limit + (start - limit) * factor, self.start, self.limit)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One thing a model learns.

    Attributes:
        name: in logs.
        groups: parameter groups (first part of a path) that only this task trains: its head.
        objective: ``(params, batch, prefactors) -> (loss, terms)``, pure; ``terms`` is a mapping of scalars. Losses of
            micro-batches add up to that of their union. Tasks with the same function share compiled programs.
        batches: ``number -> micro-batches`` of the task's step ``number`` (counted from 0 over its own steps): a
            function of the number and of nothing else.
        prefactors: of the loss terms.
        share: probability, or weight in the sum.
        evaluate: ``params -> errors`` on validation data, ``None`` without any.
    """

    name: str
    groups: tuple[str, ...]
    objective: Callable[[Params, Any, Any], tuple[Array, Mapping[str, Array]]]
    batches: Callable[[int], Sequence[Any]]
    prefactors: Prefactors
    share: float = 1.0
    evaluate: Callable[[Params], dict[str, float]] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """Tasks, and how they share the optimiser's steps.

    Attributes:
        tasks: with different names.
        kind: "draw" (one task per step, with probabilities ``share``) or "sum" (all of them, weighted by ``share``).
    """

    tasks: tuple[Task, ...]
    kind: Literal["draw", "sum"] = "draw"

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"a mixture needs tasks of different names, found {names}.")
        if self.kind not in ("draw", "sum") or any(not task.share > 0.0 for task in self.tasks):
            raise ValueError(f"a mixture draws or sums tasks with positive shares, found {self.kind!r}.")

    def turns(self, key: Key, total_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Which task each step is for, and how often that task came before: two (total_steps,) integer arrays.

        Drawn from key alone. For a sum the first is 0 throughout and the second the step.
        """
        if self.kind == "sum":
            return np.zeros(total_steps, int), np.arange(total_steps)
        shares = np.array([task.share for task in self.tasks])
        rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, 0x7A))))
        drawn = rng.choice(len(shares), total_steps, p=shares / shares.sum())
        before = np.zeros(total_steps, int)
        for index in range(len(shares)):
            mine = drawn == index
            before[mine] = np.arange(int(mine.sum()))
        return drawn, before


class TaskStep(NamedTuple):
    """What a step reports: of each task that took part, its unweighted terms; and of the step as a whole."""

    terms: dict[str, Mapping[str, Array]]
    info: StepInfo


@dataclasses.dataclass(frozen=True, eq=False)
class MixtureProgram:
    """A mixture and its optimiser.

    Attributes:
        mixture: the tasks.
        optimizer: shared by them.
    """

    mixture: Mixture
    optimizer: Optimizer

    def step(self, state: TrainState, turn: int, number: int, hyper: Hyper) -> tuple[TrainState, TaskStep]:
        """One optimiser step: task ``turn`` on its batches ``number``, or all tasks on theirs."""
        tasks = self.mixture.tasks
        if self.mixture.kind == "draw":
            result = self._gradient(tasks[turn], state, number)
            state, info = _update(self.optimizer, self._strangers(tasks[turn]), state, result, hyper)
            return state, TaskStep({tasks[turn].name: result.terms}, info)  # pyright: ignore[reportArgumentType]
        results = {task.name: self._gradient(task, state, number) for task in tasks}
        total = _weighted_sum(list(results.values()), [task.share for task in tasks])
        state, info = _update(self.optimizer, frozenset(), state, total, hyper)
        return state, TaskStep({name: r.terms for name, r in results.items()}, info)  # pyright: ignore[reportArgumentType]

    def _gradient(self, task: Task, state: TrainState, number: int) -> LossGradient:
        return accumulate(
            _gradient(task.objective, self.optimizer, state.params, state.step, part, task.prefactors)
            for part in task.batches(number)
        )

    def _strangers(self, task: Task) -> frozenset[str]:
        """Parameter groups that belong to other tasks alone."""
        others = (group for other in self.mixture.tasks if other.name != task.name for group in other.groups)
        return frozenset(others) - {*task.groups}


@functools.partial(jax.jit, static_argnums=(0, 1))
def _gradient(
    objective: Callable[..., Any], optimizer: Optimizer, params: Params, step: Array, batch: Any, prefactors: Prefactors
) -> LossGradient:
    """The gradient of a task; runs that differ in seeds or data only share the program."""
    config = optimizer.config
    factor = schedule_factor(config.schedule, config.total_steps, config.warmup_steps, config.final_factor)
    weights = prefactors.at(jnp.asarray(factor(step), jax.tree.leaves(params)[0].dtype))
    trainable, frozen = optimizer.split(params)

    def loss(part: Any) -> tuple[Array, Mapping[str, Array]]:
        return objective(merge(part, frozen), batch, weights)

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(trainable)
    return LossGradient(value, terms, gradient)  # pyright: ignore[reportArgumentType]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(
    optimizer: Optimizer, strangers: frozenset[str], state: TrainState, result: LossGradient, hyper: Hyper
) -> tuple[TrainState, StepInfo]:
    """The update of a step to which parameter groups are strangers: they and their moments stay bit for bit."""
    after, info = apply_gradient(optimizer)(state, result, hyper)

    def choose(path: Any, old: Array, new: Array) -> Array:
        stranger = any(isinstance(part, jax.tree_util.DictKey) and part.key in strangers for part in path)
        return old if stranger else new

    kept = {
        name: jax.tree_util.tree_map_with_path(choose, getattr(state, name), getattr(after, name))
        for name in ("params", "ema_params", "opt_state")
    }
    return dataclasses.replace(after, **kept), info


def _weighted_sum(results: Sequence[LossGradient], weights: Sequence[float]) -> LossGradient:
    def scaled(result: LossGradient, weight: float) -> LossGradient:
        scale = lambda leaf: weight * leaf  # noqa: E731
        return result._replace(loss=weight * result.loss, terms=(), gradient=jax.tree.map(scale, result.gradient))  # pyright: ignore[reportArgumentType]

    return accumulate([scaled(r, w) for r, w in zip(results, weights, strict=True)])


def check_groups(mixture: Mixture, params: Params) -> None:
    """Raise ``ValueError`` if a task names a parameter group that the model does not have."""
    present = {path.split("/")[0] for path in tree.flatten_paths(params)}
    for task in mixture.tasks:
        if missing := sorted(set(task.groups) - present):
            raise ValueError(f"task {task.name!r} trains {missing[0]!r}, which is no parameter of the model.")
