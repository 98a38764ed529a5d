"""Questions of ``experiments.migration`` to every model: barriers, profiles, sliding, lattice, elasticity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.migration.config import Config
from experiments.migration.data import MigrationPath
from mlipjax.potential import Model
from mlipjax.probes import SlidingSettings, neb, slide
from mlipjax.probes.elastic import elastic_constants
from mlipjax.probes.evaluator import Evaluator, NativeEvaluator
from mlipjax.relaxation import ProbeDiverged, relax
from mlipjax.system import System

DTYPE = "float32"

VECTORS = {"a": (1.0, 0.0), "a + 2b": (1.0, 2.0)}
"""Along which a layer is slid, in lattice vectors."""


def fixed_path(evaluate: Evaluator, images: Sequence[System]) -> dict[str, Any]:
    """Report of a model on images as they are."""
    found = evaluate(images)
    return path_row(np.array([result.energy for result in found]), [result.forces for result in found])


def path_row(levels: np.ndarray, forces: Any) -> dict[str, Any]:
    """Report of energies (P,) in eV and forces (P, N, 3) in eV/Å of images as they are."""
    return {
        "profile_eV": levels - levels[0],
        "fixed_path_barrier_eV": float(levels.max() - levels[0]),
        "forces_eV_per_A": forces,
    }


def probe_path(model: Model, path: MigrationPath, config: Config, band: bool) -> dict[str, Any]:
    """Energies of all images as they are, and the model's own barrier if its ``band`` is asked for.

    Args:
        model: the potential may be that of the universal model; fine-tuned models have its network, and energy zeros
            cancel.
        path: published images.
        config: sizes and limits.
        band: whether the model relaxes a band of its own.
    """
    row = fixed_path(NativeEvaluator(model, dtype=DTYPE), path.images)
    if not band:
        return row
    try:
        band_of = path.band(config.n_images)
        own = neb(model, band_of, fmax=config.fmax, max_steps=config.max_steps, dtype=DTYPE)
    except ProbeDiverged as error:
        return {**row, "failed": str(error)}
    return {**row, "own": {**own.as_dict(), "barrier_eV": own.barrier_eV}}


def probe_crystal(model: Model, crystal: System, config: Config) -> dict[str, Any]:
    """Equilibrium lattice, elastic constants, and the energy of sliding one quintuple layer over the next."""
    fmax, steps = config.lattice_fmax, config.crystal_steps
    settings = SlidingSettings(fmax=fmax, max_steps=steps, dtype=DTYPE)
    try:
        relaxed = relax(model, [crystal], cell="full", fmax=fmax, max_steps=steps, dtype=DTYPE)
        found = relaxed.systems[0]
        profiles = {
            name: slide(model, found, vector=v, n_points=config.sliding_points, settings=settings).as_dict()
            for name, v in VECTORS.items()
        }
    except (ProbeDiverged, ValueError) as error:
        return {"failed": str(error)}
    try:
        evaluate = NativeEvaluator(model, dtype=DTYPE)
        elastic = elastic_constants(evaluate, found, relax_ions=False).as_dict()
    except ValueError as error:
        elastic = {"failed": str(error)}
    a, _, c = np.linalg.norm(np.asarray(found.cell, np.float64), axis=1).tolist()
    converged = bool(relaxed.converged[0])
    return {"a_A": a, "c_A": c, "converged": converged, "profiles": profiles, "elastic": elastic}
