"""Progress of fine-tunes."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from mlipjax.cli.progress import make_bar
from mlipjax.cli.tables import number, settings_table
from mlipjax.cli.wording import print_findings
from mlipjax.finetuning.properties import PropertyPreparation
from mlipjax.finetuning.run import FinetuneListener
from mlipjax.finetuning.single import Preparation
from mlipjax.train import StepInfo, TrainState


class FinetuneDisplay(FinetuneListener):
    """Prints the plan of a fine-tune and follows it with a progress bar; to be used within ``progress``."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = make_bar(console, "epoch {task.fields[epoch]}", "steps, loss {task.fields[loss]}")
        self.task = self.progress.add_task("training", total=None, epoch=0, loss="")

    def start(self, preparation: Preparation) -> None:
        """Print settings, split, isolated-atom energies and what the doctor found."""
        self.console.print(settings_table(preparation.strategy.explain()))
        self.console.print(f"data: {preparation.split}")
        self.console.print(f"trained: {preparation.n_trained} parameters; the model has {preparation.n_parameters}")
        for kind, source in preparation.retention_notes.items():
            if source is not None:
                self.console.print(f"{kind}: {source}")
        print_findings(self.console, preparation.findings)
        if (estimate := preparation.e0_estimate) is not None:
            self.console.print(
                f"E0s shifted by least squares on {estimate.n_structures} energies: error {1e3 * estimate.before:.1f} "
                f"-> {1e3 * estimate.residual:.1f} meV/atom"
            )
        self.progress.update(self.task, total=preparation.training.config.steps)

    def step(self, state: TrainState, info: StepInfo) -> None:
        """Move the bar."""
        self.progress.update(self.task, completed=int(state.step), loss=f"{float(info.loss):.4f}")

    def begin(self, record: dict[str, Any]) -> None:
        """Print the line of epoch 0: the model before training."""
        self.epoch(record)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print one line."""
        self.progress.update(self.task, epoch=record["epoch"])
        parts = [f"epoch {record['epoch']:4d}"]
        if record["train_loss"] is not None:
            parts.append(f"train {record['train_loss']:.5f}")
        if record["valid_loss"] is not None:
            parts.append(f"valid {record['valid_loss']:.5f}")
            parts.append(f"E {number(record['energy_mae_meV_per_atom'])} meV/atom")
            parts.append(f"F {number(record['force_mae_meV_per_A'])} meV/Å")
            if (products := record.get("hvp_mae_eV_per_A2")) is not None:
                parts.append(f"H {number(products)} eV/Å²")
        if record["anchor_loss"] is not None:
            parts.append(f"retained {record['anchor_loss']:.5f}")
            parts.append(f"F {number(record['anchor_force_mae_meV_per_A'])} meV/Å")
        if record["epoch"] == 0:
            parts.append("before training")
        elif record["valid_loss"] is not None and record["best_epoch"] == record["epoch"]:
            parts.append("best")
        self.console.print("  ".join(parts))


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
