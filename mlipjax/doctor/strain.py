"""The sign of the stress by its definition: what the model's energy does when a structure is strained a little."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from mlipjax.doctor.compared import cosine, rms
from mlipjax.doctor.findings import Finding
from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential, apply
from mlipjax.train import LabelledBatches
from mlipjax.typing import Params

STRAIN = 5e-3
"""Linear strain of either sign: large enough for energies in single precision, small enough for the linear term."""

_LEAST_TENSION = 1e-3  # eV/Å^3 (1.6 kBar): below, the model's error decides the sign
_CLEAR = 0.6


def check_strain(name: str, params: Params, batches: LabelledBatches) -> list[Finding]:
    """Compare stress labels with finite differences of the model's energy under isotropic strain.

    With tension positive, the mean tension ``tr(stress) / 3`` is ``dE/de / (3 V)`` for cell and positions times
    ``1 + e``; labels of the other sign go the other way. Unlike the comparison with the model's own stress it needs
    no sign convention but that of work, and one frame is enough. The first batch is looked at.

    Args:
        name: of the data set.
        params: parameters of the potential.
        batches: labelled structures.
    """
    plan = batches.plans[0]
    data = batches.dataset.subset(plan.indices)
    labelled = [label.stress_weight > 0.0 and all(s.pbc) for s, label in zip(data.systems, data.labels, strict=True)]
    known = np.flatnonzero(labelled).tolist()
    if not known:
        return []
    given = np.array([np.trace(np.asarray(data.labels[row].stress, np.float64)) / 3.0 for row in known])
    found = tension(batches.potential, params, batches.batch(plan).graph)[known]
    if rms(found) < _LEAST_TENSION or cosine(found, given) > -_CLEAR:
        return []
    message = (
        f"under {100 * STRAIN:g} % of strain the model's energy rises where the stress labels of {name} say that it "
        f"falls (mean tension {found.mean():.4f} against {given.mean():.4f} eV/Å^3, n = {len(known)})"
    )
    frames = tuple((name, plan.indices[row]) for row in known)
    return [Finding("fatal", "sign", message, "Change their sign: stress in eV/Å^3, tension positive.", frames)]


def tension(potential: Potential, params: Params, graph: GraphBatch) -> np.ndarray:
    """Mean tension (G,) in eV/Å^3 by central differences of the energy under isotropic strain; 0 without a volume.

    Edges stay those of the unstrained structure: what crosses the cutoff weighs nothing there, and nothing is compiled
    anew.
    """

    def energy(strain: float) -> np.ndarray:
        factor = 1.0 + strain
        strained = dataclasses.replace(graph, positions=graph.positions * factor, cells=graph.cells * factor)
        return np.asarray(jax.device_get(apply(potential, params, strained).energy), np.float64)

    volume = np.abs(np.linalg.det(np.asarray(graph.cells, np.float64)))
    slope = (energy(STRAIN) - energy(-STRAIN)) / (2.0 * STRAIN)
    return np.where(volume > 0.0, slope / (3.0 * np.where(volume > 0.0, volume, 1.0)), 0.0)
