"""Separation of classes of atoms by their features: Davies-Bouldin index and silhouette.

All of them judge *given* classes in the geometry of *these* coordinates. Multiplying one channel changes them, so
they are computed on raw and on standardised features; on t-SNE coordinates they judge the picture, not the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


def standardise(features: np.ndarray, like: np.ndarray | None = None) -> np.ndarray:
    """Features (M, F) with mean 0 and variance 1 of every channel; constant channels become zero.

    Args:
        features: of M atoms.
        like: features whose mean and variance are used instead of their own.
    """
    like = np.asarray(features if like is None else like, np.float64)
    mean, spread = like.mean(axis=0), like.std(axis=0)
    # below rounding of the channel's size there is no spread, only noise
    constant = spread <= 1e-6 * np.maximum(np.abs(mean), spread.max(initial=0.0))
    return np.where(constant, 0.0, (features - mean) / np.where(constant, 1.0, spread))


def davies_bouldin(features: np.ndarray, classes: np.ndarray) -> float:
    """Davies-Bouldin index: 0 is best; NaN with fewer than two classes.

    Mean over classes of the worst ratio ``(s_a + s_b) / d_ab`` of spreads to centroid distance (Davies & Bouldin,
    IEEE PAMI 1, 224 (1979)). Two spheres whose centres are four times their spread apart have 0.5.

    Shows: whether classes are compact compared with their distance. It is a ratio of lengths: no unit, unchanged by
    rotation and common scale, so models of any width can be compared. Cannot show: whether the classes matter for the
    property at hand; shape (each class counts as a ball); or why it moved: features that resolve finer differences
    *within* a class raise it just as lost separation does.

    Args:
        features: (M, F).
        classes: (M,).
    """
    from sklearn.metrics import davies_bouldin_score

    return float(davies_bouldin_score(features, classes)) if 1 < len(np.unique(classes)) < len(classes) else np.nan


def silhouette(features: np.ndarray, classes: np.ndarray) -> float:
    """Mean silhouette: 1 for classes far apart, 0 for overlap, below 0 if atoms are nearer to another class.

    ``(b - a) / max(a, b)`` of each atom with its mean distance ``a`` to its class and ``b`` to the nearest other one
    (Rousseeuw, J. Comput. Appl. Math. 20, 53 (1987)); NaN with fewer than two classes.

    Shows: overlap of classes, also of odd shapes. Cannot show: more than Davies-Bouldin does about why; every atom
    counts alike, so the commonest class (H) decides; in many channels all distances become alike and the value goes
    to 0 without any overlap.

    Args:
        features: (M, F).
        classes: (M,).
    """
    from sklearn.metrics import silhouette_score

    return float(silhouette_score(features, classes)) if 1 < len(np.unique(classes)) < len(classes) else np.nan


class Embedding(NamedTuple):
    """A t-SNE map and how it separates the classes.

    Attributes:
        seed, perplexity: what made it.
        coordinates: (M, 2).
        davies_bouldin, silhouette: of the classes in these coordinates.
    """

    seed: int
    perplexity: float
    coordinates: np.ndarray
    davies_bouldin: float
    silhouette: float


def tsne_maps(
    features: np.ndarray,
    classes: np.ndarray,
    *,
    perplexities: Sequence[float] = (10.0, 30.0),
    seeds: Sequence[int] = (0, 1, 2),
) -> list[Embedding]:
    """Embed features by t-SNE with every perplexity and seed, from random starts, and score the classes.

    Shows: which atoms are neighbours, as a picture; that is what arXiv 2601.08486 computes its index on. Cannot show:
    distances or sizes (t-SNE equalises densities), and a single number of a single map is a draw: it depends on seed
    and perplexity. Therefore all maps are returned, and their spread is the uncertainty to quote. A difference between
    two models that is smaller than the spread of either is none.

    Args:
        features: (M, F).
        classes: (M,).
        perplexities: about how many neighbours an atom is placed by; less than M.
        seeds: of the starts.

    Raises:
        ValueError: if there are not more atoms than the largest perplexity.
    """
    from sklearn.manifold import TSNE

    if len(features) <= max(perplexities):
        raise ValueError(
            f"{len(features)} atoms are too few for perplexity {max(perplexities):g}; it must be smaller than their "
            "number."
        )
    maps = []
    for perplexity in perplexities:
        for seed in seeds:
            embed = TSNE(2, perplexity=perplexity, init="random", random_state=seed)
            points = embed.fit_transform(np.asarray(features, np.float32))
            scores = davies_bouldin(points, classes), silhouette(points, classes)
            maps.append(Embedding(int(seed), float(perplexity), points, *scores))
    return maps
