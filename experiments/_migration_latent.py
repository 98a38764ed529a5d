"""Do models trained differently encode the same atoms differently? On true per-atom features, in three spaces.

S2's published figure separates vectors of energy, forces, RDF and SOAP, and does so by the energy offset. Here the
vectors are the invariant features of the last layer, for the same atoms in every model: silhouettes with the *model* as
class, in the original space, with every channel standardised, and after removing each model's mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlipjax.representation import linear_cka, node_features, silhouette, standardise
from mlipjax.typing import Params

if TYPE_CHECKING:
    from experiments.migration import Experiment


def compare_latent(experiment: Experiment, models: dict[str, Params]) -> dict[str, Any]:
    """Silhouettes between models and CKA with the first one, for the images of the in-domain path."""
    path = experiment.paths[0]
    features = {
        name: np.asarray(node_features(experiment.potential, params, path.images), np.float64)
        for name, params in models.items()
    }
    chromium = np.tile(np.asarray(path.images[0].atomic_numbers) == 24, len(path.images))
    reference = next(iter(features))
    return {
        "n_atoms": len(chromium),
        "pairs": {
            name: {
                "all atoms": _spaces(features[reference], values),
                "Cr": _spaces(features[reference][chromium], values[chromium]),
                "cka": float(linear_cka(features[reference], values)),
            }
            for name, values in features.items()
            if name != reference
        },
        "reference": reference,
    }


def _spaces(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Silhouette of two models' features of the same atoms."""
    both = np.concatenate([first, second])
    model = np.repeat([0, 1], [len(first), len(second)])
    centred = np.concatenate([first - first.mean(axis=0), second - second.mean(axis=0)])
    return {
        "original": silhouette(both, model),
        "standardised": silhouette(standardise(both), model),
        "centred": silhouette(centred, model),
    }
