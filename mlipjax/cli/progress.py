"""How far a command is: a moving line on a terminal, one plain line per piece of work elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status


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
            self.console.print(f"{work} ...", soft_wrap=True, markup=False, highlight=False)
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
