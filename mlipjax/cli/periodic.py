"""``mlipjax periodic``: simulate, label, fine-tune and drive on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ase.formula import Formula
from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.options.training import Periodic
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Pieces, make_bar
from mlipjax.cli.spec import read_systems, write_spec
from mlipjax.cli.tables import Table, error_table, number
from mlipjax.cli.wording import print_findings
from mlipjax.elements import listed, symbols
from mlipjax.finetuning.folder import SPEC
from mlipjax.finetuning.periodic import MODEL, PeriodicListener
from mlipjax.finetuning.pieces import Piece
from mlipjax.finetuning.plan import Plan, Preflight
from mlipjax.settings import SystemSettings
from mlipjax.verbs import periodic


def run(command: Periodic) -> None:
    """Run what is missing and print the table of rounds."""
    console = make_console(quiet=command.quiet)
    systems = () if command.spec is None else read_systems(command.spec)
    if command.write_spec is not None:
        write_spec(command.write_spec, command, systems)
        console.print(f"options written to {command.write_spec}; mlipjax periodic {command.write_spec} runs them")
        return
    if not command.structure and not systems:
        raise ValueError("a periodic fine-tune needs a structure to start from; name one at least (structure).")
    display = PeriodicDisplay(console, command, systems)
    with display.progress:
        report = call(periodic, command, systems=systems, listener=display).report
    console.print(rounds_table(report))
    console.print(
        "errors of the model before each round on the frames it sampled, which it had not been trained on; the model "
        "of the last round has seen all labels"
    )
    if (reason := report["ended_early"]) is not None:
        console.print(f"ended early: {reason}")
    console.print(f"{report['verdict']['text']} Next: {report['verdict']['next']}")
    console.print(f"model saved in {command.out / MODEL}; labelled frames, figures: {command.out / 'report.html'}")
    write_json(command.json, {"model": command.model, "structure": command.structure, **report})


class PeriodicDisplay(PeriodicListener):
    """Prints the plan of a run and follows its pieces; to be used within ``progress``."""

    def __init__(self, console: Console, command: Periodic, systems: Sequence[SystemSettings] = ()) -> None:
        self.console, self.command, self.systems = console, command, systems
        # one bar for whatever is done, or lines
        self.progress, self.lines = make_bar(console, "{task.description}"), Pieces(console)
        self.task = self.progress.add_task("(compiling)", total=None)

    def start(self, plan: Plan) -> None:
        """Keep the options, and print what will be simulated, labelled and trained."""
        kept, given = self.command.out / SPEC, self.command.spec
        if given is None or given.resolve() != kept.resolve():
            write_spec(kept, self.command, self.systems)
        settings = plan.settings
        labels = settings.rounds * sum(system.settings.labels_per_round or 0 for system in plan.systems)
        self.console.print(
            f"plan: {settings.rounds} rounds, {labels} labels by {self.command.oracle}; then {settings.train_steps} "
            "optimiser steps each"
        )
        for system in plan.systems:
            own, numbers = system.settings, system.start.system.atomic_numbers
            apart = f"{own.steps} steps ({(own.steps or 0) * (own.timestep or 0.0):g} fs)"
            self.console.print(
                f"{system.name}: {own.labels_per_round} labels a round, one every {apart} of {own.replicas} x "
                f"{Formula.from_list(symbols(numbers)).format('hill')}, {own.ensemble} at {own.temperature:g} K"
            )
        elements = ", ".join(sorted({listed([z]) for own in plan.setup.systems for z, _ in own.composition}))
        self.console.print(
            f"{self.command.model} knows {elements}; trains {plan.n_trained} of its {plan.n_parameters} parameters "
            f"({settings.strategy}, learning rate {plan.strategy.learning_rate:g})"
        )
        self._preflight(plan.preflight)

    def _preflight(self, known: Preflight) -> None:
        """Print what is known before the first step."""
        for note in known.notes:
            self.console.print(note)
        if known.before is not None:
            self.console.print(f"trains on {known.n_given} frames from before, too; errors of the model on them:")
            self.console.print(error_table({"before": known.before}))
        print_findings(self.console, known.findings)
        each = ", ".join(f"{1000.0 * seconds:.3g}" for seconds in known.seconds)
        self.console.print(
            f"one energy with forces takes {each} ms: MD and training about {_duration(known.hours)}, besides labels; "
            f"training takes {_size(known.training_bytes)}"
        )

    def piece(self, piece: Piece) -> None:
        """Move the bar of a stage, or print a line when it begins."""
        if piece.stage in _STAGES:
            work = f"round {piece.round + 1} of {self.command.settings.rounds}: {_STAGES[piece.stage]}"
            self.progress.update(self.task, description=work, completed=piece.done, total=piece.total)
            if not self.console.is_terminal:
                self.lines(work, piece.done, piece.total)


def _duration(hours: float) -> str:
    minutes = 60.0 * hours
    return f"{hours:.1f} hours" if hours >= 1.0 else f"{minutes:.0f} minutes" if minutes >= 1.0 else "a minute or less"


def _size(n_bytes: int | None) -> str:
    if n_bytes is None:
        return "an unknown amount"
    return f"{1e-9 * n_bytes:.2g} GB" if n_bytes >= 1e9 else f"{1e-6 * n_bytes:.2g} MB"


_STAGES = {"sample": "frames sampled", "label": "labels", "train": "optimiser steps"}


def rounds_table(report: Mapping[str, Any]) -> Table:
    """A line for each round, and of several systems for each of them: labels, errors on them, loss, alarms."""
    rows = []
    for row in report["rounds"]:
        parts = row.get("systems", [])
        rows.append(_cells(str(row["round"]), row))
        rows += [_cells(f"system {number}", part) for number, part in enumerate(parts, 1)] if len(parts) > 1 else []
    headings = ("round", "seen", "labels", "E mean", "E std", "E RMSE", "F RMSE", "loss", "alarms")
    return Table(headings, rows, "energies in meV/atom, forces in meV/Å")


def _cells(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    errors = [(f"energy_{kind}_meV_per_atom", 2) for kind in ("mean", "std", "rmse")] + [("force_rmse_meV_per_A", 1)]
    return (
        name,
        str(row["labels_before"]),
        f"{row['labels']}" + (f" ({row['failed']} failed)" if row["failed"] else ""),
        *("-" if row[key] is None else f"{round(row[key], digits) + 0.0:.{digits}f}" for key, digits in errors),
        "-" if row.get("loss") is None else number(row["loss"]),
        "-" if row["alarms"] is None else str(row["alarms"]),
    )
