"""Do models trained differently encode the same atoms differently? On true per-atom features, in three spaces.

S2's published figure separates vectors of energy, forces, RDF and SOAP, and does so by the energy offset. Here the
vectors are the invariant features of the last layer, for the same atoms in every model: silhouettes with the *model* as
class, in the original space, with every channel standardised, and after removing each model's mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlipjax.potential import Potential
from mlipjax.representation import linear_cka, node_features, silhouette, standardise
from mlipjax.system import System
from mlipjax.typing import Params


def compare_latent(
    potential: Potential, images: Sequence[System], start: tuple[str, Params], tuned: Mapping[str, Sequence[Params]]
) -> dict[str, Any]:
    """Silhouettes of tuned models against the one they started from, and CKA with it, seed by seed.

    Args:
        potential: of all models.
        images: structures of the same atoms, Cr among them.
        start: name and parameters of the universal model.
        tuned: arm -> parameters of every seed.
    """

    def features(params: Params) -> np.ndarray:
        return np.asarray(node_features(potential, params, images), np.float64)

    chromium = np.tile(np.asarray(images[0].atomic_numbers) == 24, len(images))
    reference, before = start[0], features(start[1])

    def compared(params: Params) -> dict[str, Any]:
        after = features(params)
        return {
            "all atoms": _spaces(before, after),
            "Cr": _spaces(before[chromium], after[chromium]),
            "cka": float(linear_cka(before, after)),
        }

    pairs = {arm: [compared(params) for params in seeds] for arm, seeds in tuned.items()}
    return {"n_atoms": len(chromium), "pairs": pairs, "reference": reference}


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
