"""Do models trained differently encode the same atoms differently? On true per-atom features, in three spaces.

S2's published figure separates vectors of energy, forces, RDF and SOAP, and does so by the energy offset. Here the
vectors are the invariant features of the last layer, for the same atoms in every model: silhouettes with the *model* as
class, in the original space, with every channel standardised, and after removing each model's mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlipjax.potential import Model
from mlipjax.representation import linear_cka, node_features, silhouette, standardise
from mlipjax.system import System


def compare_latent(
    name: str, start: Model, images: Sequence[System], tuned: Mapping[str, Sequence[Model]]
) -> dict[str, Any]:
    """Silhouettes of tuned models against the one they started from, and CKA with it, seed by seed.

    Args:
        name, start: the universal model.
        images: structures of the same atoms, Cr among them.
        tuned: arm -> models of every seed.
    """

    def features(model: Model) -> np.ndarray:
        return np.asarray(node_features(model, images), np.float64)

    chromium = np.tile(np.asarray(images[0].atomic_numbers) == 24, len(images))
    before = features(start)

    def compared(model: Model) -> dict[str, Any]:
        after = features(model)
        return {
            "all atoms": _spaces(before, after),
            "Cr": _spaces(before[chromium], after[chromium]),
            "cka": float(linear_cka(before, after)),
        }

    pairs = {arm: [compared(model) for model in seeds] for arm, seeds in tuned.items()}
    return {"n_atoms": len(chromium), "pairs": pairs, "reference": name}


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
