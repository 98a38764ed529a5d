"""``mlipjax doctor``: check a model and labelled structures before fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.output import write_json
from mlipjax.cli.error_tables import error_table
from mlipjax.data import Dataset, read_dataset
from mlipjax.finetune.doctor import Examination, examine
from mlipjax.finetune.findings import Finding
from mlipjax.models import load
from mlipjax.train import MAX_SLOTS


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check whether fine-tuning a model on labelled structures makes sense; fatal findings exit non-zero.

    Attributes:
        model: name, .nqx file or saved folder to start from.
        train: labelled structures to train on (extended xyz, ASE database, or a folder of mlipjax convert --data).
        valid: labelled structures for validation, if there are any.
        e0s: isolated-atom energies: a JSON file, "estimate" (least squares against the model) or "model" (as is).
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; lower it if memory runs out.
        json: also write the findings to this file.
    """

    model: str
    train: Path
    valid: Path | None = None
    e0s: str = "model"
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 8
    max_slots: int = MAX_SLOTS
    json: Path | None = None


def run(command: Doctor) -> None:
    """Examine and print.

    Raises:
        ValueError, FileNotFoundError: if there is a fatal finding, or model or files cannot be used.
    """
    runtime.select_dtype(command.dtype)
    potential, params = load(command.model)
    datasets, unreadable = _read([command.train, *([] if command.valid is None else [command.valid])])
    if unreadable:
        examination = Examination(unreadable, {}, None)
    else:
        examination = examine(
            potential,
            params,
            datasets,
            e0s=command.e0s,
            dtype=command.dtype,
            batch_size=command.batch_size,
            max_slots=command.max_slots,
        )
    _print(Console(), examination)
    write_json(command.json, {**examination.to_json(), "model": command.model, "train": command.train})
    if fatal := examination.fatal:
        raise ValueError(f"{len(fatal)} fatal: {'; '.join(map(str, fatal))}")


def _read(paths: Sequence[Path]) -> tuple[dict[str, Dataset], list[Finding]]:
    """Read the files; one that cannot be read, or whose labels have other names, is a finding."""
    datasets: dict[str, Dataset] = {}
    findings = []
    short = len({path.name for path in paths}) == len(paths)
    for path in paths:
        name = path.name if short else str(path)
        if name in datasets:
            raise ValueError(f"{path} is given as training and as validation data; leave --valid out to split it.")
        try:
            datasets[name] = read_dataset(path, required=())
        except ValueError as error:
            findings.append(Finding("fatal", "reading", str(error).rstrip("."), "Correct the file."))
    return datasets, findings


def _print(console: Console, examination: Examination) -> None:
    if examination.findings:
        for finding in examination.findings:
            console.print(f"{finding.severity}: {finding}", highlight=False)
    else:
        console.print("nothing to complain about")
    if (estimate := examination.e0_estimate) is not None:
        console.print(
            f"E0s by least squares on {estimate.n_structures} energies: rank {estimate.rank} of {estimate.n_elements}, "
            f"error {1e3 * estimate.before:.1f} -> {1e3 * estimate.residual:.1f} meV/atom"
        )
    if examination.before:
        console.print("errors before training:", error_table(examination.before))
