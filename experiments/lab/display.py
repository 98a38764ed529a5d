"""Printing of experiments: as the commands do."""

from collections.abc import Sequence
from typing import Any

from mlipjax.cli.output import make_console
from mlipjax.cli.progress import make_bar
from mlipjax.cli.tables import Table

__all__ = ["Table", "brief", "make_bar", "make_console"]


def brief(
    headings: Sequence[str], rows: Sequence[Sequence[Any]], digits: str = ".3g", *, title: str = "", names: int = 1
) -> Table:
    """A table for the terminal of numbers and words; the first ``names`` columns name a row."""
    cells = [["-" if x is None else f"{x:{digits}}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    return Table(headings, cells, title, name_columns=names)
