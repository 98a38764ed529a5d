"""Distances between the features of the same atoms in two models (or at two times of one training run)."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from mlipjax.monitoring import q_residual
from mlipjax.monitoring.fit import fit_all

_q = jax.jit(q_residual)

_ATOMS_PER_COMPONENT = 10
_LEAST_OUTSIDE = 1e-4
"""Part of an element's variance outside its plane, below which rounding and symmetry decide Q."""
_LEAST_SPREAD = 1e-6
"""Standard deviation along a component, relative to the first one's, below which rounding decides its direction."""


class Components(NamedTuple):
    """Principal components of features.

    Attributes:
        centred: (M, F) features without their mean, float64.
        singular_values: (F,) of ``centred``, descending; those below 1e-8 sqrt(2 F) of the first one are 0.
        directions: (F, F) unit vectors in columns.
    """

    centred: np.ndarray
    singular_values: np.ndarray
    directions: np.ndarray


def components(features: np.ndarray | Components) -> Components:
    """Find the principal components of features, once for all numbers that are made of them.

    They are eigenvectors of the second moments (F, F) in float64, many times cheaper than a singular value
    decomposition of all atoms. The price: singular values below the square root of ``F`` times float64's rounding,
    relative to the largest one, are lost. The rounding of float32 features is larger.

    Args:
        features: (M, F), or components, which are returned as they are.
    """
    if isinstance(features, Components):
        return features
    features = np.asarray(features, np.float64)
    centred = features - features.mean(axis=0)
    squares, directions = np.linalg.eigh(centred.T @ centred)
    rounding = len(squares) * np.finfo(np.float64).eps * squares.max(initial=0.0)
    squares = np.where(squares > rounding, squares, 0.0)
    return Components(centred, np.sqrt(squares[::-1]), directions[:, ::-1])


