"""Labels, predictions and errors of a data set side by side, as ``ase.Atoms``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress

from mlipjax.data import Dataset
from mlipjax.train.batches import StructurePrediction


def beside_labels(dataset: Dataset, predictions: Sequence[StructurePrediction], model: str) -> Iterator[Atoms]:
    """Yield every structure with predictions as its results, and labels and errors beside them.

    Results are ``energy`` (eV), ``forces`` (eV/Å) and, of periodic structures, ``stress`` (eV/Å^3). As far as there are
    labels, ``info`` has ``reference_energy``, ``reference_stress`` (3, 3), ``energy_error_meV_per_atom``,
    ``force_mae_meV_per_A``, ``force_largest_error_meV_per_A`` (norm, of one atom), ``stress_mae_meV_per_A3`` and the
    ``model``; the array ``reference_forces`` holds the labels of forces. What the file said besides stays in ``info``.

    Args:
        dataset: structures and labels.
        predictions: of a model, in the same order.
        model: its name.
    """
    for (system, labels, info), found in zip(dataset, predictions, strict=True):
        atoms = system.to_ase()
        atoms.info = {**info, "model": model}
        results: dict[str, Any] = {"energy": found.energy, "forces": np.asarray(found.forces)}
        if any(system.pbc) and atoms.cell.rank == 3:
            results["stress"] = full_3x3_to_voigt_6_stress(found.stress)
        atoms.calc = SinglePointCalculator(atoms, **results)
        if labels.energy_weight > 0:
            error = found.energy - float(labels.energy)
            atoms.info["reference_energy"] = float(labels.energy)
            atoms.info["energy_error_meV_per_atom"] = 1e3 * error / len(atoms)
        if labels.forces_weight > 0:
            reference = np.asarray(labels.forces, np.float64)
            atoms.arrays["reference_forces"] = reference
            atoms.info["force_mae_meV_per_A"] = 1e3 * float(np.abs(found.forces - reference).mean())
            worst = np.linalg.norm(found.forces - reference, axis=1).max()
            atoms.info["force_largest_error_meV_per_A"] = 1e3 * float(worst)
        if labels.stress_weight > 0:
            reference = np.asarray(labels.stress, np.float64)
            atoms.info["reference_stress"] = reference
            atoms.info["stress_mae_meV_per_A3"] = 1e3 * float(np.abs(found.stress - reference).mean())
        yield atoms
