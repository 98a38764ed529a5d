"""Console and machine-readable results of commands, and structures that a command goes on without."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mlipjax.files import check_writable
from mlipjax.notices import notice


def check_outputs(command: Any) -> None:
    """Refuse outputs that cannot be written before the work is done: ``out`` and files such as ``json``.

    A folder that holds a run is left to the command: a run that is done is only read.

    Args:
        command: the options of a command.

    Raises:
        OSError: naming the path that is in the way or cannot be written.
    """
    for name in ("out", *_FILES):
        path = getattr(command, name, None)
        if isinstance(path, Path) and not (path / "run.json").is_file():
            either = type(command).__name__ in _EITHER and path.is_file()
            check_writable(path, is_file=name in _FILES or either)


_FILES = ("json", "figure", "phonopy", "write")
_EITHER = ("Convert", "Neb", "Simulate")
"""Options of commands that may write a file as ``--out``."""


def make_console(width: int | None = None, *, quiet: bool = False) -> Console:
    """Return what a command prints with: text stays as it is, also a file called ``odd[/b].extxyz`` or ``:x:``.

    Lines are broken by no one but the terminal, so that a pipe gets them whole.
    """
    return _Console(markup=False, emoji=False, highlight=False, soft_wrap=True, width=width, quiet=quiet)


class _Console(Console):
    """One whose reader may have seen enough (``| head``): the command line ends quietly then, rich with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def write_json(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write results for ``--json FILE`` (``runtime.write_results``); nothing without a file."""
    if path is not None:
        from mlipjax import runtime

        runtime.write_results(path, results)


_NAMED = 5
"""Structures that are named one by one."""


class LeftOut(dict[int, str]):
    """Reasons for leaving structures out, by the numbers of the structures."""

    def __call__(self, number: int, why: str) -> None:
        """Leave one out; the first few are said."""
        self[number] = why
        if len(self) <= _NAMED:
            notice(f"left out: {why}")

    def number(self, place: int) -> int:
        """Return the number, among all structures, of one that has this place among those that were not left out."""
        for left in sorted(self):
            place += left <= place
        return place

    def refuse(self, name: str) -> None:
        """Raise ``ValueError`` if there is one.

        Args:
            name: of the structures.
        """
        if self:
            raise ValueError(
                f"{name}: results are those of the other structures; {len(self)} left out, in which atoms coincide."
            )
