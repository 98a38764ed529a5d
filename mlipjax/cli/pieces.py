"""Progress of commands that work in pieces: a bar on a terminal, a plain line for each piece elsewhere."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from mlipjax.cli.output import make_console

_SECONDS = 30.0
"""Between two lines of one piece, where there is no bar."""


class Pieces:
    """Follows pieces of work on stdout, as other commands do: stderr is for notes and errors. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = make_console() if console is None else console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
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
            count = f": {done} of {total}" if done else ""
            self.console.print(f"{what}{count} ...", markup=False, highlight=False, soft_wrap=True)
            self._said[what] = now

    def __enter__(self) -> Pieces:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()


__all__ = ["Pieces"]
