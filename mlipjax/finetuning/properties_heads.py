"""The head of a property: added to a potential, and set up by the data it will be trained on."""

from __future__ import annotations

import jax
import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.properties import targets
from mlipjax.nn.readouts import STATISTICS, PropertyHead
from mlipjax.potential import Model, Potential, property_inputs
from mlipjax.train import LabelledBatches
from mlipjax.typing import Key, Params

_MEASURED = 512


def add_property(model: Model, head: PropertyHead, key: Key) -> Model:
    """Return the model with one more property head, freshly initialised; all else is as it was.

    Raises:
        ValueError: if the potential has a property of that name.
    """
    potential, params = model
    if head.name in {other.name for other in potential.properties}:
        raise ValueError(f"the model predicts {head.name!r} already; give the new property another name.")
    dtype = jax.tree.leaves(params)[0].dtype
    potential = potential.replace(properties=(*potential.properties, head))
    fresh = potential.init_property(key, head.name, dtype)
    # the same leaf order as a model that was initialised with this head
    leaves = sorted(tree.flatten_paths({**params, head.group: fresh}).items())
    return Model(potential, tree.unflatten_paths(dict(leaves)))


def target_moments(data: Dataset, key: str, kind: str) -> tuple[float, float]:
    """Mean and standard deviation of a property, per atom if it is extensive.

    Raises:
        ValueError: if all values are equal.
    """
    values = targets(data, key)
    if kind == "extensive":
        values = values / np.array([system.n_atoms for system in data.systems])
    if len(values) < 2 or not np.std(values) > 0.0:
        raise ValueError(f"{key!r} takes one value only in {len(values)} structures: there is nothing to learn.")
    return float(np.mean(values)), float(np.std(values))


def standardise_inputs(potential: Potential, params: Params, head: PropertyHead, batches: LabelledBatches) -> Params:
    """Return parameters in which the head's statistics are those of its inputs on training structures (some 500).

    A channel that hardly varies is divided by a hundredth of the largest deviation, not by its own.
    """
    plans = batches.plans
    count = -(-_MEASURED // max(plan.n_graphs for plan in plans))
    chosen = np.unique(np.linspace(0, len(plans) - 1, min(count, len(plans))).round().astype(int))
    # one shape: the others would be compiled for a few batches only
    shape = plans[chosen[0]].n_atoms, plans[chosen[0]].n_neighbors
    found = [
        jax.device_get(property_inputs(potential, params, batches.batch(plan).graph, head))
        for plan in (plans[index] for index in chosen)
        if (plan.n_atoms, plan.n_neighbors) == shape
    ]
    n, total, squares = (np.sum([np.asarray(part[i], np.float64) for part in found], axis=0) for i in range(3))
    mean = total / n
    std = np.sqrt(np.maximum(squares / n - mean**2, 0.0))
    std = np.maximum(std, max(0.01 * std.max(), 1e-6))
    dtype = jax.tree.leaves(params)[0].dtype
    statistics = {"mean": jax.numpy.asarray(mean, dtype), "std": jax.numpy.asarray(std, dtype)}
    return {**params, head.group: {**params[head.group], STATISTICS: statistics}}
