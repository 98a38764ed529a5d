"""``mlipjax periodic``: simulate, label, fine-tune and drive on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.formula import Formula
from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.error_tables import number
from mlipjax.cli.options.periodic import Periodic
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Pieces, make_bar
from mlipjax.cli.tables import Table
from mlipjax.finetuning.periodic import MODEL, PeriodicListener, Plan
from mlipjax.finetuning.pieces import Piece
from mlipjax.verbs import periodic


def run(command: Periodic) -> None:
    """Run what is missing and print the table of rounds.

    Raises:
        ValueError, FileNotFoundError: if model, structure, oracle or settings cannot be honoured.
        Stopped: if the run cannot go on.
    """
    console = make_console(quiet=command.quiet)
    display = PeriodicDisplay(console, command)
    with display.progress:
        report = call(periodic, command, listener=display).report
    console.print(rounds_table(report))
    console.print(
        "errors of the model before each round on the frames it sampled, which it had not been trained on; the model "
        "of the last round has seen all labels"
    )
    console.print(f"model saved in {command.out / MODEL}; labelled frames, figures: {command.out / 'report.html'}")
    write_json(command.json, {"model": command.model, "structure": command.structure, **report})


class PeriodicDisplay(PeriodicListener):
    """Prints the plan of a run and follows its pieces; to be used within ``progress``."""

    def __init__(self, console: Console, command: Periodic) -> None:
        self.console, self.command = console, command
        # one bar for whatever is done, or lines
        self.progress, self.lines = make_bar(console, "{task.description}"), Pieces(console)
        self.task = self.progress.add_task("(compiling)", total=None)

    def start(self, plan: Plan) -> None:
        """Print what will be simulated, labelled and trained."""
        settings, state = plan.settings, plan.state
        numbers = np.asarray(state.sim.atomic_numbers)
        formula = Formula.from_list(_symbols(numbers)).format("hill")
        labels = settings.rounds * settings.labels_per_round
        apart = f"{settings.steps} steps ({settings.steps * float(settings.timestep or 0.0):g} fs)"
        self.console.print(
            f"plan: {settings.rounds} rounds of {settings.labels_per_round} labels ({labels} in all) by "
            f"{self.command.oracle}, one every {apart} of {settings.replicas} x {formula}, "
            f"{settings.ensemble} at {settings.temperature:g} K; then {settings.train_steps} optimiser steps each"
        )
        self.console.print(
            f"{self.command.model} knows {', '.join(sorted(set(_symbols(numbers))))}; trains {plan.n_trained} of its "
            f"{plan.n_parameters} parameters ({settings.strategy}, learning rate {plan.strategy.learning_rate:g})"
        )

    def piece(self, piece: Piece) -> None:
        """Move the bar of a stage, or print a line when it begins."""
        if piece.stage != "finish":
            work = f"round {piece.round + 1} of {self.command.settings.rounds}: {_STAGES[piece.stage]}"
            self.progress.update(self.task, description=work, completed=piece.done, total=piece.total)
            if not self.console.is_terminal:
                self.lines(work, piece.done, piece.total)


_STAGES = {"sample": "frames sampled", "label": "labels", "train": "optimiser steps"}


def rounds_table(report: Mapping[str, Any]) -> Table:
    """A line for each round: its labels, errors on them, loss, alarms."""
    rows = [
        (
            str(row["round"]),
            str(row["labels_before"]),
            f"{row['labels']}" + (f" ({row['failed']} failed)" if row["failed"] else ""),
            *(f"{round(row[f'energy_{kind}_meV_per_atom'], 2) + 0.0:.2f}" for kind in ("mean", "std", "rmse")),
            f"{row['force_rmse_meV_per_A']:.1f}",
            number(row["loss"]),
            "-" if row["alarms"] is None else str(row["alarms"]),
        )
        for row in report["rounds"]
    ]
    headings = ("round", "seen", "labels", "E mean", "E std", "E RMSE", "F RMSE", "loss", "alarms")
    return Table(headings, rows, "energies in meV/atom, forces in meV/Å")


def _symbols(numbers: np.ndarray) -> list[str]:
    from ase.data import chemical_symbols

    return [chemical_symbols[z] for z in numbers]
