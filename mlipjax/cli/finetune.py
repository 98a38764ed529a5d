"""``mlipjax finetune``: fine-tune a model on labelled structures, or to a property of structures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.display import FinetuneDisplay, PropertyDisplay
from mlipjax.cli.options.training import Finetune
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.tables import error_table, property_table
from mlipjax.verbs import finetune


def run(command: Finetune) -> None:
    """Fine-tune and print."""
    console = make_console(quiet=command.quiet)
    display = FinetuneDisplay(console) if command.property is None else PropertyDisplay(console)
    with display.progress:
        report = call(finetune, command, listener=display).report
    if command.property is None:
        _print_errors(console, report)
    else:
        _print_property(console, report, command.task.property_unit)
    console.print(f"{_choice(report)}; model saved in {command.out}")
    if (members := report.get("committee")) is not None:
        console.print(
            f"committee of {members['members']}: {members['members'] - 1} more in {members['seconds']:.0f} s, each "
            f"{members['times_one']:.2f} times the first; force scale {members['force_scale']:.3g}"
        )
    console.print(f"figures, settings, what to do next: {command.out / 'report.html'}")
    write_json(command.json, report)


def _choice(report: Mapping[str, Any]) -> str:
    if "best_step" in report:
        return f"step {report['best_step']} of {report['steps']} was best"
    # reports of earlier versions do not say why
    return report.get("choice", f"epoch {report['best_epoch']} of {report['epochs_run']} was best")


def _print_errors(console: Console, report: Mapping[str, Any]) -> None:
    console.print(f"errors on {report.get('measured_on', 'validation structures')}:")
    console.print(error_table({"before": report["before"], "after": report["after"]}))
    if (retained := report["retained"])["after"] is not None:
        console.print(f"retained error on {retained['anchor']}:")
        console.print(error_table({"before": retained["before"], "after": retained["after"]}))


def _print_property(console: Console, report: Mapping[str, Any], unit: str) -> None:
    console.print(property_table({f"{report['property']['name']}, validation": report["valid"]}, unit))
    for name, errors in report["force_field"].items():
        console.print(
            f"{name}: force MAE {errors.get('force_mae_meV_per_A', float('nan')):.1f} meV/Å on held-out structures"
        )
    if (noise := report["denoising"]) is not None:
        console.print(f"denoise: mean squared error {noise['mse']:.3f}, of predicting zero {noise['mse_of_zero']:.3f}")
