"""Error bars: the posterior of the last layer, shallow ensembles, committees; calibrated on held-out groups."""

from mlipjax.uncertainty.estimators import (
    Ensemble,
    Estimator,
    Rigidity,
    Spread,
    committee,
    largest_std,
    shallow_ensemble,
    spread,
)
from mlipjax.uncertainty.fit import Computed, Errors, calibrated, fit_rigidity, rigidity_of, spreads_of
from mlipjax.uncertainty.last_layer import (
    atom_features,
    force_features,
    force_sketch,
    last_layer_paths,
    sum_features,
)
from mlipjax.uncertainty.scores import relative_cost, score, score_structures
from mlipjax.uncertainty.storage import force_limit, load_uncertainty, save_uncertainty

__all__ = [
    "Computed",
    "Ensemble",
    "Errors",
    "Estimator",
    "Rigidity",
    "Spread",
    "atom_features",
    "calibrated",
    "committee",
    "fit_rigidity",
    "force_features",
    "force_limit",
    "force_sketch",
    "largest_std",
    "last_layer_paths",
    "load_uncertainty",
    "relative_cost",
    "rigidity_of",
    "save_uncertainty",
    "score",
    "score_structures",
    "shallow_ensemble",
    "spread",
    "spreads_of",
    "sum_features",
]
