"""``mlipjax doctor``: check a model and labelled structures before fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.error_tables import error_table
from mlipjax.cli.heads import load_head
from mlipjax.cli.labels import LabelOptions, plain_paths, set_name
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.wording import as_options
from mlipjax.data import Dataset
from mlipjax.finetune.doctor import Examination, examine
from mlipjax.finetune.findings import Finding
from mlipjax.finetune.settings import FinetuneSettings
from mlipjax.train import MAX_SLOTS


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Check whether fine-tuning a model on labelled structures makes sense; fatal findings exit non-zero.

    Attributes:
        model: name, .nqx file or saved folder to start from.
        train: labelled structures to train on: files of any format that ASE reads (extended xyz, ASE database, OUTCAR,
            vasprun.xml, ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data.
        valid: labelled structures for validation, if there are any; likewise.
        test: labelled structures for testing, if there are any.
        replay: structures to replay with labels of the model's own level of theory, if there are any.
        anchor: structures of the model's own level to measure the retained error on, if there are any.
        labels: names of the labels in the files.
        e0s: isolated-atom energies: a JSON file, "estimate" (least squares against the model), "isolated" (of the
            isolated atoms in the training set) or "model" (as is).
        head: name of the energy head; by default the model's first.
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; lower it if memory runs out.
        json: also write the findings to this file.
    """

    model: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    replay: tuple[Path, ...] = ()
    anchor: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    e0s: str = "model"
    head: str | None = None
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
    potential, params = load_head(command.model, command.head)
    given = [command.train, command.valid, command.test, command.replay, command.anchor]
    names = _names([paths for paths in given if paths])
    datasets, unreadable = _read(names, command.labels)
    if unreadable:
        examination = Examination(unreadable, {}, None)
    else:
        examination = examine(
            potential,
            params,
            datasets,
            own=[name for name, path in names.items() if path in (command.replay, command.anchor)],
            e0s=command.e0s,
            dtype=command.dtype,
            batch_size=command.batch_size,
            max_slots=command.max_slots,
        )
    _print(make_console(), examination)
    write_json(command.json, {**examination.to_json(), "model": command.model, "train": plain_paths(command.train)})
    if fatal := examination.fatal:
        raise ValueError(as_options(f"{len(fatal)} fatal: {'; '.join(map(str, fatal))}", FinetuneSettings))


def _names(sets: Sequence[tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    """What findings call the sets: names of files, or their paths if two have one name."""
    short = len({set_name(paths) for paths in sets}) == len(sets)
    names: dict[str, tuple[Path, ...]] = {}
    for paths in sets:
        name = set_name(paths) if short else " ".join(map(str, paths))
        if name in names:
            raise ValueError(f"{name} is given twice, as training and as validation data, say; leave one out.")
        names[name] = paths
    return names


def _read(names: Mapping[str, tuple[Path, ...]], labels: LabelOptions) -> tuple[dict[str, Dataset], list[Finding]]:
    """Read the files; one that cannot be read, or whose labels have other names, is a finding."""
    datasets: dict[str, Dataset] = {}
    findings = []
    for name, paths in names.items():
        try:
            datasets[name] = labels.read(paths, required=())
        except ValueError as error:
            findings.append(Finding("fatal", "reading", str(error).rstrip("."), "Correct the file."))
    return datasets, findings


def _print(console: Console, examination: Examination) -> None:
    if examination.findings:
        for finding in examination.findings:
            console.print(as_options(f"{finding.severity}: {finding}", FinetuneSettings), highlight=False, markup=False)
    else:
        console.print("nothing to complain about")
    if (estimate := examination.e0_estimate) is not None:
        console.print(
            f"E0s by least squares on {estimate.n_structures} energies: rank {estimate.rank} of {estimate.n_elements}, "
            f"error {1e3 * estimate.before:.1f} -> {1e3 * estimate.residual:.1f} meV/atom"
        )
    if examination.before:
        console.print("errors before training:", error_table(examination.before))
