"""Weight of each parameter for labels the model was trained on: the diagonal of the Fisher information."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.optim import Optimizer, merge
from mlipjax.train.batches import LabelledBatches
from mlipjax.train.objectives import Objective
from mlipjax.train.tasks import Prefactors, compiled_gradient
from mlipjax.typing import Params

MAX_STRUCTURES = 64
"""More structures hardly change the mean of squared gradients and cost one gradient each."""


def fisher_diagonal(
    objective: Objective,
    optimizer: Optimizer,
    params: Params,
    batches: LabelledBatches,
    weights: Any,
) -> Params:
    """Return the diagonal empirical Fisher information of the loss, scaled to a mean of 1 over trained parameters.

    ``F_i = mean_s (∂L_s/∂θ_i)²`` over structures ``s`` with their labels (Kirkpatrick et al., PNAS 114, 3521 (2017);
    "empirical" because the labels are given, not drawn from the model). Labels that the model itself made have no
    residual and hence no information. Scaled, the strength of the pull means the same for every loss and data set.

    Args:
        objective: the loss, of one structure at a time.
        optimizer: says which parameters are trained.
        params: where to evaluate: the pretrained weights.
        batches: structures; if there are more than ``MAX_STRUCTURES``, as many are taken at equal distances.
        weights: factors of the objective's terms.

    Returns:
        A tree like ``params``, 0 for frozen parameters.

    Raises:
        ValueError: if all gradients vanish or one is not finite.
    """
    single = _one_by_one(batches)
    total = None
    for plan in single.plans:
        batch = single.batch(plan)
        factors = Prefactors.constant(weights)
        result = compiled_gradient(objective, optimizer, params, batch, factors, objective.counts(batch))
        total = _square(result.gradient) if total is None else _add_square(total, result.gradient)
    leaves = jax.tree.leaves(total)
    mean = sum(float(jnp.sum(leaf)) for leaf in leaves) / sum(leaf.size for leaf in leaves)
    if not (np.isfinite(mean) and mean > 0.0):
        raise ValueError(
            f"the Fisher information of the {len(single.plans)} structures has the mean {mean:g}; it needs labels "
            "that the model does not reproduce exactly, and finite gradients."
        )
    _, frozen = optimizer.split(params)
    scaled = jax.tree.map(lambda leaf: leaf / jnp.asarray(mean, leaf.dtype), total)
    return merge(scaled, jax.tree.map(jnp.zeros_like, frozen))


def _one_by_one(batches: LabelledBatches) -> LabelledBatches:
    """Every structure in a batch of its own, all batches of one size: compiled once."""
    n = len(batches.dataset)
    chosen = np.unique(np.linspace(0, n - 1, min(n, MAX_STRUCTURES)).round().astype(int))
    widest = max(plan.n_neighbors for plan in batches.plans)
    longest = int(batches.tables.n_atoms[chosen].max())
    example = batches.plans[0]
    plans = tuple(
        dataclasses.replace(example, indices=(int(index),), n_atoms=longest, n_neighbors=widest, n_graphs=1)
        for index in chosen
    )
    return dataclasses.replace(batches, plans=plans, accumulate=1)


@jax.jit
def _square(gradient: Params) -> Params:
    return jax.tree.map(jnp.square, gradient)


@jax.jit
def _add_square(total: Params, gradient: Params) -> Params:
    return jax.tree.map(lambda a, b: a + b * b, total, gradient)
