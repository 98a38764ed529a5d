"""The examination before a fine-tune: would training on these labels, from this model, make sense?

The same checks run in ``mlipjax doctor`` and at the start of every fine-tune; fatal findings stop both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.finetune.doctor_labels import Compared, check_predictions
from mlipjax.finetune.doctor_splits import check_splits
from mlipjax.finetune.doctor_strain import check_strain
from mlipjax.finetune.doctor_structures import check_structures
from mlipjax.finetune.findings import Finding, sort_findings
from mlipjax.potential import Potential
from mlipjax.train import (
    E0Estimate,
    LabelledBatches,
    error_report,
    estimate_e0s,
    predict,
    read_e0s,
    set_e0s,
    shift_e0s,
)
from mlipjax.typing import Params

SAMPLE = 64
"""Structures of a data set that are compared with the model."""


class Examination(NamedTuple):
    """What the doctor found.

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
        return [finding for finding in self.findings if finding.severity == "fatal"]

    def to_json(self) -> dict[str, Any]:
        """Return everything in JSON types."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "n_fatal": len(self.fatal),
            "before": self.before,
            "e0_estimate": None if self.e0_estimate is None else self.e0_estimate.to_json(),
        }


def examine(
    potential: Potential,
    params: Params,
    datasets: Mapping[str, Dataset],
    *,
    e0s: str = "model",
    dtype: str = "float32",
    batch_size: int = 8,
    max_slots: int = 65_536,
) -> Examination:
    """Check model and labelled structures.

    Args:
        potential: where a fine-tune would start.
        params: its parameters.
        datasets: labelled structures by name; the first is the training set, on which E0s are estimated.
        e0s: isolated-atom energies: a JSON file, "estimate" or "model".
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once.

    Raises:
        ValueError: if a data set is empty or the file of E0s cannot be used.
    """
    findings = check_data(potential, datasets, dtype=dtype)
    if any(finding.severity == "fatal" and finding.check in ("elements", "labels") for finding in findings):
        return Examination(sort_findings(findings), {}, None)
    params = tree.cast(params, dtype)
    batches = {
        name: LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
        for name, dataset in datasets.items()
    }
    first = next(iter(batches.values()))
    if e0s == "estimate" and not any(label.energy_weight > 0.0 for label in first.dataset.labels):
        e0s = "model"
    settled = settle_e0s(potential, params, first, e0s)
    parts = {name: part.part(SAMPLE) for name, part in batches.items()}
    compared = [compare(name, settled.potential, params, part) for name, part in parts.items()]
    findings += check_predictions(settled.potential, compared, e0s=e0s, dtype=dtype) + settled.findings
    findings += [
        found for name, part in parts.items() for found in strain_findings(findings, name, potential, params, part)
    ]
    if any(finding.check == "units" and finding.severity == "fatal" for finding in findings):
        # numbers in another unit are not large, they are in another unit
        findings = [finding for finding in findings if (finding.severity, finding.check) != ("warning", "range")]
    before = {part.name: error_report(part.dataset, part.predictions) for part in compared}
    return Examination(sort_findings(findings), before, settled.estimate)


def check_data(potential: Potential, datasets: Mapping[str, Dataset], *, dtype: str) -> list[Finding]:
    """Run the checks that need no prediction."""
    return [*check_structures(potential, datasets, dtype=dtype), *check_splits(datasets)]


class Settled(NamedTuple):
    """A potential with the isolated-atom energies that training will use, and where they are from."""

    potential: Potential
    estimate: E0Estimate | None
    findings: list[Finding]


def settle_e0s(potential: Potential, params: Params, batches: LabelledBatches, e0s: str) -> Settled:
    """Set the isolated-atom energies of the first head as ``e0s`` says.

    Args:
        potential: with the energies it came with.
        params: its parameters.
        batches: training structures.
        e0s: a JSON file, ``"estimate"`` or ``"model"``.

    Raises:
        ValueError: if the file cannot be used or lacks an element, or no structure has an energy.
    """
    if e0s == "model":
        return Settled(potential, None, [])
    if e0s != "estimate":
        changed = set_e0s(potential, read_e0s(e0s), required=batches.dataset.elements)
        return Settled(changed, None, [])
    estimate = estimate_e0s(batches.dataset, predict(potential, params, batches))
    findings = []
    if estimate.rank < estimate.n_elements:
        message = (
            f"the compositions of {estimate.n_structures} structures fix {estimate.rank} of {estimate.n_elements} "
            "energy shifts; the smallest that explain the data were taken (the limit of ridge regression)"
        )
        remedy = "Do not trust energies of other compositions; give isolated-atom energies in a file if you have them."
        findings.append(Finding("info", "e0s", message, remedy))
    return Settled(shift_e0s(potential, estimate.shifts), estimate, findings)


def strain_findings(
    findings: Sequence[Finding], name: str, potential: Potential, params: Params, batches: LabelledBatches
) -> list[Finding]:
    """Check the sign of the stress by strain, unless the model's own stress has already shown that it is wrong."""
    wrong = any(f.severity == "fatal" and f.check in ("sign", "units") for f in findings)
    return [] if wrong else check_strain(name, potential, params, batches)


def compare(name: str, potential: Potential, params: Params, batches: LabelledBatches) -> Compared:
    """Predict structures with the isolated-atom energies of ``potential``, which may differ from the batches'."""
    batches = batches.with_potential(potential)
    indices = batches.planned
    return Compared(name, indices, batches.dataset.subset(indices), predict(potential, params, batches))
