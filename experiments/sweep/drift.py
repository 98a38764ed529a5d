"""Drift of the representation after the first epoch, and whether it predicts the error at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from mlipjax.data import Dataset
from mlipjax.potential import Model, Potential
from mlipjax.representation import (
    atom_structures,
    environment_classes,
    linear_cka,
    node_features,
    standardise,
    usable,
    wasserstein_per_channel,
    within_classes,
)
from mlipjax.statistics import confidence_95, draw_groups
from mlipjax.typing import Params

DRIFTS = ("one_minus_cka", "one_minus_cka_within", "wasserstein")
"""Numbers of the drift; all are 0 without any."""


def early_drift(
    potential: Potential, before: Params, after: Params, probe: Dataset, dtype: str
) -> list[dict[str, float]]:
    """Drift of the last layer's features of every setting, on the atoms of the probe structures.

    Args:
        potential: network.
        before: parameters all settings started from.
        after: parameters stacked over settings.
        probe: structures; classes of atoms in fewer than four of them are left out.
        dtype: precision.
    """
    systems = probe.systems
    classes, structure = environment_classes(systems), atom_structures(systems)
    chosen = usable(classes, structure, structures=min(4, len(systems)))
    start = node_features(Model(potential, before), systems, dtype=dtype)[chosen].astype(np.float64)
    inner = within_classes(start, classes[chosen])
    result = []
    for index in range(len(jax.tree.leaves(after)[0])):
        params = jax.tree.map(lambda x, i=index: x[i], after)
        now = node_features(Model(potential, params), systems, dtype=dtype)[chosen].astype(np.float64)
        moved = standardise(now, like=start)
        result.append({
            "one_minus_cka": 1.0 - linear_cka(start, now),
            "one_minus_cka_within": 1.0 - linear_cka(inner, within_classes(now, classes[chosen])),
            "wasserstein": float(wasserstein_per_channel(standardise(start), moved).mean()),
        })  # fmt: skip
    return result


def predictions(rows: Sequence[dict[str, Any]], n_resamples: int = 1000) -> dict[str, Any]:
    """Rank correlation of each early drift with the final error out of domain, and with the ratio to in domain.

    Settings that differ in the seed only are repeats of one choice, so intervals resample choices, not runs. A large
    learning rate moves features far and errors too; ``within_rates`` is the correlation of ranks after subtracting the
    mean rank of each learning rate: what drift says beyond the rate that everybody knows anyway.
    """
    groups = [(row["learning_rate"], row["decay"], row["frozen"]) for row in rows]
    rates = np.array([row["learning_rate"] for row in rows])
    error = np.array([row["ood"]["force_rmse_meV_per_A"] for row in rows])
    targets = {"ood_force_rmse": error, "ood_over_id": error / [row["id"]["force_rmse_meV_per_A"] for row in rows]}
    result: dict[str, Any] = {"n_runs": len(rows), "n_choices": len(set(groups))}
    for name in DRIFTS:
        values = np.array([row["early"][name] for row in rows])
        result[name] = {
            target: {
                "spearman": interval(values, wanted, groups, n=n_resamples),
                "spearman_within_rates": interval(values, wanted, groups, rates, n=n_resamples),
            }
            for target, wanted in targets.items()
        }
    return result


def interval(
    x: np.ndarray, y: np.ndarray, groups: Sequence[Any], strata: np.ndarray | None = None, n: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """Spearman's correlation with a 95 % bootstrap interval over groups; ``None`` where it is not defined.

    Args:
        x, y: (n,) numbers; pairs that are not finite are left out.
        groups: (n,) what is drawn together.
        strata: (n,) values whose mean rank is subtracted.
        n: bootstrap samples.
        seed: of the bootstrap.
    """
    keep = np.isfinite(x) & np.isfinite(y)
    x, y = x[keep], y[keep]
    names = [group for group, kept in zip(groups, keep, strict=True) if kept]
    strata = None if strata is None else strata[keep]
    drawn = draw_groups(names, n, np.random.default_rng(seed)) if len(set(names)) > 2 else []
    draws = [rank_correlation(x[rows], y[rows], None if strata is None else strata[rows]) for rows in drawn]
    known = [draw for draw in draws if np.isfinite(draw)]
    value = rank_correlation(x, y, strata)
    return {
        "value": value if np.isfinite(value) else None,
        "confidence_95": confidence_95(known) if len(known) > n // 2 else None,
        "n": len(x),
    }


def rank_correlation(x: np.ndarray, y: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Correlation of ranks, minus the mean rank of each stratum if there are strata; NaN if one is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(x), rankdata(y)
    if strata is not None:
        for value in np.unique(strata):
            own = strata == value
            a[own] -= a[own].mean()
            b[own] -= b[own].mean()
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt(np.sum(a**2) * np.sum(b**2))
    return float(np.sum(a * b) / scale) if scale > 0.0 else np.nan
