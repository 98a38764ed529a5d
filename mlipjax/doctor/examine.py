"""The examination before a fine-tune: would training on these labels, from this model, make sense?

The same checks run in ``mlipjax doctor`` and at the start of every fine-tune; fatal findings stop both. Nothing is
changed: where E0s have to be chosen, a copy of the potential is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.data.splits import set_apart
from mlipjax.doctor.compared import Compared, Role, by_composition, centered, pooled
from mlipjax.doctor.energies import check_energies
from mlipjax.doctor.energy_zero import check_energy_range, check_estimate, check_isolated, check_step_0
from mlipjax.doctor.findings import Finding, locate, sort_findings
from mlipjax.doctor.splits import check_splits
from mlipjax.doctor.strain import check_strain
from mlipjax.doctor.structures import check_structures
from mlipjax.doctor.vectors import check_forces, check_stress
from mlipjax.doctor.work import check_work
from mlipjax.graph import CoincidingAtoms
from mlipjax.potential import Model, Potential
from mlipjax.train import E0Estimate, LabelledBatches, StructurePrediction, error_report, predict, settle_e0s
from mlipjax.typing import Params

SAMPLE = 64
"""Structures of a data set that are compared with the model."""
# A model that follows one kind of label so well knows these structures: where another kind disagrees, labels are wrong.
_FOLLOWS = 0.8


class Examination(NamedTuple):
    """Findings of the doctor.

    Attributes:
        findings: gravest first.
        before: error report of the model on each data set (a sample of it), after E0 handling; empty if an element
            is unknown or there are no labels.
        e0_estimate: of ``e0s="estimate"``.
    """

    findings: list[Finding]
    before: dict[str, dict[str, Any]]
    e0_estimate: E0Estimate | None

    @property
    def fatal(self) -> list[Finding]:
        """Findings that forbid training."""
        return [finding for finding in self.findings if finding.is_fatal]

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "n_fatal": len(self.fatal),
            "before": self.before,
            "e0_estimate": None if self.e0_estimate is None else self.e0_estimate.to_json(),
        }


def examine(
    model: Model,
    datasets: Mapping[str, Dataset],
    *,
    own: Sequence[str] = (),
    e0s: str = "model",
    dtype: str = "float32",
    batch_size: int = 8,
    max_slots: int | None = None,
) -> Examination:
    """Check model and labelled structures.

    Args:
        model: where a fine-tune would start.
        datasets: labelled structures by name; the first is the training set, on which E0s are estimated.
        own: names of those whose labels are of the level of theory that the model was trained with (replay, anchor).
        e0s: isolated-atom energies: a JSON file, "estimate", "isolated" (of the training set) or "model".
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; as for ``LabelledBatches.create``.

    Raises:
        ValueError: if a data set is empty or the file of E0s cannot be used.
    """
    if not datasets:
        raise ValueError("there is no data set to check.")
    potential, params = model.potential, tree.cast(model.params, dtype)
    apart = {name: set_apart(dataset) for name, dataset in datasets.items()}
    datasets = {name: part.rest for name, part in apart.items()}
    train, isolated = next(iter(apart.items()))
    findings = check_data(potential, datasets, dtype=dtype)
    if any(finding.is_fatal and finding.check in ("elements", "labels") for finding in findings):
        return Examination(sort_findings(findings), {}, None)
    try:
        batches = {
            name: LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
            for name, dataset in datasets.items()
        }
    except CoincidingAtoms as error:  # nothing can be predicted; most are among the findings already
        if not any(finding.is_fatal and finding.check == "distances" for finding in findings):
            findings.append(Finding("fatal", "distances", str(error).rstrip("."), "Remove these structures."))
        return Examination(sort_findings(findings), {}, None)
    if e0s == "estimate" and not datasets[train].count_labels()["energy"]:
        e0s = "model"
    settled, estimate = settle_e0s(potential, params, batches[train], e0s, isolated.energies)
    before = {}
    for name, part in batches.items():
        role: Role = "own" if name in own else "train" if name == train else "other"
        part = part.with_potential(potential if role == "own" else settled)
        compared, found = check_set(name, params, part, e0s="model" if role == "own" else e0s, dtype=dtype, role=role)
        findings += found
        if name == train:
            findings += [*check_estimate(estimate), *check_isolated(settled, compared, isolated, e0s)]
        before[name] = error_report(compared.dataset, compared.predictions)
    if any(finding.check == "units" and finding.is_fatal for finding in findings):
        # numbers in another unit are not large, they are in another unit
        findings = [finding for finding in findings if (finding.severity, finding.check) != ("warning", "range")]
    return Examination(sort_findings(findings), before, estimate)


def check_data(potential: Potential, datasets: Mapping[str, Dataset], *, dtype: str) -> list[Finding]:
    """Run the checks that need no prediction.

    Args:
        potential: which elements it knows.
        datasets: structures and labels by the name that findings call them.
        dtype: precision of training.

    Raises:
        ValueError: if a set is empty.
    """
    empty = [name for name, dataset in datasets.items() if not len(dataset)]
    if empty:
        raise ValueError(f"{empty[0]}: no structure is left beside isolated atoms; a model learns nothing from those.")
    return locate([*check_structures(potential, datasets, dtype=dtype), *check_splits(datasets)], datasets)


def check_set(
    name: str, params: Params, batches: LabelledBatches, *, e0s: str, dtype: str, role: Role = "train"
) -> tuple[Compared, list[Finding]]:
    """Compare labels of a data set (a sample of it) with predictions.

    Args:
        name: of the data set.
        params: parameters of the potential.
        batches: labelled structures, with the potential whose isolated-atom energies training will use.
        e0s: where these energies are from, in words.
        dtype: precision of training.
        role: of the data set.

    Returns:
        What was compared, and what was found.
    """
    whole = batches.dataset
    batches = batches.part(SAMPLE)
    compared = compare(name, params, batches, role)
    findings = check_predictions(batches.potential, compared, e0s=e0s, dtype=dtype)
    # by strain only if the model's own stress has not shown already that the sign is wrong
    if not any(finding.is_fatal and finding.check in ("sign", "units") for finding in findings):
        findings += check_strain(name, params, batches)
    return compared, locate(findings, {name: whole})


def compare(name: str, params: Params, batches: LabelledBatches, role: Role = "train") -> Compared:
    """Predict the structures of batches.

    Args:
        name: of the set, for findings.
        params: of the batches' potential.
        batches: labelled structures.
        role: of the data set.
    """
    indices, dataset = batches.planned, batches.dataset
    return Compared(name, indices, dataset.subset(indices), predict(batches.potential, params, batches), dataset, role)


def suspect_labels(name: str, dataset: Dataset, predictions: Sequence[StructurePrediction]) -> list[Finding]:
    """Check labels that errors are measured on, by predictions that are known: what would be fatal in training.

    Args:
        name: of the data set.
        dataset: structures and labels; a sample of them is looked at.
        predictions: of any model, in the same order. Isolated-atom energies do not matter.
    """
    rows = np.unique(np.linspace(0, len(dataset) - 1, min(SAMPLE, len(dataset))).round().astype(int))
    part = Compared(name, tuple(rows.tolist()), dataset.subset(rows), [predictions[row] for row in rows], dataset)
    return [
        finding for finding in locate(_check_labels(part, check_energies(part)), {name: dataset}) if finding.is_fatal
    ]


def check_predictions(potential: Potential, part: Compared, *, e0s: str, dtype: str) -> list[Finding]:
    """Run all checks of labels against the model's predictions, and of the error before training.

    A universal model is rarely exact but nearly always right within a factor of two, so labels in another unit, of the
    other sign, or of other atoms stand out. Labels that have nothing to do with the model are the worst. While energies
    are in another unit or place, the error before training says nothing else and is left out.

    Args:
        potential: with the isolated-atom energies that training will use.
        part: labels and predictions.
        e0s: where the isolated-atom energies are from, in words.
        dtype: precision of training.
    """
    energies = check_energies(part)
    findings = _check_labels(part, energies)
    if not any(finding.is_fatal and finding.check in ("units", "placeholder", "order") for finding in energies):
        findings += [*check_step_0(part, e0s), *check_energy_range(potential, part, dtype)]
    return findings


def _check_labels(part: Compared, energies: Sequence[Finding]) -> list[Finding]:
    """The checks that hold whatever the isolated-atom energies are, with those of energies."""
    findings = [*check_forces(part), *check_stress(part), *energies]
    if any(finding.check == "agreement" for finding in findings) and _follows(part):
        findings = [f._replace(severity="fatal") if f.check == "agreement" else f for f in findings]
    # what is in another unit, or of other structures, does no work
    return findings or check_work(part)


def _follows(part: Compared) -> bool:
    """Return whether the model follows forces, stresses or energies of a few structures or more."""
    energies = centered(by_composition(part.rows("energy")))
    kinds = ((part.rows("forces"), 24), (part.rows("stress"), 16), (energies, 8))
    return any(sum(len(row.label) for row in rows) >= least and pooled(rows).fit > _FOLLOWS for rows, least in kinds)


def check_zero_shot(
    before: Sequence[StructurePrediction], after: Sequence[StructurePrediction], dtype: str
) -> list[Finding]:
    """Check that a model with adapters or another head, not yet trained, predicts what the one it was made from does.

    Args:
        before: predictions of the first,
        after: and of the second.
        dtype: precision of training.
    """
    tolerance = 1e-3 if dtype == "float32" else 1e-8
    difference = max(
        float(np.max(np.abs(new.forces - old.forces), initial=0.0)) for old, new in zip(before, after, strict=True)
    )
    if difference <= tolerance:
        return []
    message = f"at step 0 forces differ from the model's own by {difference:.2g} eV/Å on train, above {tolerance:g}"
    remedy = "Adapters or heads changed the model before training: this is a defect of the program, please report it."
    return [Finding("fatal", "zero-shot", message, remedy)]
