"""``mlipjax distill``: a small model from a large one."""

from __future__ import annotations

from rich.console import Console

from mlipjax.cli.call import call
from mlipjax.cli.display import FinetuneDisplay
from mlipjax.cli.options.training import Distill
from mlipjax.cli.output import make_console, write_json
from mlipjax.cli.progress import Pieces, make_bar
from mlipjax.cli.tables import error_table
from mlipjax.finetuning.single import Preparation
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
    """That of a fine-tune, which also follows structures, labels and tests; to be used within ``progress``."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        # one bar for whatever is done, or lines
        self.progress, self.lines = make_bar(console, "{task.description}", "{task.fields[loss]}"), Pieces(console)
        self.task = self.progress.add_task("(compiling)", total=None, epoch=0, loss="")

    def start(self, preparation: Preparation) -> None:
        """As of a fine-tune."""
        super().start(preparation)
        self.progress.update(self.task, description="training")

    def work(self, what: str, done: int, total: int) -> None:
        """Move the bar, or print a line now and then."""
        self.progress.update(self.task, description=what, completed=done, total=total, loss="")
        if not self.console.is_terminal:
            self.lines(what, done, total)
