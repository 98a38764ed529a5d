"""Isolated-atom energies (E0s) against labels: the error before training, and what the data fix of them."""

from __future__ import annotations

import numpy as np

from mlipjax.data.splits import IsolatedAtoms
from mlipjax.doctor.compared import Compared, Role, rms
from mlipjax.doctor.findings import Finding
from mlipjax.elements import listed
from mlipjax.potential import Potential
from mlipjax.settings.finetune import STEP_0_LIMIT
from mlipjax.train import E0Estimate, set_e0s

_REMEDIES: dict[Role, str] = {
    "train": "Either the labels come from another code or other pseudopotentials than the E0s, or this model was "
    "trained with E0s fitted to total energies, which true isolated atoms cannot replace. Set "
    'e0s="estimate" (a least-squares shift); to train all the same, say so (allow_e0_mismatch).',
    "other": "They need labels of the level of theory of the training set, whose E0s are used.",
    "own": "They need labels of the level of theory that the model was trained with.",
}
_MOST = 0.75
"""Part of the structures that fit, from which on it is the others that are wrong, and not the zero of energy."""
# eV/atom: rounding that is a part of what training improves.
_ROUNDING = 1e-4


def check_step_0(part: Compared, e0s: str) -> list[Finding]:
    """Check the energy error before training: above 500 meV/atom the isolated-atom energies do not fit.

    Args:
        part: labels and predictions.
        e0s: where the isolated-atom energies are from, in words.
    """
    rows = part.rows("energy")
    errors = np.array([(row.model - row.label).item() / row.system.n_atoms for row in rows])
    if rms(errors) <= STEP_0_LIMIT:
        return []
    message = (
        f"before training the energy error is {1e3 * rms(errors):.0f} meV/atom with E0s from {e0s!r}, above "
        f"{1e3 * STEP_0_LIMIT:.0f}: they do not fit (n = {len(rows)}, {part.name})"
    )
    worst = [rows[place] for place in np.argsort(-np.abs(errors))]
    far = int(np.sum(np.abs(errors) > STEP_0_LIMIT))
    rest = rms(np.sort(np.abs(errors))[: len(rows) - far])
    if len(rows) - far >= _MOST * len(rows) and rest <= 0.5 * STEP_0_LIMIT:
        message = (
            f"before training the energies of {far} of {len(rows)} structures of {part.name} are off by up to "
            f"{1e3 * np.abs(errors).max():.0f} meV/atom (limit {1e3 * STEP_0_LIMIT:.0f}), those of the others by "
            f"{1e3 * rest:.0f}: these labels are of other structures or wrong, or the model does not know them"
        )
        remedy = "Compare these structures with the output of their calculations; correct them or leave them out."
        return [part.finding("fatal", "step-0", message, remedy, worst[:far])]
    return [part.finding("fatal", "step-0", message, _REMEDIES[part.role], worst)]


def check_energy_range(potential: Potential, part: Compared, dtype: str) -> list[Finding]:
    """Find energies that are still so large without isolated atoms that single precision rounds them noticeably.

    Args:
        potential: with the isolated-atom energies that training will use.
        part: labels.
        dtype: precision of training.
    """
    if dtype != "float32":
        return []
    rows = part.rows("energy")
    interaction = [
        (row.label.item() - potential.reference_energy(row.system.atomic_numbers)) / row.system.n_atoms for row in rows
    ]
    rounding = 2.0**-24 * np.abs(interaction)
    large = [rows[place] for place in np.flatnonzero(rounding > _ROUNDING)]
    if not large:
        return []
    worst = float(rounding.max())
    message = f"float32 rounds energies by up to {1e3 * worst:.2g} meV/atom, so large are they without isolated atoms"
    return [part.finding("warning", "range", message, 'Set e0s="estimate" or a file, or dtype="float64".', large)]


def check_estimate(estimate: E0Estimate | None) -> list[Finding]:
    """Say if compositions do not fix the shifts of all elements."""
    if estimate is None or estimate.rank == estimate.n_elements:
        return []
    message = (
        f"the compositions of {estimate.n_structures} structures fix {estimate.rank} of {estimate.n_elements} "
        "energy shifts; the smallest that explain the data were taken (the limit of ridge regression)"
    )
    remedy = "Do not trust energies of other compositions; give isolated-atom energies in a file if you have them."
    return [Finding("info", "e0s", message, remedy)]


def check_isolated(potential: Potential, part: Compared, isolated: IsolatedAtoms, e0s: str) -> list[Finding]:
    """Say that isolated atoms were set apart, and what their energies would do as E0s.

    Args:
        potential: with the isolated-atom energies that training will use.
        part: training structures, with predictions of this potential.
        isolated: of the training set.
        e0s: where the potential's are from.
    """
    if not isolated.indices:
        return []
    atoms = ", ".join(f"{listed([z])} {energy:.4g} eV" for z, energy in sorted(isolated.energies.items()))
    message = f"{len(isolated.indices)} isolated atoms ({atoms or 'without energies'}) are set apart"
    remedy = "They are neither trained on nor validated with."
    rows = part.rows("energy")
    if rows and e0s != "isolated" and set(part.dataset.elements) <= set(isolated.energies):
        changed, sizes = set_e0s(potential, isolated.energies), np.array([row.system.n_atoms for row in rows])
        errors = np.array([(row.model - row.label).item() for row in rows]) / sizes
        now, then = (
            np.array([one.reference_energy(row.system.atomic_numbers) for row in rows]) for one in (potential, changed)
        )
        others = errors + (then - now) / sizes
        message += (
            f"; with them as E0s the energy error before training is {1e3 * rms(others):.0f} meV/atom, "
            f"with {e0s!r} {1e3 * rms(errors):.0f}"
        )
        remedy += (
            ' e0s="isolated" takes them, which is right for models that were trained with true isolated atoms, and '
            "wrong for those whose E0s were fitted to total energies."
        )
    return [Finding("info", "isolated", message, remedy, tuple((part.name, index) for index in isolated.indices))]
