"""Tables that no terminal and no pipe cuts: plain text, in as many parts as its width asks for."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.text import Text

_GAP = "  "
_LEAST = 20
"""Columns that a cell has in any case."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table to print; where it is wider than the console, several parts that repeat the names of the rows.

    Attributes:
        headings: of the columns, with units.
        rows: cells as text, as many in each as there are headings.
        title: a line above it, if any.
        name_columns: columns that name a row, left-aligned and in every part; the others are right-aligned numbers.
        words: whether all cells are words: left-aligned, and folded between words to stay in one part.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    name_columns: int = 1
    words: bool = False

    def texts(self, width: int) -> Iterator[str]:
        """The parts as text, at most ``width`` columns wide if the names leave room for one more column."""
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = self._widths(columns, width)
        names = list(range(self.name_columns))
        taken = sum(widths[k] + len(_GAP) for k in names)
        parts: list[list[int]] = [[]]
        for k in range(self.name_columns, len(columns)):
            used = taken + sum(widths[i] + len(_GAP) for i in parts[-1])
            if parts[-1] and used + widths[k] > width:
                parts.append([])
            parts[-1].append(k)
        for number, part in enumerate(parts):
            heading, *lines = (
                self._lines([columns[k][row] for k in names + part], [widths[k] for k in names + part])
                for row in range(len(self.rows) + 1)
            )
            body = [line for cells in lines for line in cells]
            title = self.title if number == 0 else f"{self.title} (continued)".lstrip()
            yield "\n".join(
                [*([title] if title else []), *heading, "─" * max(map(cell_len, heading + body)), *body, ""]
            )

    def _widths(self, columns: Sequence[Sequence[str]], width: int) -> list[int]:
        """Widths of the columns: what they hold, less where that does not fit."""
        widths = [max(map(cell_len, column)) for column in columns]
        room = max(_LEAST, width - sum(w + len(_GAP) for w in widths[: self.name_columns]))
        widths[self.name_columns :] = [min(w, room) for w in widths[self.name_columns :]]
        if self.words:
            longest = (max(map(cell_len, " ".join(column).split()), default=0) for column in columns)
            least = list(map(min, widths, longest))
            # the widest gives way first
            while sum(w + len(_GAP) for w in widths) - len(_GAP) > width and widths != least:
                k = max((k for k in range(len(widths)) if widths[k] > least[k]), key=widths.__getitem__)
                widths[k] -= 1
        return widths

    def _lines(self, cells: Sequence[str], widths: Sequence[int]) -> list[str]:
        """The lines of a row; what is wider than its column goes on in the next line."""
        folded = [
            [cell] if cell_len(cell) <= width else textwrap.wrap(cell, width, break_on_hyphens=False)
            for cell, width in zip(cells, widths, strict=True)
        ]
        left = len(cells) if self.words else self.name_columns
        return [
            _GAP.join(_aligned(text, widths[k], k < left) for k, text in enumerate(line)).rstrip()
            for line in zip_longest(*folded, fillvalue="")
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        """Yield the parts for a console."""
        for text in self.texts(options.max_width):
            yield Text(text, no_wrap=True, overflow="ignore")


def _aligned(text: str, width: int, left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if left else space + text
