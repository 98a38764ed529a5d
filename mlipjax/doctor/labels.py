"""Checks of labels against the model's predictions, and the error before training.

A universal model is rarely exact but nearly always right within a factor of two, so labels in another unit, of the
other sign, or of other atoms stand out. Labels that have nothing to do with the model are the worst.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlipjax.doctor.agreement import cosine
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.energies import check_energies, energies_by_composition
from mlipjax.doctor.findings import Finding
from mlipjax.doctor.vectors import check_forces, check_stress
from mlipjax.doctor.work import check_work
from mlipjax.potential import Potential
from mlipjax.settings.finetune import STEP_0_LIMIT
from mlipjax.train import StructurePrediction

# A model that follows one kind of label so well knows these structures: where another kind disagrees, labels are wrong.
_FOLLOWS = 0.8


def check_predictions(potential: Potential, compared: list[Compared], *, e0s: str, dtype: str) -> list[Finding]:
    """Run all checks against the model.

    While energies are in another unit, the error before training says nothing else and is left out.

    Args:
        potential: with the isolated-atom energies that training will use.
        compared: labels and predictions.
        e0s: where the isolated-atom energies are from, in words.
        dtype: precision of training.
    """
    findings: list[Finding] = []
    for part in compared:
        forces, stress, energies = check_forces(part), check_stress(part), check_energies(part)
        wrong = _weigh(part, [*forces, *stress, *energies])
        # what is in another unit, or of other structures, does no work
        findings += wrong or check_work(part)
        if not any(finding.severity == "fatal" and finding.check in ("units", "placeholder") for finding in energies):
            findings += [*check_step_0([part], e0s), *check_energy_range(potential, [part], dtype)]
    return findings


def _weigh(part: Compared, findings: list[Finding]) -> list[Finding]:
    """Disagreement without a name is fatal if the model follows the other labels of the same structures."""
    if not any(finding.check == "agreement" for finding in findings) or not _follows(part):
        return findings
    return [f._replace(severity="fatal") if f.check == "agreement" else f for f in findings]


def _follows(part: Compared) -> bool:
    """Whether the model follows forces, stresses or energies."""
    forces = [(label.forces, found.forces) for _, (_, label, _), found in part if label.forces_weight > 0.0]
    stresses = [(label.stress, found.stress) for _, (_, label, _), found in part if label.stress_weight > 0.0]
    energies = [
        (np.array([e.label for e in group]) - np.mean([e.label for e in group]), [e.model for e in group])
        for group in energies_by_composition(part)
        if len(group) >= 3
    ]
    energies = [(label, np.asarray(model) - np.mean(model)) for label, model in energies]
    return any(
        sum(np.size(label) for label, _ in pairs) >= least
        and cosine(*(np.concatenate([np.ravel(values) for values in side]) for side in zip(*pairs, strict=True)))
        > _FOLLOWS
        for pairs, least in ((forces, 24), (stresses, 24), (energies, 8))
    )


def check_step_0(compared: list[Compared], e0s: str) -> list[Finding]:
    """The energy error before training: above 500 meV/atom the isolated-atom energies do not fit."""
    findings = []
    for part in compared:
        rows = [row for row, label in enumerate(part.dataset.labels) if label.energy_weight > 0.0]
        if not rows:
            continue
        errors = np.array(
            [
                (part.predictions[row].energy - float(part.dataset.labels[row].energy))
                / part.dataset.systems[row].n_atoms
                for row in rows
            ]
        )
        error = float(np.sqrt(np.mean(errors**2)))
        if not error <= STEP_0_LIMIT:
            message = (
                f"before training the energy error is {1e3 * error:.0f} meV/atom with E0s from {e0s!r}, above "
                f"{1e3 * STEP_0_LIMIT:.0f}: they do not fit (n = {len(rows)}, {part.name})"
            )
            remedy = (
                "Either the labels come from another code or other pseudopotentials than the E0s, or this model was "
                "trained with E0s fitted to total energies, which true isolated atoms cannot replace. Set "
                'e0s="estimate" (a least-squares shift); to train all the same, say so (allow_e0_mismatch).'
            )
            worst = [rows[i] for i in np.argsort(-np.abs(errors))]
            frames = tuple((part.name, part.indices[row]) for row in worst)
            findings.append(Finding("fatal", "step-0", message, remedy, frames))
    return findings


def check_energy_range(potential: Potential, compared: list[Compared], dtype: str) -> list[Finding]:
    """Energies that are still so large without isolated atoms that single precision rounds them noticeably."""
    if dtype != "float32":
        return []
    frames, worst = [], 0.0
    for part in compared:
        for index, (system, label, _) in zip(part.indices, part.dataset, strict=True):
            if label.energy_weight > 0.0:
                interaction = float(label.energy) - potential.reference_energy(np.asarray(system.atomic_numbers))
                rounding = 2.0**-24 * abs(interaction) / system.n_atoms
                if rounding > 1e-4:
                    worst = max(worst, rounding)
                    frames.append((part.name, index))
    if not frames:
        return []
    message = f"float32 rounds energies by up to {1e3 * worst:.2g} meV/atom, so large are they without isolated atoms"
    return [Finding("warning", "range", message, 'Set e0s="estimate" or a file, or dtype="float64".', tuple(frames))]


def check_zero_shot(
    before: Sequence[StructurePrediction], after: list[StructurePrediction], name: str, dtype: str
) -> list[Finding]:
    """Whether a model with adapters or another head, not yet trained, predicts what the model it was made from does."""
    tolerance = 1e-3 if dtype == "float32" else 1e-8
    difference = max(
        float(np.max(np.abs(new.forces - old.forces), initial=0.0)) for old, new in zip(before, after, strict=True)
    )
    if difference <= tolerance:
        return []
    message = f"at step 0 forces differ from the model's own by {difference:.2g} eV/Å on {name}, above {tolerance:g}"
    remedy = "Adapters or heads changed the model before training: this is a defect of the program, please report it."
    return [Finding("fatal", "zero-shot", message, remedy)]
