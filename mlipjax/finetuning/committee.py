"""More fine-tunes like one that is ready to start, from other seeds: one program that is mapped over them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.devices import device_count, mesh_of_parts
from mlipjax.finetuning.frames import draw_batch
from mlipjax.finetuning.given import make_stacks
from mlipjax.finetuning.single import Preparation
from mlipjax.losses import label_counts
from mlipjax.potential import Model
from mlipjax.settings import FinetuneSettings
from mlipjax.train import NonFiniteError, TrainState
from mlipjax.train.step import apply_gradient, loss_gradient
from mlipjax.train.sweep import over_settings
from mlipjax.typing import Array, Bool, Key, Params

_MEMBERS = 0x4D45_4D42
"""Another stream than that of the fine-tune itself."""


def train_members(ready: Preparation, settings: FinetuneSettings, n: int) -> list[Model]:
    """Train as ``ready`` would be, ``n`` times, with frames in other orders; the last averaged parameters are kept.

    Args:
        ready: a fine-tune with one task.
        settings: of the same.
        n: members.

    Raises:
        ValueError: with replay, which is a task of its own.
        NonFiniteError: if a member diverges.
    """
    refuse_replay(ready)
    training = ready.training
    task, optimizer, steps = training.mixture.tasks[0], training.optimizer, training.config.steps
    gradient, update = loss_gradient(task.objective, optimizer), apply_gradient(optimizer)

    def member(key: Key, shared: Any) -> tuple[Params, Bool[Array, ""]]:
        params, stacks, weights, hyper = shared

        def step(state: TrainState, _: None) -> tuple[TrainState, Array]:
            batch = draw_batch(stacks, key, state.step)
            result = gradient(state.params, batch, weights, label_counts(batch.labels, batch.graph))
            state, info = update(state, result, hyper)
            return state, info.finite

        state, finite = jax.lax.scan(step, TrainState.create(params, optimizer, key), length=steps)
        return state.ema_params, jnp.all(finite)

    keys = jax.random.split(jax.random.fold_in(training.state.key, _MEMBERS), n)
    # on a CPU what is mapped side by side is too large for the cache
    mesh = mesh_of_parts(n)
    width = 1 if jax.default_backend() == "cpu" else -(-n // device_count(mesh))
    stacks = make_stacks(task.batches.potential, task.batches.dataset, task.batches.batch_size, settings.dtype)
    shared = training.state.params, tuple(stacks), task.prefactors.start, training.hyper
    devices = None if mesh is None else mesh.devices.ravel().tolist()
    params, finite = over_settings(member, width, devices)(keys, shared)
    if not np.all(finite):
        raise NonFiniteError("a loss or gradient of a member of the committee is not finite; lower the learning rate.")
    found = (jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(n))
    return [Model(ready.potential, jax.device_get(ready.strategy.detach(one))) for one in found]


def refuse_replay(ready: Preparation) -> None:
    """Raise ``ValueError`` for a fine-tune with more than one task, of which members cannot be trained."""
    if ready.training.mixture.tasks[1:]:
        raise ValueError("a committee is trained without replay; choose another strategy, or calibrate separate runs.")
