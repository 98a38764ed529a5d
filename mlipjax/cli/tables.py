"""Tables that fit 80 columns and lose no letter, on terminals and in pipes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table


def make_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None) -> Table:
    """Return a table: the first column is text, the others numbers; what does not fit goes on in the next line.

    Args:
        headings: of the columns.
        rows: cells as text.
        title: above the table.
    """
    table = Table(title=title, title_justify="left", pad_edge=False, collapse_padding=True)
    for index, heading in enumerate(headings):
        # "fold" breaks a word that is wider than its column; rich would cut it off and put an ellipsis
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
