"""``mlipjax doctor``: check a model and labelled structures before fine-tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from mlipjax.cli.options.common import LabelOptions
from mlipjax.cli.options.training import Doctor, Finetune
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.tables import error_table
from mlipjax.cli.wording import in_options, print_findings
from mlipjax.data import Dataset
from mlipjax.doctor import Examination, Finding, examine
from mlipjax.verbs import read
from mlipjax.verbs.dispersion import say_level
from mlipjax.verbs.inputs import name_of, open_native, told_paths


def run(command: Doctor) -> None:
    """Examine and print."""
    model = open_native(command.model, command.head).first
    given = [command.train, command.valid, command.test, command.replay, command.anchor]
    names = _names([paths for paths in given if paths])
    datasets, unreadable = _read(names, command.labels)
    if unreadable:
        examination = Examination(unreadable, {}, None)
    else:
        say_level(command.model, next(iter(datasets.values())))
        examination = examine(
            model,
            datasets,
            own=[name for name, path in names.items() if path in (command.replay, command.anchor)],
            e0s=command.e0s,
            dtype=command.dtype,
            batch_size=command.batch_size,
            max_slots=command.max_slots,
        )
    _print(make_console(quiet=command.quiet), examination)
    write_json(command.json, {**examination.to_json(), "model": command.model, "train": told_paths(command.train)})
    if fatal := examination.fatal:
        raise ValueError(in_options(f"{len(fatal)} fatal: {' '.join(map(str, fatal))}", Finetune))


def _names(sets: Sequence[tuple[Path, ...]]) -> dict[str, tuple[Path, ...]]:
    """Names of the sets in findings: names of files, or their paths if two have one name."""
    short = len({name_of(paths) for paths in sets}) == len(sets)
    names: dict[str, tuple[Path, ...]] = {}
    for paths in sets:
        name = name_of(paths) if short else " ".join(map(str, paths))
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
            datasets[name] = read(paths, **dataclasses.asdict(labels))
        except ValueError as error:
            findings.append(
                Finding("fatal", "reading", in_options(str(error), Doctor).rstrip("."), "Correct the file.")
            )
    return datasets, findings


def _print(console: Console, examination: Examination) -> None:
    # fatal ones are said once, as the error
    print_findings(console, (finding for finding in examination.findings if not finding.is_fatal))
    if not examination.findings:
        console.print("nothing to complain about")
    if (estimate := examination.e0_estimate) is not None:
        console.print(
            f"E0s by least squares on {estimate.n_structures} energies: rank {estimate.rank} of {estimate.n_elements}, "
            f"error {1e3 * estimate.before:.1f} -> {1e3 * estimate.residual:.1f} meV/atom"
        )
    if examination.before:
        console.print("errors before training:", error_table(examination.before))