def mean_of_known(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN if nothing is left."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


def wasserstein_per_channel(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1-Wasserstein distance (F,) between the distributions of every channel, in feature units.

    Shows: how far the values of each channel have moved; a shift by c gives |c|. Cannot show: changes of the joint
    distribution (a channel permuted among atoms has distance 0), nor anything about models that do not share
    ancestors: their channels have nothing to do with each other. A rescaling that the next layer undoes counts too.

    Args:
        first: (M, F).
        second: (M', F).

    Raises:
        ValueError: for different numbers of channels.
    """
    _same_width(first, second)
    if len(first) == len(second):
        # equal weights: the optimal transport in one dimension is by rank
        return np.abs(np.sort(first, axis=0) - np.sort(second, axis=0)).mean(axis=0)
    from scipy.stats import wasserstein_distance

    return np.array([wasserstein_distance(a, b) for a, b in zip(first.T, second.T, strict=True)])


def sliced_wasserstein(first: np.ndarray, second: np.ndarray, *, n_slices: int = 100, seed: int = 0) -> float:
    """Mean 1-Wasserstein distance over random directions, in feature units (Bonneel et al., JMIV 51, 22 (2015)).

    POT's (``ot.sliced_wasserstein_distance``, p = 1), in float64. A shift by a vector v gives ``|v| E|u_1|`` with a
    random unit vector u, about ``|v| sqrt(2 / (pi F))``.

    Shows: changes of the joint distribution too, which single channels miss. Cannot show: more than that the
    distributions differ; the value shrinks with the number of channels, so compare only equal widths; like the
    distance per channel it means nothing between models without common ancestors.

    Args:
        first: (M, F).
        second: (M', F).
        n_slices: directions.
        seed: of the directions.

    Raises:
        ValueError: for different numbers of channels.
    """
    _same_width(first, second)
    # here and not above: takes seconds, and imports other array libraries too where they are installed
    from ot import sliced_wasserstein_distance

    points = (np.asarray(values, np.float64) for values in (first, second))
    distance: Any = sliced_wasserstein_distance(*points, n_projections=n_slices, p=1, seed=seed)
    return float(distance)


def linear_cka(first: np.ndarray | Components, second: np.ndarray | Components) -> float:
    """Linear centred kernel alignment: 1 for features equal up to rotation and scale, about 0 for unrelated ones.

    ``|Y^T X|_F^2 / (|X^T X|_F |Y^T Y|_F)`` with centred columns (Kornblith et al., ICML 2019); NaN if one does not
    vary.

    Shows: whether two models see the same similarities between the same atoms, whatever their widths, bases and
    scales; so it also compares models without common ancestors. Cannot show: changes along directions of small
    variance (the element dominates: models that agree on elements and nothing else can have 0.9); with fewer atoms
    than channels unrelated features have far more than 0.

    Args:
        first: (M, F), or its components.
        second: (M, F') of the same atoms, or its components.

    Raises:
        ValueError: for different numbers of atoms.
    """
    x, y = components(first), components(second)
    _same_atoms("CKA compares the same atoms in two models", x, y)
    norms = np.linalg.norm(x.singular_values**2) * np.linalg.norm(y.singular_values**2)
    return float(np.linalg.norm(y.centred.T @ x.centred) ** 2 / norms) if norms > 0.0 else np.nan


def effective_rank(features: np.ndarray | Components) -> float:
    """Exponential of the entropy of the normalised singular values of centred features; NaN if nothing varies.

    ``exp(-sum p_i log p_i)``, ``p_i = s_i / sum s`` (Roy & Vetterli, EUSIPCO 2007): k for k directions of equal
    spread, 1 for a line.

    Shows: collapse in the narrow sense, features that vary in ever fewer directions. Cannot show: whether what is left
    is chemistry or noise (noise in all channels raises it); rescaling channels changes it; it grows with the number of
    atoms up to some multiple of the number of channels, so compare equal data only.

    Args:
        features: (M, F), or their components.
    """
    values = components(features).singular_values
    total = values.sum()
    if not total > 0.0:
        return np.nan
    p = values[values > 0.0] / total
    return float(np.exp(-np.sum(p * np.log(p))))


def within_classes(features: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Features (M, F) minus the mean of their class: what is left once the class is known."""
    result = np.array(features, np.float64)
    for name in np.unique(classes):
        result[classes == name] -= result[classes == name].mean(axis=0)
    return result


def principal_angles(
    first: np.ndarray | Components,
    second: np.ndarray | Components,
    n_components: int = 5,
    space: Literal["channels", "atoms"] = "channels",
) -> np.ndarray:
    """Angles (P,) in degrees, ascending, between the leading PCA subspaces of two sets of features.

    0 for the same subspace, 90 for orthogonal directions (scipy.linalg.subspace_angles).

    ``"channels"`` compares the directions in feature space: whether a fine-tuned model still varies along the
    pretrained one's main directions (common ancestors and equal widths needed). ``"atoms"`` compares the scores of the
    same atoms: whether the two can be rotated onto each other, for any two models (the angles' cosines are canonical
    correlations of the leading scores).

    Shows: turned or exchanged main directions. Cannot show: changes of length; where variances number P and P + 1 are
    almost equal, the subspace itself is arbitrary and large angles mean nothing.

    Args:
        first: (M, F), or its components.
        second: (M', F), of the same atoms for ``"atoms"``; or its components.
        n_components: P, limited by the atoms and channels there are.
        space: where the subspaces live.

    Raises:
        ValueError: for different widths (``"channels"``) or numbers of atoms (``"atoms"``).
    """
    from scipy.linalg import subspace_angles

    both = components(first), components(second)
    if space == "channels":
        _same_width(both[0].centred, both[1].centred)
    else:
        _same_atoms("scores can be compared for the same atoms", *both)
    bases = []
    for centred, values, directions in both:
        rank = int(np.sum(values > _LEAST_SPREAD * values[0]))
        leading = directions[:, : min(n_components, rank)]
        bases.append(leading if space == "channels" else centred @ leading / values[: leading.shape[1]])
    if min(basis.shape[1] for basis in bases) == 0:
        return np.full(1, np.nan)
    return np.degrees(subspace_angles(*bases))[::-1]


def chart_residual(
    chart_features: np.ndarray,
    chart_elements: np.ndarray,
    features: np.ndarray,
    elements: np.ndarray,
    n_components: int = 5,
) -> np.ndarray:
    """Q (M,) of atoms under charts of other atoms (``mlipjax.monitoring``), relative to the charts' own mean Q.

    Two uses. With one model's features of new data as chart and of old data as atoms: how far the model now sees old
    data outside what it was fine-tuned on. With the features of a fine-tuned model as chart and those of the model it
    came from as atoms: how far fine-tuning has moved the plane that the features of each element lie in.

    Shows: what leaves the plane of the leading components, element by element; 1 is as far as the chart's own atoms.
    Cannot show: changes within the plane; anything about elements whose chart fits its own atoms too well, which makes
    everything else look infinitely far. Elements with fewer atoms than ten times the components, or with next to
    nothing outside the plane (atoms that symmetry makes equal), therefore have none.

    Args:
        chart_features: (L, F) the charts are fitted to.
        chart_elements: (L,) atomic numbers.
        features: (M, F) to be judged.
        elements: (M,) atomic numbers.
        n_components: principal components per element.

    Returns:
        Q / mean Q of the chart's atoms of that element; NaN for elements without a chart.
    """
    _same_width(chart_features, features)
    known = np.unique(chart_elements)
    rows = np.searchsorted(known, chart_elements)
    target = np.searchsorted(known, elements).clip(max=len(known) - 1)
    target = np.where(known[target] == elements, target, -1)
    n_components = min(n_components, chart_features.shape[1])
    charts = fit_all(chart_features, rows, np.ones(len(rows), chart_features.dtype), len(known), n_components)
    own, q = (np.asarray(_q(charts, *atoms), np.float64) for atoms in ((chart_features, rows), (features, target)))
    members = [rows == row for row in range(len(known))]
    mean = np.array([own[mine].mean() for mine in members])
    total = np.array([np.sum(np.var(chart_features[mine], axis=0, dtype=np.float64)) for mine in members])
    count = np.array([mine.sum() for mine in members])
    good = (count >= _ATOMS_PER_COMPONENT * n_components) & (mean > _LEAST_OUTSIDE * total)
    return np.where((target >= 0) & good[target], q / np.where(good, mean, 1.0)[target], np.nan)


def _same_atoms(what: str, first: Components, second: Components) -> None:
    if len(first.centred) != len(second.centred):
        raise ValueError(f"{what}; found {len(first.centred)} and {len(second.centred)}.")


def _same_width(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"channels cannot be compared one by one: {first.shape[1]} and {second.shape[1]} of them. Use CKA."
        )
