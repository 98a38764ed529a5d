"""Objectives of training: energies and forces, a property of structures, taking noise out of positions.

An objective is the loss of a batch, and a value: tasks with equal ones share compiled programs. All of them are sums
over what is labelled, divided by counts; micro-batches that are given the counts of all have losses that add up.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph import BatchPlan
from mlipjax.losses import Huber, Loss, LossTerms, LossWeights
from mlipjax.nn.readouts import PropertyHead
from mlipjax.potential import Potential
from mlipjax.system import Labels
from mlipjax.train.batches import LabelledBatches, make_batch
from mlipjax.train.state import Batch
from mlipjax.typing import Array, Key, Params

_CUT = 2.5
"""Standard deviations at which the components of a displacement are cut off."""


class Objective(Protocol):
    """A loss to be made small."""

    def counts(self, batch: Batch) -> Any:
        """Denominators of the loss."""
        ...

    def __call__(self, params: Params, batch: Batch, weights: Any, counts: Any) -> tuple[Array, Any]:
        """Return the weighted loss and its unweighted terms, a ``NamedTuple`` of scalars."""
        ...


def total_counts(objective: Objective, parts: Iterable[Batch]) -> Any:
    """Denominators of the loss of all micro-batches together."""
    return jax.tree.map(lambda *counts: np.sum(counts, dtype=counts[0].dtype), *map(objective.counts, parts))


@dataclasses.dataclass(frozen=True)
class ForceField:
    """Energies, forces and stresses, with a loss of their errors and ``LossWeights``."""

    potential: Potential
    loss: Loss

    def counts(self, batch: Batch) -> LossTerms:
        """``losses.label_counts`` on the host, for arrays that are there: no program, no transfer."""
        labels, graph = batch.labels, batch.graph
        masks = (
            graph.graph_mask & (labels.energy_weight > 0),
            graph.atom_mask & (labels.forces_weight > 0)[graph.graph_index],
            graph.graph_mask & (labels.stress_weight > 0),
        )
        return LossTerms(*(_count(mask, batch) for mask in masks))

    def __call__(
        self, params: Params, batch: Batch, weights: LossWeights, counts: LossTerms
    ) -> tuple[Array, LossTerms]:
        """Return ``losses.Loss`` of the batch."""
        return self.loss(self.potential.apply(params, batch.graph), batch.labels, batch.graph, weights, counts)


class PropertyTerms(NamedTuple):
    """Mean penalty, and mean absolute error in the property's unit."""

    loss: Array
    mae: Array


@dataclasses.dataclass(frozen=True)
class PropertyValue:
    """One number per structure: the mean over structures of ``sqrt(r² + δ²) - δ``.

    The residual ``r`` is in standard deviations of the training values (for an extensive property: per atom).

    Attributes:
        potential: with ``head`` among its properties.
        head: which property.
        delta: δ, the size of residual that counts as small.
    """

    potential: Potential
    head: PropertyHead
    delta: float = 0.1

    def counts(self, batch: Batch) -> Any:
        """Number of structures."""
        return _count(batch.graph.graph_mask, batch)

    def __call__(self, params: Params, batch: Batch, weights: Array, counts: Array) -> tuple[Array, PropertyTerms]:
        """Return the loss, ``weights`` times the mean penalty."""
        head, graph = self.head, batch.graph
        found = self.potential.property_values(params, graph)[head.name]
        scale = jnp.maximum(graph.n_atoms, 1).astype(found.dtype) if head.kind == "extensive" else 1.0
        error = (found - batch.labels.properties[head.name]) / (head.std * scale)
        residual = jnp.where(graph.graph_mask, error, 0.0)
        term = jnp.sum(Huber(self.delta)(residual**2)) / counts
        return weights * term, PropertyTerms(term, head.std * jnp.sum(jnp.abs(residual)) / counts)


class NoiseTerms(NamedTuple):
    """Mean squared error of displacements over their standard deviation."""

    mse: Array


@dataclasses.dataclass(frozen=True)
class Denoising:
    """Prediction of how the atoms of a structure were displaced: mean squared error over atoms and components.

    The displacements are in units of their standard deviation, so a network that predicts zero has an error near 1
    (Zaidi et al., ICLR 2023, arXiv 2206.00133). They are drawn anew in every step and need no labels: alone, this is
    S3's self-supervised pretraining.

    Attributes:
        potential: with ``head`` among its properties.
        head: a vector.
        noise: Å, standard deviation of the displacements.

    Raises:
        ValueError: if the noise is zero or the head is no vector.
    """

    potential: Potential
    head: PropertyHead
    noise: float

    def __post_init__(self) -> None:
        if not self.noise > 0.0 or self.head.kind != "vector":
            raise ValueError(f"denoising needs noise and a vector head, found {self.noise} Å and {self.head.kind!r}.")

    @property
    def reach(self) -> float:
        """Å by which two atoms come closer at most: each is displaced towards the other as far as it goes."""
        return 2.0 * _CUT * 3.0**0.5 * self.noise

    def draw(self, batches: LabelledBatches, plans: Sequence[BatchPlan], key: Key, number: int) -> list[Batch]:
        """Put displaced structures together: what a task of this objective trains on (``Task.draw``).

        Displacements are normal, cut off at 2.5 standard deviations per component, and a function of key and number. A
        network is told nothing of where an atom was: the table is that of the displaced positions.
        """
        rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, number))))
        return [self._displaced(batches, plan, rng) for plan in plans]

    def _displaced(self, batches: LabelledBatches, plan: BatchPlan, rng: np.random.Generator) -> Batch:
        systems = [batches.dataset.systems[index] for index in plan.indices]
        drawn = [np.clip(rng.normal(size=system.positions.shape), -_CUT, _CUT) for system in systems]
        return make_batch(
            self.potential,
            [
                dataclasses.replace(system, positions=system.positions + self.noise * step)
                for system, step in zip(systems, drawn, strict=True)
            ],
            [Labels.create(len(step), properties={self.head.name: step}) for step in drawn],
            **plan.sizes,
            dtype=batches.dtype,
        )

    def counts(self, batch: Batch) -> Any:
        """Number of components."""
        return 3 * _count(batch.graph.atom_mask, batch)

    def __call__(self, params: Params, batch: Batch, weights: Array, counts: Array) -> tuple[Array, NoiseTerms]:
        """Return the loss, ``weights`` times the mean squared error."""
        found = self.potential.property_values(params, batch.graph)[self.head.name]
        error = jnp.where(batch.graph.atom_mask[:, None], found - batch.labels.properties[self.head.name], 0.0)
        term = jnp.sum(error**2) / counts
        return weights * term, NoiseTerms(term)


def _count(mask: Any, batch: Batch) -> Any:
    return np.sum(mask, dtype=batch.graph.positions.dtype)
