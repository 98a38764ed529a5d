"""What ``mlipjax finetune --property`` and ``mlipjax evaluate --property`` do: a property instead of a force field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from mlipjax import tree
from mlipjax.cli.error_tables import property_table, settings_table
from mlipjax.cli.progress import make_bar
from mlipjax.data.properties import open_properties, parse_property, targets
from mlipjax.finetuning.properties import finetune_property
from mlipjax.finetuning.properties_prepare import PropertyInput, PropertyPreparation
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.models import load
from mlipjax.settings import FinetuneSettings, PropertySettings
from mlipjax.train import StepInfo, TrainState, predict_property, property_report
from mlipjax.train.batches import property_batches


def learn_property(
    model: str,
    given: str,
    valid: Path | None,
    out: Path,
    settings: FinetuneSettings,
    options: PropertySettings,
    console: Console,
) -> dict[str, Any]:
    """Fine-tune a model to a property given as ``FILE:KEY``, print errors, and return the report.

    Raises:
        ValueError, FileNotFoundError: if model, data or settings cannot be honoured.
        NonFiniteError: if training diverges.
    """
    file, key = parse_property(given)
    data = PropertyInput(open_properties(file, key), None if valid is None else open_properties(valid, key))
    potential, params = load(model)
    display = PropertyDisplay(console)
    with display.progress:
        result = finetune_property(
            potential, params, data, settings=settings, options=options, out=out, listener=display
        )
    report = result.report
    console.print(property_table({f"{key}, validation": report["valid"]}, options.property_unit))
    for name, errors in report["force_field"].items():
        console.print(
            f"{name}: force MAE {errors.get('force_mae_meV_per_A', float('nan')):.1f} meV/Å on held-out structures"
        )
    if (noise := report["denoising"]) is not None:
        console.print(f"denoise: mean squared error {noise['mse']:.3f}, of predicting zero {noise['mse_of_zero']:.3f}")
    console.print(f"step {report['best_step']} of {report['steps']} was best; model saved in {out}")
    console.print(f"figures and settings: {out / 'report.html'}")
    return report


def evaluate_property(
    model: str, given: str, dtype: str, batch_size: int, max_slots: int, console: Console
) -> dict[str, Any]:
    """Compare a model's property with the values in ``FILE:KEY``, print and return the errors.

    Raises:
        ValueError, FileNotFoundError: if the model does not predict it, or the data cannot be used.
    """
    file, key = parse_property(given)
    potential, params = load(model)
    head = potential.property_head(key)
    data = open_properties(file, key)
    batches = property_batches(potential, data, batch_size, dtype=dtype, max_slots=max_slots)
    found = predict_property(potential, tree.cast(params, dtype), batches, key)
    report = property_report(targets(data, key), found)
    console.print(property_table({f"{key}, {file.name}": report}, head.unit))
    return {**report, "property": key, "unit": head.unit, "dtype": dtype}


class PropertyDisplay(FinetuneListener):
    """Prints the plan of a property fine-tune and follows it with a progress bar; to be used within ``progress``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = make_bar(console, "training", "steps")
        self.task = self.progress.add_task("training", total=None)

    def start(self, preparation: PropertyPreparation) -> None:
        """Print settings and data."""
        self.console.print(settings_table(preparation.strategy.explain()))
        for task, note in preparation.notes.items():
            self.console.print(f"task {task}: {note}")
        self.progress.update(self.task, total=preparation.training.config.steps)

    def step(self, state: TrainState, info: StepInfo) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=int(state.step))

    def epoch(self, record: dict[str, Any]) -> None:
        """Print one line: every task apart."""
        tasks = []
        for name, found in record["tasks"].items():
            shown = {**found["train"], **{f"valid {key}": value for key, value in found.get("valid", {}).items()}}
            chosen = [f"{key} {value:.4g}" for key, value in shown.items() if key in _SHOWN]
            tasks.append(f"{name} ({found['steps']} steps): {', '.join(chosen)}")
        mark = "  best" if record["best_epoch"] == record["epoch"] else ""
        self.console.print(f"step {record['step']:6d}  {'; '.join(tasks)}{mark}")


_SHOWN = ("loss", "mse", "forces", "valid mae", "valid force_mae_meV_per_A", "valid mse")
