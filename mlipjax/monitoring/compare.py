"""Another index to compare the charts with: Mahalanobis distance per element."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.precision import exact
from mlipjax.typing import Array, Float, Int


@struct.dataclass
class Mahalanobis:
    """Centres and inverse covariances of S elements.

    Attributes:
        mean: (S, F).
        precision: (S, F, F) inverse covariance.
        count: (S,) training atoms.
    """

    mean: Float[Array, "S F"]
    precision: Float[Array, "S F F"]
    count: Float[Array, " S"]


def fit_mahalanobis(
    features: np.ndarray, species: np.ndarray, n_species: int, ridge: float | None = None
) -> Mahalanobis:
    """Fit centres and covariances, on the host in float64.

    Args:
        features: (M, F).
        species: (M,) element row of each atom.
        n_species: number of elements S.
        ridge: added to the diagonal of the sample covariance, as a fraction of its mean; by default the covariance is
            shrunk as Ledoit & Wolf, J. Multivar. Anal. 88, 365 (2004), do.
    """
    from sklearn.covariance import LedoitWolf

    n_features = features.shape[1]
    mean, precision = np.zeros((n_species, n_features)), np.zeros((n_species, n_features, n_features))
    count = np.zeros(n_species)
    for row in range(n_species):
        own = np.asarray(features[species == row], np.float64)
        count[row] = len(own)
        if len(own) < 2:
            continue
        mean[row] = own.mean(axis=0)
        if ridge is None:
            covariance = LedoitWolf().fit(own).covariance_
        else:
            covariance = np.cov(own.T).reshape(n_features, n_features)
            covariance = covariance + ridge * np.trace(covariance) / n_features * np.eye(n_features)
        precision[row] = np.linalg.pinv(covariance, hermitian=True)
    dtype = features.dtype
    return Mahalanobis(*(jnp.asarray(array, dtype) for array in (mean, precision, count)))


@exact
def mahalanobis(fitted: Mahalanobis, features: Float[Array, "M F"], species: Int[Array, " M"]) -> Float[Array, " M"]:
    """Squared distance of each atom from the centre of its element; NaN for elements without training atoms.

    Args:
        fitted: by ``fit_mahalanobis``.
        features: (M, F) of atoms.
        species: (M,) element row of each atom.
    """
    centred = features - fitted.mean[species]

    def element(squared: Array, row: Array) -> tuple[Array, None]:
        own = jnp.sum((centred @ fitted.precision[row]) * centred, axis=-1)
        return jnp.where((species == row) & (fitted.count[row] > 1), own, squared), None

    # element by element: a precision matrix for every atom would not fit into memory
    unknown = jnp.full(len(features), jnp.nan, features.dtype)
    return jax.lax.scan(element, unknown, jnp.arange(len(fitted.count)))[0]
