"""``mlipjax finetune``: fine-tune a model on labelled structures, or to a property of structures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.output import write_json
from mlipjax.cli.properties import learn_property
from mlipjax.cli.error_tables import error_table
from mlipjax.data import read_dataset
from mlipjax.finetune.properties_settings import PropertySettings
from mlipjax.finetune.settings import FinetuneSettings
from mlipjax.finetune.single import finetune
from mlipjax.models import load


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Fine-tune a model on labelled structures; the same command again resumes a run that was stopped.

    With --property the model gets a head for a number per structure instead, by --strategy scratch, ft (all
    parameters), lp (the head alone) or mft (together with the force field, on --replay structures).

    Attributes:
        model: name, .nqx file or saved folder to start from.
        out: folder of the run; at the end a model itself.
        train: labelled structures: extended xyz (.gz, .xz too), OUTCAR, vasprun.xml, ASE database and trajectory or
            whatever else ASE reads with energies and forces; or a folder of mlipjax convert --data, from which only
            what a batch needs is read. Files of other options may be any of these too.
        property: structures and a number for each instead, as FILE:KEY: an array of an .npz file, or information in
            any file that ASE reads.
        valid: structures for validation, like those of training; by default a part of them (labelled structures by
            trajectory).
        settings: everything else.
        task: of the property.
        json: also write the report to this file.
    """

    model: str
    out: Path
    train: Path | None = None
    property: str | None = None
    valid: Path | None = None
    settings: tyro.conf.OmitArgPrefixes[FinetuneSettings] = dataclasses.field(default_factory=FinetuneSettings)
    task: tyro.conf.OmitArgPrefixes[PropertySettings] = dataclasses.field(default_factory=PropertySettings)
    json: Path | None = None


def run(command: Finetune) -> None:
    """Fine-tune and print.

    Raises:
        ValueError, FileNotFoundError: if model, data or settings cannot be honoured.
        NonFiniteError: if training diverges.
    """
    if (command.train is None) == (command.property is None):
        raise ValueError(
            "give either --train FILE (energies and forces) or --property FILE:KEY (a number per structure)."
        )
    runtime.select_dtype(command.settings.dtype)
    if command.property is not None:
        report = learn_property(
            command.model, command.property, command.valid, command.out, command.settings, command.task, Console()
        )
        write_json(command.json, report)
        return
    _fine_tune(command)


def _fine_tune(command: Finetune) -> None:
    if command.settings.strategy in ("ft", "lp", "mft") or command.task != PropertySettings():
        raise ValueError(
            f"strategy {command.settings.strategy!r} and options of a property need --property FILE:KEY; for energies "
            "and forces choose another strategy and leave the options out."
        )
    train_data = read_dataset(command.train)  # pyright: ignore[reportArgumentType]
    valid_data = None if command.valid is None else read_dataset(command.valid)
    potential, params = load(command.model)
    console = Console()
    with FinetuneDisplay(console) as display:
        result = finetune(
            potential,
            params,
            train_data,
            valid_data,
            settings=command.settings,
            out=command.out,
            listener=display,
        )
    report = result.report
    console.print(error_table({"before": report["before"], "after": report["after"]}))
    if (retained := report["retained"])["after"] is not None:
        console.print(f"retained error on {retained['anchor']}:")
        console.print(error_table({"before": retained["before"], "after": retained["after"]}))
    console.print(f"epoch {report['best_epoch']} of {report['epochs_run']} was best; model saved in {command.out}")
    console.print(f"figures, settings, what to do next: {command.out / 'report.html'}", soft_wrap=True)
    write_json(command.json, report)
