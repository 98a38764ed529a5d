"""``mlipjax finetune``: fine-tune a model on labelled structures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro
from rich.console import Console

from mlipjax import runtime
from mlipjax.cli.display import FinetuneDisplay, error_table
from mlipjax.cli.output import write_json
from mlipjax.data import read_dataset
from mlipjax.finetune.settings import FinetuneSettings
from mlipjax.finetune.single import finetune
from mlipjax.models import load


@dataclasses.dataclass(frozen=True)
class Finetune:
    """Fine-tune a model on labelled structures; the same command again resumes a run that was stopped.

    Attributes:
        model: name, .nqx file or saved folder to start from.
        train: labelled structures (extended xyz, ASE database).
        out: folder of the run; at the end a model itself.
        valid: labelled structures for validation; by default a part of the training data, by trajectory.
        settings: everything else.
        json: also write the report to this file.
    """

    model: str
    train: Path
    out: Path
    valid: Path | None = None
    settings: tyro.conf.OmitArgPrefixes[FinetuneSettings] = dataclasses.field(default_factory=FinetuneSettings)
    json: Path | None = None


def run(command: Finetune) -> None:
    """Fine-tune and print.

    Raises:
        ValueError, FileNotFoundError: if model, data or settings cannot be honoured.
        NonFiniteError: if training diverges.
    """
    runtime.select_dtype(command.settings.dtype)
    train_data = read_dataset(command.train)
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
    write_json(command.json, report)
