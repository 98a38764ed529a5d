"""Progress of a command: a moving line or bar on a terminal, plain lines elsewhere, all on stdout."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

_SECONDS = 30.0
"""Between two lines of one piece, where there is no bar."""


def make_bar(console: Console, text: str, more: str = "") -> Progress:
    """A bar between two texts, which may hold ``{task.fields[name]}``; nothing where there is no terminal."""
    columns = TextColumn(text), BarColumn(), MofNCompleteColumn(), TextColumn(more), TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


class Working:
    """Says what is being done; use as a context manager.

    Args:
        console: where results go too; if that is no terminal, each piece of work is one line and details are left out.
        work: what is being done first.
    """

    def __init__(self, console: Console, work: str) -> None:
        self.console, self.work = console, work
        self.status: Status | None = console.status(work) if console.is_terminal else None

    def next(self, work: str) -> None:
        """Say what is done from now on."""
        self.work = work
        if self.status is None:
            self.console.print(f"{work} ...")
        else:
            self.status.update(work)

    def say(self, detail: str) -> None:
        """Say how far it is."""
        if self.status is not None:
            self.status.update(f"{self.work}: {detail}")

    def __enter__(self) -> Working:
        if self.status is None:
            self.next(self.work)
        else:
            self.status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.status is not None:
            self.status.stop()


class Pieces:
    """Follows pieces of work within its ``progress``: a bar for each on a terminal, elsewhere a line now and then."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = make_bar(console, "{task.description}")
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that ``done`` of ``total`` parts of a piece are done; 0 at its beginning."""
        if self.console.is_terminal:
            if what not in self._tasks:
                self._tasks[what] = self.progress.add_task(what, total=total)
            self.progress.update(self._tasks[what], completed=done)
            return
        now = time.monotonic()
        if what not in self._said or (now - self._said[what] > _SECONDS and done < total):
            self.console.print(f"{what}{f': {done} of {total}' if done else ''} ...")
            self._said[what] = now
