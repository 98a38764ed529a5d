"""Per-element principal-component charts of atomic features, and the Q-residual of an atom against its chart.

``Q = |x - mean - P P^T (x - mean)|^2`` with the leading principal components ``P`` of the training atoms of the same
element (Jackson & Mudholkar, Technometrics 21, 341 (1979)); the paper this follows pools SOAP vectors, here the
model's own features are charted, so that the chart costs nothing inside MD.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.typing import Array, Float, Int


@struct.dataclass
class MonitorState:
    """Charts of S elements.

    Attributes:
        mean: (S, F) mean feature of each element.
        components: (S, P, F) orthonormal principal components.
        eigenvalues: (S, P) variances along them.
        count: (S,) training atoms; an element without any has a zero chart, and its atoms have no Q.
    """

    mean: Float[Array, "S F"]
    components: Float[Array, "S P F"]
    eigenvalues: Float[Array, "S P"]
    count: Float[Array, " S"]

    @classmethod
    def empty(cls, n_species: int, n_features: int, n_components: int, dtype: jnp.dtype) -> MonitorState:
        """Charts of nothing."""
        return cls(
            mean=jnp.zeros((n_species, n_features), dtype),
            components=jnp.zeros((n_species, n_components, n_features), dtype),
            eigenvalues=jnp.zeros((n_species, n_components), dtype),
            count=jnp.zeros((n_species,), dtype),
        )


def fit_charts(
    features: Float[Array, "M F"],
    species: Int[Array, " M"],
    weights: Float[Array, " M"],
    n_species: int,
    n_components: int,
) -> MonitorState:
    """Fit one chart per element; no gradient passes through.

    Args:
        features: of M atoms.
        species: element row of each atom.
        weights: 1 for atoms that count, 0 for others.
        n_species: number of charts S.
        n_components: principal components P, at most F.
    """
    features = jax.lax.stop_gradient(features)

    def chart(row: Array) -> tuple[Array, Array, Array, Array]:
        weight = jnp.where(species == row, weights, 0.0)
        count = jnp.sum(weight)
        total = jnp.maximum(count, 1.0)
        mean = weight @ features / total
        centred = (features - mean) * weight[:, None]
        variances, vectors = jnp.linalg.eigh(centred.T @ centred / jnp.maximum(total - 1.0, 1.0))
        return mean, vectors[:, ::-1][:, :n_components].T, variances[::-1][:n_components], count

    return MonitorState(*jax.lax.map(chart, jnp.arange(n_species)))


def q_residual(charts: MonitorState, features: Float[Array, "M F"], species: Int[Array, " M"]) -> Float[Array, " M"]:
    """Squared distance of each atom from the plane of its element's chart; NaN for elements without a chart."""
    centred = features - charts.mean[species]
    components = charts.components[species]
    inside = jnp.einsum("mpf,mf->mp", components, centred)
    residual = centred - jnp.einsum("mpf,mp->mf", components, inside)
    return jnp.where(charts.count[species] > 1, jnp.sum(residual**2, axis=-1), jnp.nan)
