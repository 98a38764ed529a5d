"""Energy, force and stress loss of a batch: pure functions of a prediction and its labels.

Every term is a mean over what is labelled, of a penalty of the squared residual ``r²``::

    energy  r² = ((E - E_ref) / n)²          mean over structures      r in eV/atom
    forces  r² = |F - F_ref|² / 3            mean over atoms           r in eV/Å
    stress  r² = |σ - σ_ref|² / 9            mean over structures      r in eV/Å^3

The residuals enter as vector and tensor norms, so the loss does not depend on the orientation of a structure.
A missing label, a padding atom or a padding structure contributes exactly nothing to loss and gradient,
whatever numbers stand in its place (NaN included).

Two penalties: ``huber_loss`` (default), ``sqrt(r² + δ²) - δ``, is ``|r|`` beyond δ and quadratic below. Universal
potentials were trained with absolute or Huber losses (Nequix: absolute errors weighted 20 : 20 : 5 for energy,
forces, stress; MACE-MP: Huber with δ = 0.01), so a fine-tune continues the objective the weights were found
with, and a few frames with large errors do not take over the gradient. This smooth form has all derivatives
everywhere, which differentiation through whole training runs needs. ``mse_loss`` is ``r²``.

``Pull`` is a term of another kind: it depends on parameters alone and draws them back to where they started.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.graph import GraphBatch
from mlipjax.potential import Prediction
from mlipjax.system import Labels
from mlipjax.typing import Array, Float, Params

Penalty = Callable[[Array], Array]
"""Of squared residuals, elementwise."""


class LossTerms(NamedTuple):
    """One scalar for each term: means of penalties, sums of them, or numbers of labels."""

    energy: Array
    forces: Array
    stress: Array


@struct.dataclass
class LossWeights:
    """Factors of the three terms; arrays or floats, so that they may be traced.

    The defaults are Nequix's ratio for absolute errors, with which the published weights were trained.
    """

    energy: float | Array = 1.0
    forces: float | Array = 1.0
    stress: float | Array = 0.25


@struct.dataclass
class Pull:
    """A quadratic pull of the parameters towards an anchor, usually the pretrained weights.

    Without ``importance`` it is L2-SP (Li et al., ICML 2018, arXiv 1802.01483), with the diagonal Fisher information
    it is elastic weight consolidation (Kirkpatrick et al., PNAS 114, 3521 (2017), eq. 3).

    Attributes:
        strength: factor of the whole term.
        anchor: parameters to stay close to.
        importance: weight of every parameter in a tree like ``anchor``; ``None`` for 1 everywhere.
    """

    strength: float | Array
    anchor: Params
    importance: Params | None = None


def pull_loss(pull: Pull, params: Params) -> Array:
    """Return ``strength / 2 · Σ_i importance_i (θ_i - anchor_i)²``, a scalar."""

    def term(value: Array, anchor: Array, importance: Array | float) -> Array:
        return jnp.sum(importance * (value - anchor) ** 2)

    if pull.importance is None:
        terms = jax.tree.map(lambda value, anchor: term(value, anchor, 1.0), params, pull.anchor)
    else:
        terms = jax.tree.map(term, params, pull.anchor, pull.importance)
    return 0.5 * pull.strength * jnp.sum(jnp.stack(jax.tree.leaves(terms)))


@dataclasses.dataclass(frozen=True)
class Huber:
    """The smooth Huber penalty ``sqrt(r² + δ²) - δ`` of a squared residual ``r²``."""

    delta: float

    def __call__(self, squared: Array) -> Array:
        """Penalty, elementwise, without the cancellation of the formula at small r."""
        return squared / (jnp.sqrt(squared + self.delta**2) + self.delta)


@dataclasses.dataclass(frozen=True)
class Square:
    """The squared residual itself."""

    def __call__(self, squared: Array) -> Array:
        """Penalty, elementwise."""
        return squared


@dataclasses.dataclass(frozen=True)
class Loss:
    """A loss of a batch; a value, so that equal losses share compiled programs.

    Attributes:
        energy, forces, stress: penalties of the squared residuals.
    """

    energy: Penalty
    forces: Penalty
    stress: Penalty

    def __call__(
        self,
        prediction: Prediction,
        labels: Labels,
        graph: GraphBatch,
        weights: LossWeights,
        counts: LossTerms | None = None,
    ) -> tuple[Array, LossTerms]:
        """Weighted loss and its unweighted terms, all scalars.

        Args:
            prediction: of ``graph``.
            labels: batched, (G,), (N, 3), (G, 3, 3); energies without isolated-atom energies, like predictions.
            graph: the batch.
            weights: factors of the terms.
            counts: denominators; ``None`` for this batch's own ``label_counts``.
        """
        masks = _masks(labels, graph)
        penalties = (self.energy, self.forces, self.stress)
        label_weights = LossTerms(labels.energy_weight, labels.forces_weight[graph.graph_index], labels.stress_weight)
        counts = label_counts(labels, graph) if counts is None else counts
        terms = LossTerms(
            *(
                jnp.sum(jnp.where(mask, weight * penalty(squared), 0.0)) / jnp.maximum(count, 1.0)
                for squared, penalty, mask, weight, count in zip(
                    _squared_residuals(prediction, labels, graph, masks), penalties, masks, label_weights, counts,
                    strict=True,
                )
            )
        )  # fmt: skip
        total = weights.energy * terms.energy + weights.forces * terms.forces + weights.stress * terms.stress
        return total, terms


def huber_loss(energy_delta: float = 1e-3, forces_delta: float = 1e-2, stress_delta: float = 1e-4) -> Loss:
    """Loss with the smooth Huber penalty ``sqrt(r² + δ²) - δ``.

    Args:
        energy_delta: δ in eV/atom; like the others the size of error that counts as small.
        forces_delta: δ in eV/Å.
        stress_delta: δ in eV/Å^3.
    """
    return Loss(Huber(energy_delta), Huber(forces_delta), Huber(stress_delta))


def mse_loss() -> Loss:
    """Loss with the squared residual as penalty; terms in (eV/atom)², (eV/Å)², (eV/Å^3)²."""
    return Loss(Square(), Square(), Square())


def label_counts(labels: Labels, graph: GraphBatch) -> LossTerms:
    """Count the labels of a batch: structures with an energy, atoms with forces, structures with a stress.

    They are the denominators of the loss. Micro-batches that are given the summed counts of the whole batch have
    losses and gradients that add up to the whole batch's.
    """
    masks = _masks(labels, graph)
    return LossTerms(*(jnp.sum(mask).astype(graph.positions.dtype) for mask in masks))


def _masks(labels: Labels, graph: GraphBatch) -> LossTerms:
    """Masks of the structures (energy, stress) and atoms (forces) that count."""
    energy = graph.graph_mask & (labels.energy_weight > 0)
    forces = graph.atom_mask & (labels.forces_weight > 0)[graph.graph_index]
    stress = graph.graph_mask & (labels.stress_weight > 0)
    return LossTerms(energy, forces, stress)


def _squared_residuals(prediction: Prediction, labels: Labels, graph: GraphBatch, masks: LossTerms) -> LossTerms:
    """``r²`` of every structure or atom; 0, with zero gradient, where the mask is false."""
    energy = jnp.where(masks.energy, prediction.energy - labels.energy, 0.0)
    energy = energy / jnp.maximum(graph.n_atoms, 1).astype(energy.dtype)
    forces = jnp.where(masks.forces[:, None], prediction.forces - labels.forces, 0.0)
    stress = jnp.where(masks.stress[:, None, None], prediction.stress - labels.stress, 0.0)
    return LossTerms(energy**2, _mean_square(forces, 1), _mean_square(stress, 2))


def _mean_square(values: Float[Array, "..."], n_axes: int) -> Float[Array, "..."]:
    return jnp.mean(values**2, axis=tuple(range(-n_axes, 0)))
