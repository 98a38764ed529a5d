"""What commands print, and their machine-readable results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from mlipjax.files import check_writable, plain, write_atomic


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
            check_writable(path, is_file=name in _FILES)


_FILES = ("json", "figure")


def make_console(width: int | None = None) -> Console:
    """Return what a command prints with: text stays as it is, also a file called ``odd[/b].extxyz`` or ``:x:``.

    Lines are broken by no one but the terminal, so that a pipe gets them whole.
    """
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=True, width=width)


def write_json(path: Path | None, results: Mapping[str, Any]) -> None:
    """Write results for ``--json FILE``, together with the versions they depend on; nothing without a file.

    Arrays become lists. JSON has no NaN and no infinity: they become ``null``.
    """
    if path is None:
        return
    from mlipjax import runtime

    report = {**results, "versions": runtime.versions()}
    write_atomic(path, json.dumps(plain(report), indent=1, allow_nan=False) + "\n")
