"""Per-element principal-component charts of atomic features, and the indices of an atom against its chart.

With the leading principal components ``P`` (rows) and variances ``lambda`` of the training atoms of the same element,
and the scores ``t = P (x - mean)`` of an atom:

- ``Q = |x - mean - P^T t|^2``, the residual: how far the atom is from what varied in training (squared prediction
  error; Jackson & Mudholkar, Technometrics 21, 341 (1979));
- ``T^2 = sum_a t_a^2 / lambda_a`` (Hotelling): how far it is within what varied;
- ``phi = Q / Q_lim + T^2 / T^2_lim``, both in one number (Yue & Qin, Ind. Eng. Chem. Res. 40, 4403 (2001)).

The paper this follows pools SOAP vectors, here the model's own features are charted, so that the chart costs nothing
inside MD. All functions are pure, have fixed shapes and can be jitted, mapped and scanned.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.precision import exact
from mlipjax.typing import Array, Float, Int

FRAME_INDICES = ("q", "t2", "combined", "worst")
"""Numbers of a frame, in the order of ``MonitorState.frame_limits``; see ``readings.Readings.frame``."""


@struct.dataclass
class MonitorState:
    """Charts of S elements and their limits; limits that were never set are infinite.

    Attributes:
        mean: (S, F) mean feature of each element.
        components: (S, P, F) orthonormal principal components; zero where the training atoms vary in fewer
            directions than P.
        eigenvalues: (S, P) variances along them.
        count: (S,) training atoms; an element without any has a zero chart, and its atoms have no Q.
        residual: (S, 3) sums over the left-out variances of their first, second and third powers.
        q_limit: (S,) largest Q of an atom in control.
        t2_limit: (S,) largest T² of an atom in control.
        frame_limits: (4,) largest ``FRAME_INDICES`` of a frame in control.
    """

    mean: Float[Array, "S F"]
    components: Float[Array, "S P F"]
    eigenvalues: Float[Array, "S P"]
    count: Float[Array, " S"]
    residual: Float[Array, "S 3"]
    q_limit: Float[Array, " S"]
    t2_limit: Float[Array, " S"]
    frame_limits: Float[Array, " 4"]

    @classmethod
    def empty(cls, n_species: int, n_features: int, n_components: int, dtype: Any) -> MonitorState:
        """Charts of nothing."""
        return cls(
            mean=jnp.zeros((n_species, n_features), dtype),
            components=jnp.zeros((n_species, n_components, n_features), dtype),
            eigenvalues=jnp.zeros((n_species, n_components), dtype),
            count=jnp.zeros((n_species,), dtype),
            residual=jnp.zeros((n_species, 3), dtype),
            q_limit=jnp.full((n_species,), jnp.inf, dtype),
            t2_limit=jnp.full((n_species,), jnp.inf, dtype),
            frame_limits=jnp.full((len(FRAME_INDICES),), jnp.inf, dtype),
        )


@struct.dataclass
class AtomIndices:
    """Indices of N atoms; NaN for an atom whose element has no chart.

    Attributes:
        q: (N,) squared feature units.
        t2: (N,) dimensionless.
        combined: (N,) ``Q / Q_lim + T² / T²_lim``; 0 as long as no limits are set.
    """

    q: Float[Array, " N"]
    t2: Float[Array, " N"]
    combined: Float[Array, " N"]


@exact
def fit_charts(
    features: Float[Array, "M F"],
    species: Int[Array, " M"],
    weights: Float[Array, " M"],
    n_species: int,
    n_components: int,
) -> MonitorState:
    """Fit one chart per element, without limits; no gradient passes through.

    Args:
        features: of M atoms.
        species: element row of each atom.
        weights: 1 for atoms that count, 0 for others.
        n_species: number of charts S.
        n_components: principal components P, at most F.

    Raises:
        ValueError: if there are more components than features.
    """
    n_features = features.shape[1]
    if n_components > n_features:
        raise ValueError(f"{n_components} components of {n_features} features; ask for {n_features} or fewer.")
    features = jax.lax.stop_gradient(features)
    # variances below rounding of the largest one are directions in which the atoms do not vary
    noise = n_features * float(np.finfo(features.dtype).eps)

    def chart(row: Array) -> tuple[Array, ...]:
        weight = jnp.where(species == row, weights, 0.0)
        count = jnp.sum(weight)
        total = jnp.maximum(count, 1.0)
        mean = weight @ features / total
        centred = (features - mean[None, :]) * weight[:, None]
        variances, vectors = jnp.linalg.eigh(centred.T @ centred / jnp.maximum(total - 1.0, 1.0))
        variances, vectors = variances[::-1], vectors.T[::-1]
        variances = jnp.where(variances > noise * variances[0], variances, 0.0)
        kept, left = variances[:n_components], variances[n_components:]
        components = jnp.where(kept[:, None] > 0.0, vectors[:n_components], 0.0)
        return mean, components, kept, count, jnp.stack([jnp.sum(left**power) for power in (1, 2, 3)])

    mean, components, eigenvalues, count, residual = jax.lax.map(chart, jnp.arange(n_species))
    empty = MonitorState.empty(n_species, n_features, n_components, features.dtype)
    return empty.replace(  # pyright: ignore[reportAttributeAccessIssue]
        mean=mean, components=components, eigenvalues=eigenvalues, count=count, residual=residual
    )


def atom_indices(charts: MonitorState, features: Float[Array, "M F"], species: Int[Array, " M"]) -> AtomIndices:
    """Q, T² and the combined index of each atom.

    Args:
        charts: fitted.
        features: of M atoms, as many as the charts have.
        species: element row of each atom; negative for an element that has none.
    """
    centred = features - charts.mean[species]
    components = charts.components[species]
    scores = jnp.sum(components * centred[:, None, :], axis=-1)
    outside = centred - jnp.sum(components * scores[:, :, None], axis=1)
    variances = charts.eigenvalues[species]
    known = (species >= 0) & (charts.count[species] > 1)
    q = jnp.sum(outside**2, axis=-1)
    t2 = jnp.sum(jnp.where(variances > 0.0, scores**2 / jnp.where(variances > 0.0, variances, 1.0), 0.0), axis=-1)
    combined = q / charts.q_limit[species] + t2 / charts.t2_limit[species]
    return AtomIndices(*(jnp.where(known, index, jnp.nan) for index in (q, t2, combined)))


def q_residual(charts: MonitorState, features: Float[Array, "M F"], species: Int[Array, " M"]) -> Float[Array, " M"]:
    """Squared distance of each atom from the plane of its element's chart; NaN for elements without a chart.

    Args:
        charts: fitted.
        features: (M, F) of atoms.
        species: (M,) element row of each atom.
    """
    return atom_indices(charts, features, species).q
