"""Tables that no terminal and no pipe cuts: plain text, in as many parts as its width asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console

_GAP = "  "


def print_table(
    console: Console, title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, name_columns: int = 1
) -> None:
    """Print a table whose first columns name the rows; where it is wider than the console, several with these names.

    Args:
        console: where to.
        title: a line above it.
        headings: of the columns, with units.
        rows: cells as text, as many in each as there are headings.
        name_columns: columns that name a row, left-aligned and in every part; the others are right-aligned numbers.
    """
    for text in table_texts(title, headings, rows, width=console.width, name_columns=name_columns):
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def table_texts(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, width: int, name_columns: int = 1
) -> Iterator[str]:
    """The parts of a table as text, each at most ``width`` columns wide if its names and one more column are.

    Arguments as for ``print_table``.
    """
    columns = [[heading, *(row[k] for row in rows)] for k, heading in enumerate(headings)]
    widths = [max(map(cell_len, column)) for column in columns]
    names = list(range(name_columns))
    taken = sum(widths[k] + len(_GAP) for k in names)
    parts: list[list[int]] = [[]]
    for k in range(name_columns, len(columns)):
        used = taken + sum(widths[i] + len(_GAP) for i in parts[-1])
        if parts[-1] and used + widths[k] > width:
            parts.append([])
        parts[-1].append(k)
    for number, part in enumerate(parts):
        chosen = names + part
        lines = [
            _GAP.join(_aligned(columns[k][row], widths[k], k in names) for k in chosen) for row in range(len(rows) + 1)
        ]
        rule = "─" * max(map(cell_len, lines))
        heading = title if number == 0 else f"{title} (continued)"
        yield "\n".join([heading, lines[0], rule, *lines[1:], ""])


def _aligned(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text


__all__ = ["print_table", "table_texts"]
