"""``mlipjax finetune``: fine-tune a model on labelled structures, or to a property of structures."""

from __future__ import annotations

from mlipjax import runtime
from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.error_tables import error_table
from mlipjax.cli.heads import load_head
from mlipjax.cli.options.finetune import Finetune
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.properties import learn_property
from mlipjax.finetuning.single import finetune
from mlipjax.settings import PropertySettings


def run(command: Finetune) -> None:
    """Fine-tune and print.

    Raises:
        ValueError, FileNotFoundError: if model, data or settings cannot be honoured.
        NonFiniteError: if training diverges.
    """
    if bool(command.train) == (command.property is not None):
        raise ValueError(
            "give either --train FILE (energies and forces) or --property FILE:KEY (a number per structure)."
        )
    runtime.select_dtype(command.settings.dtype)
    if command.property is not None:
        if command.head is not None:
            raise ValueError(f"--head {command.head} chooses an energy head; a --property has a head of its own.")
        if len(command.valid) > 1:
            raise ValueError(f"a property is validated on one file; --valid has {len(command.valid)}.")
        valid = command.valid[0] if command.valid else None
        report = learn_property(
            command.model, command.property, valid, command.out, command.settings, command.task, make_console()
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
    train_data = command.labels.read(command.train)
    valid_data = command.labels.read(command.valid) if command.valid else None
    potential, params = load_head(command.model, command.head)
    console = make_console()
    display = FinetuneDisplay(console)
    with display.progress:
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
    console.print(f"errors on {report.get('measured_on', 'validation structures')}:")
    console.print(error_table({"before": report["before"], "after": report["after"]}))
    if (retained := report["retained"])["after"] is not None:
        console.print(f"retained error on {retained['anchor']}:")
        console.print(error_table({"before": retained["before"], "after": retained["after"]}))
    # reports of earlier versions do not say why
    choice = report.get("choice", f"epoch {report['best_epoch']} of {report['epochs_run']} was best")
    console.print(f"{choice}; model saved in {command.out}")
    console.print(f"figures, settings, what to do next: {command.out / 'report.html'}")
    write_json(command.json, report)
