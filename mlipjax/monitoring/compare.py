"""Other indices to compare the charts with: Mahalanobis distance per element, and last-layer prediction rigidity."""

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


@struct.dataclass
class Rigidity:
    """Last-layer prediction rigidity (LLPR; Bigi et al., Mach. Learn.: Sci. Technol. 5, 045018 (2024)).

    A model whose energy is linear in its last features is Bayesian linear regression in them: the variance of a
    prediction with the features f is ``f^T (sum_i f_i f_i^T + s² 1)^-1 f`` with the training structures i, in units of
    the variance of the noise.

    Attributes:
        precision: (F, F) ``(sum_i f_i f_i^T + s² 1)^-1``.
    """

    precision: Float[Array, "F F"]


def fit_rigidity(features: np.ndarray, ridge: float = 1e-6) -> Rigidity:
    """Fit to training structures, on the host in float64.

    Args:
        features: (n, F) last-layer features of structures, summed over their atoms.
        ridge: ``s²``, as a fraction of the mean diagonal of ``sum_i f_i f_i^T``.
    """
    own = np.asarray(features, np.float64)
    gram = own.T @ own
    gram += ridge * np.trace(gram) / len(gram) * np.eye(len(gram))
    return Rigidity(jnp.asarray(np.linalg.inv(gram), np.asarray(features).dtype))


@exact
def rigidity_variance(fitted: Rigidity, features: Float[Array, "n F"]) -> Float[Array, " n"]:
    """Variance of the prediction for each row of features: structures (summed over atoms), or single atoms."""
    return jnp.sum((features @ fitted.precision) * features, axis=-1)
