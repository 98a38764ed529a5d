"""Splits that ask for extrapolation: rare values of a label, or elements never seen.

``density_split`` follows BOOM (Antoniuk et al., arXiv 2505.01912): a Gaussian kernel density of the label is fitted,
the structures where it is lowest are the out-of-distribution test set (the tails, for a label with one mode), and the
in-distribution test set is drawn at random from the rest. S3's own splits are of this kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from mlipjax.elements import listed

_GRID = 512


@dataclasses.dataclass(frozen=True)
class OodSplit:
    """Four disjoint parts as indices, each ascending.

    Attributes:
        train, valid, id_test, ood_test: structures.
        description: in words, how the out-of-distribution part was chosen.
    """

    train: np.ndarray
    valid: np.ndarray
    id_test: np.ndarray
    ood_test: np.ndarray
    description: str


def label_density(values: Sequence[float] | np.ndarray, bandwidth: float | None = None) -> np.ndarray:
    """Gaussian kernel density of a label at every one of its values: (n,), per unit of the label.

    The density is evaluated on a grid of 512 points and interpolated, so the cost grows with n, not with its square.

    Args:
        values: (n,) labels.
        bandwidth: width of the kernel in units of the labels' standard deviation; ``None`` for Scott's rule.

    Raises:
        ValueError: for fewer than three values, or values that are all equal.
    """
    from scipy.stats import gaussian_kde

    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 3 or not np.isfinite(values).all() or np.ptp(values) == 0.0:
        raise ValueError(f"a density needs three or more finite values that differ; found {values.shape} values.")
    density = gaussian_kde(values, bw_method=bandwidth)
    grid = np.linspace(values.min(), values.max(), _GRID)
    return np.interp(values, grid, density(grid))


def density_split(
    values: Sequence[float] | np.ndarray,
    *,
    ood: float = 0.1,
    id_test: float = 0.05,
    valid: float = 0.05,
    bandwidth: float | None = None,
    seed: int = 0,
) -> OodSplit:
    """Hold out the structures whose label is rarest.

    Args:
        values: (n,) labels.
        ood: fraction of structures in the out-of-distribution test set.
        id_test, valid: fractions of all structures, drawn at random from the others.
        bandwidth: see ``label_density``.
        seed: of the draw.

    Raises:
        ValueError: if a part would be empty or the fractions leave nothing to train on.
    """
    values = np.asarray(values, np.float64)
    density = label_density(values, bandwidth)
    order = np.argsort(density, kind="stable")
    n_ood = _part(ood, len(values), "ood")
    out, inside = order[:n_ood], np.sort(order[n_ood:])
    low, high = values[inside].min(), values[inside].max()
    return _divide(
        inside,
        np.sort(out),
        _part(id_test, len(values), "id_test"),
        _part(valid, len(values), "valid"),
        seed,
        f"the {n_ood} labels of lowest kernel density; the others lie in [{low:.6g}, {high:.6g}]",
    )


def element_split(
    numbers: Sequence[np.ndarray],
    elements: Sequence[int],
    *,
    id_test: float = 0.05,
    valid: float = 0.05,
) -> OodSplit:
    """Hold out every structure that contains one of ``elements``.

    Args:
        numbers: atomic numbers of each structure.
        elements: atomic numbers never seen in training.
        id_test, valid: fractions of all structures, drawn at random from the others.

    Raises:
        ValueError: if no structure, or every one, holds such an element.
    """
    held = np.array([bool(np.isin(part, list(elements)).any()) for part in numbers])
    names = listed(elements)
    if held.all() or not held.any():
        raise ValueError(f"{int(held.sum())} of {len(held)} structures hold {names}: choose other elements.")
    return _divide(
        np.flatnonzero(~held),
        np.flatnonzero(held),
        _part(id_test, len(held), "id_test"),
        _part(valid, len(held), "valid"),
        0,
        f"the {int(held.sum())} structures that hold {names}",
    )


def _divide(inside: np.ndarray, out: np.ndarray, n_test: int, n_valid: int, seed: int, description: str) -> OodSplit:
    if n_test + n_valid >= len(inside):
        raise ValueError(f"{n_test} test and {n_valid} validation structures leave none of {len(inside)} to train on.")
    drawn = np.random.default_rng(seed).permutation(inside)
    test, valid, train = np.split(drawn, [n_test, n_test + n_valid])
    return OodSplit(np.sort(train), np.sort(valid), np.sort(test), out, description)


def _part(fraction: float, n: int, name: str) -> int:
    if not 0.0 < fraction < 1.0 or round(fraction * n) < 1:
        raise ValueError(f"{name}={fraction} of {n} structures: give a fraction in (0, 1) that holds at least one.")
    return round(fraction * n)
