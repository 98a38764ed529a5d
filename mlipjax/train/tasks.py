"""Several tasks on one backbone: each has its data, loss, head and batch size; a mixture says which one trains when.

S3 (arXiv 2601.08486) draws one task for every optimiser step, force field and property with probability 1/2 each; a
weighted sum of all tasks in every step is the alternative, and what replay is: the loss of replayed structures added
to that of the target. Gradient and update of every task are compiled once, when the task first comes up, and never
again: changing tasks changes which compiled function is called.

In a step that was drawn for one task, parameters that only other tasks use (their heads), and the optimiser's moments
of them, stay as they are: with a zero gradient Adam would go on moving them.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.sharding import Mesh

from mlipjax import tree
from mlipjax.devices import AXIS, SHARE, WHOLE, device_count, over_devices, side_by_side
from mlipjax.graph import BatchPlan
from mlipjax.optim import Hyper, Optimizer, schedule_factor
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.objectives import Objective, total_counts
from mlipjax.train.state import Batch, TrainState
from mlipjax.train.step import LossGradient, StepInfo, accumulate, apply_gradient, loss_gradient
from mlipjax.typing import Array, Key, Params


@struct.dataclass
class Prefactors:
    """Factors of an objective's terms that move with the learning rate, from ``start`` to ``limit``.

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


class Drawn(NamedTuple):
    """Data of one step of a task: planned structures, micro-batches of them, and the counts of all together."""

    task: Task
    plans: Sequence[BatchPlan]
    parts: Sequence[Batch]
    counts: Any


