"""The state of a training run, and one batch of labelled structures."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.graph import GraphBatch
from mlipjax.optim import Optimizer
from mlipjax.system import Labels
from mlipjax.typing import Array, Key, Params


@struct.dataclass
class Batch:
    """Structures and their labels, padded alike.

    Attributes:
        graph: the structures.
        labels: (G,), (N, 3) and (G, 3, 3); energies without isolated-atom energies; properties (G,) or (N, 3).
    """

    graph: GraphBatch
    labels: Labels

    def blank(self) -> Batch:
        """Return a batch of the same shape that contributes nothing to any loss."""
        graph = self.graph
        nothing = {name: np.zeros_like(getattr(graph, name)) for name in ("graph_mask", "atom_mask")}
        return dataclasses.replace(self, graph=dataclasses.replace(graph, **nothing))


@struct.dataclass
class TrainState:
    """Everything needed to go on with a run as if it had never stopped; the carry of compiled training loops.

    The order of frames is not stored: it is a function of ``key`` and ``step`` (``batches.steps``).

    Attributes:
        step: () int32, optimiser steps done.
        params: parameters.
        ema_params: their moving average, which is validated and saved.
        opt_state: of the optimiser.
        key: PRNG key of the run, never split.
        epoch_loss: () sum of the losses of the steps of the current epoch.
        best_metric: () lowest validation metric so far, infinite before the first validation.
        best_epoch: () int32, epoch of ``best_metric``: the steps between two validations are one; 0 before the first.
        best_params: averaged parameters of ``best_epoch``.
    """

    step: Array
    params: Params
    ema_params: Params
    opt_state: Any
    key: Key
    epoch_loss: Array
    best_metric: Array
    best_epoch: Array
    best_params: Params

    @classmethod
    def create(cls, params: Params, optimizer: Optimizer, key: Key) -> TrainState:
        """State before the first step."""
        dtype = jax.tree.leaves(params)[0].dtype
        params = jax.tree.map(jnp.asarray, params)
        return cls(
            step=jnp.zeros((), jnp.int32),
            params=params,
            ema_params=params,
            opt_state=optimizer.init(params),
            key=key,
            epoch_loss=jnp.zeros((), dtype),
            best_metric=jnp.full((), jnp.inf, dtype),
            best_epoch=jnp.zeros((), jnp.int32),
            best_params=params,
        )
