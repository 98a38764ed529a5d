"""Scores of error bars: coverage, and rank correlation and AUROC against true errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from scipy.stats import norm, rankdata

from mlipjax import tree
from mlipjax.potential import Model, apply
from mlipjax.statistics import confidence_95, draw_groups
from mlipjax.system import System
from mlipjax.uncertainty.estimators import Estimator, Spread, cast, spread
from mlipjax.uncertainty.fit import Computed, Errors

LARGE = 0.1
"""Share of the largest errors of force that an error bar has to find."""
_RESAMPLES = 200
_REPEATS = 3
_LEVELS = {"coverage_68": float(norm.cdf(1.0) - norm.cdf(-1.0)), "coverage_95": 0.95}


def score(spreads: Sequence[Spread], errors: Errors) -> dict[str, Any]:
    """Compare error bars with errors.

    Coverage is the share of errors within 1 and 1.96 standard deviations (of structures' energies, and of force
    components); a normal error is there in 68 and 95 % of cases. Spearman's correlation is between standard deviation
    and absolute error: of structures' energies, of forces of atoms (norms), and of structures (root mean squares of
    their atoms' forces). The area under the ROC curve (AUROC) says how well the standard deviation of an atom's
    force finds the largest tenth of all errors: 0.5 by chance, 1 without a mistake.

    Args:
        spreads: of n structures.
        errors: of the same.

    Returns:
        JSON types: each number with its 95 % interval, by drawing whole groups; ``None`` without labels, or where it
        is not defined (a single group has no interval).
    """
    energy_std = np.array([float(found.energy[0]) for found in spreads])
    known = [i for i, own in enumerate(errors.forces) if np.isfinite(own).all() and len(own)]
    vectors = _Forces([np.asarray(spreads[i].forces) for i in known], [errors.forces[i] for i in known])
    labelled = np.flatnonzero(np.isfinite(errors.energy))
    groups = list(errors.groups)
    energy = _over_groups(
        lambda rows: _covered(energy_std[rows], errors.energy[rows])
        | {"spearman": spearman(energy_std[rows], np.abs(errors.energy[rows]))},
        labelled, groups,
    )  # fmt: skip
    forces = _over_groups(vectors.numbers, np.arange(len(known)), [groups[i] for i in known])
    return {
        "n_structures": len(spreads),
        "n_groups": len(set(groups)),
        "energy": energy,
        "forces": forces,
        "structures": score_structures(np.array([_rms(found.forces) for found in spreads]), errors),
        "large_force_error_eV_per_A": vectors.threshold,
    }


def score_structures(index: np.ndarray, errors: Errors) -> dict[str, Any] | None:
    """Spearman's correlation and AUROC of a number per structure with the root mean square error of its forces.

    Args:
        index: (n,) error bar, index of a chart, or what else should find the large errors.
        errors: of the structures.

    Returns:
        As ``score``; the AUROC is of the largest tenth of the structures.
    """
    wrong = np.array([_rms(own) for own in errors.forces])
    known = np.flatnonzero(np.isfinite(wrong))
    limit = np.quantile(wrong[known], 1.0 - LARGE) if len(known) else np.nan
    return _over_groups(
        lambda rows: {
            "spearman": spearman(index[rows], wrong[rows]),
            "auroc": auroc(index[rows], wrong[rows] > limit),
        },
        known, errors.groups,
    )  # fmt: skip


def relative_cost(estimator: Estimator, model: Model, system: System, how: Computed) -> float:
    """Time of error bars of energy and forces for one structure, over that of its energy, forces and stress.

    Args:
        estimator: of the model.
        model: that predicts.
        system: structure.
        how: head, precision, sizes.
    """
    params, own = tree.cast(model.params, how.dtype), cast(estimator, how.dtype)
    (_, graph), *_ = how.batches(model, [system])

    def seconds(call: Callable[[], Any]) -> float:
        jax.block_until_ready(call())  # compiles
        taken = []
        for _ in range(_REPEATS):
            start = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - start)
        return min(taken)

    bars = seconds(lambda: spread(own, model.potential, params, graph))
    return bars / seconds(lambda: apply(model.potential, params, graph))


def _rms(vectors: Any) -> float:
    return float(np.sqrt(np.mean(np.sum(np.asarray(vectors, np.float64) ** 2, axis=1))))


class _Forces:
    """Errors and standard deviations of forces, to be counted for any choice of structures."""

    def __init__(self, stds: Sequence[np.ndarray], errors: Sequence[np.ndarray]) -> None:
        self.stds = [np.asarray(own, np.float64) for own in stds]
        self.errors = [np.asarray(own, np.float64) for own in errors]
        self.std_norms, self.error_norms = (
            [np.linalg.norm(own, axis=1) for own in parts] for parts in (self.stds, self.errors)
        )
        self.threshold = float(np.quantile(np.concatenate(self.error_norms), 1.0 - LARGE)) if stds else None

    def numbers(self, rows: np.ndarray) -> dict[str, float]:
        """All numbers of some structures."""
        stds, errors, std_norms, error_norms = (
            [own[i] for i in rows] for own in (self.stds, self.errors, self.std_norms, self.error_norms)
        )
        atoms, wrong = np.concatenate(std_norms), np.concatenate(error_norms)
        return {
            **_covered(np.concatenate(stds).ravel(), np.concatenate(errors).ravel()),
            "spearman": spearman(atoms, wrong),
            "auroc": auroc(atoms, wrong > self.threshold),
        }


def _covered(std: np.ndarray, error: np.ndarray) -> dict[str, float]:
    return {name: float(np.mean(np.abs(error) <= norm.ppf(0.5 + 0.5 * level) * std)) for name, level in _LEVELS.items()}


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of both does not vary."""
    ranks = [rankdata(values) for values in (x, y)]
    if len(x) < 3 or any(np.ptp(own) == 0.0 for own in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def auroc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive has the larger score than another one (Mann-Whitney); NaN without one of both."""
    n = int(positive.sum())
    if n in (0, len(score)):
        return float("nan")
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n)))


def _over_groups(
    numbers: Callable[[np.ndarray], dict[str, float]], rows: np.ndarray, groups: Sequence[Any]
) -> dict[str, Any] | None:
    """Numbers of some structures with intervals over groups; ``None`` for no structure."""
    if len(rows) == 0:
        return None
    own = [groups[i] for i in rows]
    values = numbers(rows)
    draws = [numbers(rows[drawn]) for drawn in draw_groups(own, _RESAMPLES)] if len(set(own)) > 1 else []
    return {
        **{name: _finite(value) for name, value in values.items()},
        "confidence_95": {name: _interval([draw[name] for draw in draws]) for name in values},
    }


def _interval(draws: list[float]) -> list[float] | None:
    known = [value for value in draws if np.isfinite(value)]
    return confidence_95(known) if len(known) > len(draws) // 2 else None


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
