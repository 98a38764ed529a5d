"""The examination before a fine-tune: would training on these labels, from this model, make sense?

The same checks run in ``mlipjax doctor`` and at the start of every fine-tune; fatal findings stop both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlipjax import tree
from mlipjax.data import Dataset
from mlipjax.doctor.agreement import rms
from mlipjax.doctor.compared import Compared
from mlipjax.doctor.findings import Finding, sort_findings
from mlipjax.doctor.labels import check_predictions
from mlipjax.doctor.splits import check_splits
from mlipjax.doctor.strain import check_strain
from mlipjax.doctor.structures import check_structures
from mlipjax.graph import CoincidingAtoms
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
from mlipjax.train.isolated import IsolatedAtoms, set_apart, set_isolated
from mlipjax.typing import Params

SAMPLE = 64
"""Structures of a data set that are compared with the model."""

OWN_LEVEL = "They need labels of the level of theory that the model was trained with."


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
    own: Sequence[str] = (),
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
        own: names of those whose labels are of the level of theory that the model was trained with (replay, anchor).
        e0s: isolated-atom energies: a JSON file, "estimate", "isolated" (of the training set) or "model".
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once.

    Raises:
        ValueError: if a data set is empty or the file of E0s cannot be used.
    """
    if not datasets:
        raise ValueError("there is no data set to check.")
    apart = {name: set_apart(dataset) for name, dataset in datasets.items()}
    datasets = {name: part.rest for name, part in apart.items()}
    isolated = next(iter(apart.values()))
    findings = check_data(potential, datasets, dtype=dtype)
    if any(finding.severity == "fatal" and finding.check in ("elements", "labels") for finding in findings):
        return Examination(sort_findings(findings), {}, None)
    params = tree.cast(params, dtype)
    try:
        batches = {
            name: LabelledBatches.create(potential, dataset, batch_size, dtype=dtype, max_slots=max_slots)
            for name, dataset in datasets.items()
        }
    except CoincidingAtoms as error:  # nothing can be predicted; most are among the findings already
        findings.append(Finding("fatal", "distances", str(error).rstrip("."), "Remove these structures."))
        return Examination(sort_findings(findings), {}, None)
    first = next(iter(batches.values()))
    if e0s == "estimate" and not any(label.energy_weight > 0.0 for label in first.dataset.labels):
        e0s = "model"
    settled = settle_e0s(potential, params, first, e0s, isolated)
    parts = {name: part.part(SAMPLE) for name, part in batches.items()}
    compared = [
        compare(name, potential if name in own else settled.potential, params, part) for name, part in parts.items()
    ]
    for part in compared:
        one = potential if part.name in own else settled.potential
        found = check_predictions(one, [part], e0s="model" if part.name in own else e0s, dtype=dtype)
        findings += of_other_sets(found, own=part.name in own) if part is not compared[0] else found
        findings += strain_findings(found, part.name, potential, params, parts[part.name])
    findings += settled.findings + isolated_findings(settled.potential, compared[0], isolated, e0s)
    if any(finding.check == "units" and finding.severity == "fatal" for finding in findings):
        # numbers in another unit are not large, they are in another unit
        findings = [finding for finding in findings if (finding.severity, finding.check) != ("warning", "range")]
    before = {part.name: error_report(part.dataset, part.predictions) for part in compared}
    return Examination(sort_findings(findings), before, settled.estimate)


def of_other_sets(findings: Sequence[Finding], *, own: bool = False) -> list[Finding]:
    """Findings on other sets than the training set, whose E0s cannot be chosen for them."""
    remedy = OWN_LEVEL if own else "They need labels of the level of theory of the training set, whose E0s are used."
    return [finding._replace(remedy=remedy) if finding.check == "step-0" else finding for finding in findings]


def check_data(potential: Potential, datasets: Mapping[str, Dataset], *, dtype: str) -> list[Finding]:
    """Run the checks that need no prediction.

    Raises:
        ValueError: if a set is empty.
    """
    empty = [name for name, dataset in datasets.items() if not len(dataset)]
    if empty:
        raise ValueError(f"{empty[0]}: no structure is left beside isolated atoms; a model learns nothing from those.")
    return [*check_structures(potential, datasets, dtype=dtype), *check_splits(datasets)]


class Settled(NamedTuple):
    """A potential with the isolated-atom energies that training will use, and where they are from."""

    potential: Potential
    estimate: E0Estimate | None
    findings: list[Finding]


def isolated_findings(potential: Potential, part: Compared, isolated: IsolatedAtoms, e0s: str) -> list[Finding]:
    """Say that isolated atoms were set apart, and what their energies would do as E0s.

    Args:
        potential: with the isolated-atom energies that training will use.
        part: training structures, with predictions of this potential.
        isolated: of the training set.
        e0s: where the potential's are from.
    """
    if not isolated.indices:
        return []
    from ase.data import chemical_symbols

    symbols = ", ".join(f"{chemical_symbols[z]} {energy:.4g} eV" for z, energy in sorted(isolated.energies.items()))
    message = f"{len(isolated.indices)} isolated atoms ({symbols or 'without energies'}) are set apart"
    remedy = "They are neither trained on nor validated with."
    if e0s != "isolated" and set(part.dataset.elements) <= set(isolated.energies):
        changed = set_e0s(potential, isolated.energies)
        errors, others = [], []
        for _, (system, label, _), found in part:
            if label.energy_weight > 0.0:
                numbers = np.asarray(system.atomic_numbers)
                shift = changed.reference_energy(numbers) - potential.reference_energy(numbers)
                errors.append((found.energy - float(label.energy)) / len(numbers))
                others.append(errors[-1] + shift / len(numbers))
        if errors:
            message += (
                f"; with them as E0s the energy error before training is {1e3 * rms(np.array(others)):.0f} meV/atom, "
                f"with {e0s!r} {1e3 * rms(np.array(errors)):.0f}"
            )
            remedy += (
                ' e0s="isolated" takes them, which is right for models that were trained with true isolated atoms, and '
                "wrong for those whose E0s were fitted to total energies."
            )
    return [Finding("info", "isolated", message, remedy, tuple((part.name, index) for index in isolated.indices))]


def settle_e0s(
    potential: Potential,
    params: Params,
    batches: LabelledBatches,
    e0s: str,
    isolated: IsolatedAtoms | None = None,
) -> Settled:
    """Set the isolated-atom energies of the first head as ``e0s`` says.

    Args:
        potential: with the energies it came with.
        params: its parameters.
        batches: training structures.
        e0s: a JSON file, ``"estimate"``, ``"isolated"`` or ``"model"``.
        isolated: atoms of the training set, for ``"isolated"``.

    Raises:
        ValueError: if the file or the isolated atoms cannot be used or lack an element, or no structure has an energy.
    """
    if e0s == "model":
        return Settled(potential, None, [])
    if e0s == "isolated":
        energies = {} if isolated is None else isolated.energies
        return Settled(set_isolated(potential, energies, batches.dataset.elements), None, [])
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
    return Compared(
        name, indices, batches.dataset.subset(indices), predict(potential, params, batches), batches.dataset
    )
