"""``mlipjax distill``: a small model from a large one."""

from __future__ import annotations

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.error_tables import error_table
from mlipjax.cli.options.distill import Distill
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Pieces
from mlipjax.report.distill import distill_verdict
from mlipjax.verbs import distill
from mlipjax.verbs.distill import STUDENT, DistillListener


def run(command: Distill) -> None:
    """Distil and print.

    Raises:
        ValueError, FileNotFoundError: if models, structures or settings cannot be used.
        NonFiniteError: if training diverges.
    """
    console = make_console(quiet=command.quiet)
    display = DistillDisplay(console)
    with display.progress:
        report = call(distill, command, listener=display).report
    console.print("errors against the teacher on test structures:")
    console.print(error_table({"student": report["test"]}))
    console.print(distill_verdict(report)[0])
    console.print(f"student saved in {command.out / STUDENT}; figures, tests: {command.out / 'report.html'}")
    write_json(command.json, report)


class DistillDisplay(FinetuneDisplay, DistillListener):
    """That of a fine-tune, with a line for structures, labels and tests; to be used within ``progress``."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.pieces = Pieces(console)

    def work(self, what: str, done: int, total: int) -> None:
        """Print a line now and then, or move a bar."""
        self.pieces(what, done, total)