def labelled(batches: LabelledBatches, plans: Sequence[BatchPlan], key: Key, number: int) -> list[Batch]:
    """Put structures together as they are; neither key nor number matters."""
    return [batches.batch(plan) for plan in plans]


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One thing a model learns.

    Its steps are numbered by themselves; what a step sees is a function of key and number, and of nothing else.

    Attributes:
        name: in logs.
        objective: its loss.
        batches: its structures.
        key: of their order, and of whatever else is random.
        groups: parameter groups (first part of a path) that only this task trains: its head.
        prefactors: of the objective's terms.
        share: probability of its turn, or weight in the sum.
        errors: ``params -> errors`` on validation data, ``None`` without any.
        draw: puts the micro-batches of a step together, by key and number if something in them is random.
    """

    name: str
    objective: Objective
    batches: LabelledBatches
    key: Key
    groups: tuple[str, ...] = ()
    prefactors: Prefactors = dataclasses.field(default_factory=lambda: Prefactors.constant(1.0))
    share: float = 1.0
    errors: Callable[[Params], dict[str, float]] | None = None
    draw: Callable[[LabelledBatches, Sequence[BatchPlan], Key, int], list[Batch]] = labelled

    def steps(self, first: int = 0) -> Iterator[Drawn]:
        """One step after the other, without end, from number ``first`` on."""
        for number, plans in enumerate(self.batches.steps(self.key, first), first):
            parts = self.draw(self.batches, plans, self.key, number)
            yield Drawn(self, plans, parts, total_counts(self.objective, parts))


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
        if len({task.batches.mesh for task in self.tasks}) > 1:
            mesh = self.mesh
            alike = (dataclasses.replace(t, batches=dataclasses.replace(t.batches, mesh=mesh)) for t in self.tasks)
            object.__setattr__(self, "tasks", tuple(alike))

    @property
    def mesh(self) -> Mesh | None:
        """Devices that share every step: those of the task that uses most."""
        return max((task.batches.mesh for task in self.tasks), key=device_count)

    def turns(self, key: Key, total_steps: int) -> np.ndarray:
        """Return the task that each step is for, drawn from ``key`` alone: (total_steps,) integers."""
        shares = np.array([task.share for task in self.tasks])
        rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, 0x7A))))
        return rng.choice(len(shares), total_steps, p=shares / shares.sum())

    def steps(self, key: Key, total_steps: int, done: int = 0) -> Iterator[tuple[Drawn, ...]]:
        """Yield what every step of a run is on from step ``done`` on: the one task whose turn it is, or all of them."""
        if self.kind == "sum":
            yield from itertools.islice(
                zip(*(task.steps(done) for task in self.tasks), strict=True), total_steps - done
            )
            return
        turns = self.turns(key, total_steps)
        sources = [task.steps(int(np.sum(turns[:done] == index))) for index, task in enumerate(self.tasks)]
        for turn in turns[done:]:
            yield (next(sources[turn]),)

    def strangers(self, drawn: Sequence[Drawn]) -> frozenset[str]:
        """Parameter groups that belong to tasks alone whose turn it is not."""
        mine = {group for one in drawn for group in one.task.groups}
        return frozenset(group for task in self.tasks for group in task.groups) - mine

    def check_groups(self, params: Params) -> None:
        """Raise ``ValueError`` if a task names a parameter group that the model does not have."""
        present = {path.split("/")[0] for path in tree.flatten_paths(params)}
        for task in self.tasks:
            if missing := sorted(set(task.groups) - present):
                raise ValueError(f"task {task.name!r} trains {missing[0]!r}, which is no parameter of the model.")


def mixture_step(
    mixture: Mixture, optimizer: Optimizer, state: TrainState, drawn: Sequence[Drawn], hyper: Hyper
) -> tuple[TrainState, StepInfo]:
    """One optimiser step on what was drawn; ``info.terms`` are the unweighted terms of each task, by its name.

    Args:
        mixture: how tasks share a step.
        optimizer: of the parameters that all tasks share.
        state: before the step.
        drawn: batches, each with its task and share.
        hyper: learning rate, loss weights and the like.
    """
    results = {one.task.name: _task_gradient(one, optimizer, state) for one in drawn}
    loss, gradient = results[drawn[0].task.name].loss, results[drawn[0].task.name].gradient
    if len(drawn) > 1:
        pairs = [(result.loss, result.gradient) for result in results.values()]
        loss, gradient = _weighted_sum(pairs, [one.task.share for one in drawn])
    terms = {name: result.terms for name, result in results.items()}
    return _update(optimizer, mixture.strangers(drawn), state, LossGradient(loss, terms, gradient), hyper)


def _task_gradient(drawn: Drawn, optimizer: Optimizer, state: TrainState) -> LossGradient:
    """Micro-batch by micro-batch, those of all devices side by side, the gradient of one large batch."""
    task, mesh = drawn.task, drawn.task.batches.mesh
    compute = compiled_gradient if mesh is None else functools.partial(divided_gradient, mesh)
    arguments = (task.prefactors, drawn.counts, state.step)
    return accumulate(
        compute(task.objective, optimizer, state.params, part, *arguments)
        for part in shares_together(drawn.parts, mesh)
    )


def shares_together(parts: Sequence[Batch], mesh: Mesh | None) -> Iterator[Batch]:
    """Join micro-batches of one shape, one for each device of a mesh, along a leading axis; blank ones fill up.

    Args:
        parts: micro-batches; those of one shape follow each other.
        mesh: of devices; without one the micro-batches are as they were.
    """
    if mesh is None:
        yield from parts
        return
    for _, found in itertools.groupby(parts, lambda part: (part.graph.sizes, jax.tree.structure(part))):
        alike = list(found)
        alike += [alike[-1].blank()] * (-len(alike) % mesh.size)
        for start in range(0, len(alike), mesh.size):
            yield side_by_side(alike[start : start + mesh.size], mesh)


@functools.partial(jax.jit, static_argnums=(0, 1))
def compiled_gradient(
    objective: Objective,
    optimizer: Optimizer,
    params: Params,
    batch: Batch,
    prefactors: Prefactors,
    counts: Any,
    step: Array | int = 0,
) -> LossGradient:
    """``step.loss_gradient``, compiled; runs that differ in seeds or data only share the program.

    Args:
        objective: what is learned.
        optimizer: says what is trained, and how the learning rate moves.
        params: parameters.
        batch: a micro-batch.
        prefactors: of the objective's terms.
        counts: of all micro-batches together.
        step: optimiser steps done, which the prefactors follow.
    """
    config = optimizer.config
    factor = schedule_factor(config.schedule, config.total_steps, config.warmup_steps, config.final_factor)
    weights = prefactors.at(jnp.asarray(factor(step), jax.tree.leaves(params)[0].dtype))
    return loss_gradient(objective, optimizer)(params, batch, weights, counts)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def divided_gradient(
    mesh: Mesh, objective: Objective, optimizer: Optimizer, params: Params, batches: Batch, *numbers: Any
) -> LossGradient:
    """Return the sum of ``compiled_gradient`` over the micro-batches of all devices.

    Args:
        mesh: of devices.
        objective, optimizer, params: of ``compiled_gradient``.
        batches: one micro-batch for each device along a leading axis.
        *numbers: prefactors, counts and step.
    """

    def share(params: Params, batch: Batch, numbers: Any) -> LossGradient:
        part = jax.tree.map(lambda leaf: leaf[0], batch)
        return jax.lax.psum(compiled_gradient(objective, optimizer, params, part, *numbers), AXIS)

    return over_devices(share, mesh, (WHOLE, SHARE, WHOLE), WHOLE)(params, batches, numbers)


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


@jax.jit
def _weighted_sum(results: Sequence[tuple[Array, Any]], weights: Sequence[float]) -> tuple[Array, Any]:
    def total(*leaves: Array) -> Array:
        return sum(
            (weight * leaf for weight, leaf in zip(weights, leaves, strict=True)), start=jnp.zeros_like(leaves[0])
        )

    return jax.tree.map(total, *results)
