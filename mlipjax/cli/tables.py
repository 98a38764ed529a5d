"""Tables that no terminal and no pipe cuts: plain text, in as many parts as its width asks for; those of errors."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

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


_ROWS = (
    ("energy: mean, meV/atom", "energy_mean_meV_per_atom"),
    ("energy: std, meV/atom", "energy_std_meV_per_atom"),
    ("energy: RMSE, meV/atom", "energy_rmse_meV_per_atom"),
    ("energy: MAE, meV/atom", "energy_mae_meV_per_atom"),
    ("forces: MAE, meV/Å", "force_mae_meV_per_A"),
    ("forces: RMSE, meV/Å", "force_rmse_meV_per_A"),
    ("forces: slope", "force_slope"),
    ("stress: MAE, meV/Å³", "stress_mae_meV_per_A3"),
)
_PRODUCTS = (
    ("Hessian products: MAE, eV/Å²", "hvp_mae_eV_per_A2"),
    ("Hessian products: relative", "hvp_relative_error"),
)
"""Rows that only some reports have."""


def error_table(reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """Main errors with 95 % intervals, one column per report."""
    sizes = (f"{name} (n = {report['n_frames']})" for name, report in reports.items())
    rows = [
        (label, *(with_interval(report[key], report["confidence_95"][key]) for report in reports.values()))
        for label, key in (
            *_ROWS,
            *(_PRODUCTS if all(_PRODUCTS[0][1] in report for report in reports.values()) else ()),
        )
    ]
    return Table(("error", *sizes), rows)


def element_table(report: Mapping[str, Any]) -> Table:
    """Force errors per element."""
    keys = ("force_mae_meV_per_A", "force_rmse_meV_per_A", "force_slope", "force_reference_mean_norm_meV_per_A")
    rows = [
        (symbol, str(row["n_atoms"]), *(number(row[key]) for key in keys))
        for symbol, row in report["per_element"].items()
    ]
    headings = ("element", "atoms", "force MAE", "force RMSE", "slope", "mean |F|")
    return Table(headings, rows, "forces, meV/Å")


def uncertainty_tables(report: Mapping[str, Any]) -> list[Table]:
    """Error bars against errors, and what finds the structures with the largest force errors."""
    words = {
        "coverage_68": "within 1 std (68 %)",
        "coverage_95": "within 1.96 std (95 %)",
        "spearman": "Spearman with |error|",
        "auroc": "AUROC, largest tenth",
    }

    def cell(found: Mapping[str, Any] | None, key: str) -> str:
        return "-" if found is None or key not in found else with_interval(found[key], found["confidence_95"][key])

    size = f"n = {report['n_structures']}, {report['n_groups']} groups"
    headings = f"{report['method']} ({size})", "energies", "forces of atoms"
    rows = [(text, *(cell(report[part], key) for part in ("energy", "forces"))) for key, text in words.items()]
    indices = {f"{report['method']}, rms std of forces": report["structures"], **report.get("charts", {})}
    found = [(name, *(cell(own, key) for key in ("spearman", "auroc"))) for name, own in indices.items()]
    title = f"error bars cost {number(report['cost'])} plain predictions"
    return [
        Table(headings, rows, title),
        Table(("structures, rms error of forces", words["spearman"], words["auroc"]), found),
    ]


def settings_table(rows: Iterable[tuple[str, str, str]]) -> Table:
    """Settings with their reasons."""
    return Table(("setting", "value", "why"), list(rows), words=True)


def property_table(reports: Mapping[str, Mapping[str, Any]], unit: str) -> Table:
    """Errors of a property with 95 % intervals, one column per report."""
    words = {"mean": "mean error", "mae": "MAE", "rmse": "RMSE"}
    sizes = (f"{name} (n = {report['n']})" for name, report in reports.items())
    rows = [
        (
            f"{label} ({unit})" if unit else label,
            *(with_interval(r[key], r["confidence_95"][key]) for r in reports.values()),
        )
        for key, label in words.items()
    ]
    return Table(("error", *sizes), rows)


def number(value: float | None) -> str:
    """Four significant digits; a dash for what is not known."""
    return "-" if value is None else f"{value:.4g}"


def fixed(value: float, digits: int) -> str:
    """So many digits behind the point; zero has no sign."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """A number with its interval."""
    if value is None or interval is None:
        return number(value)
    return f"{number(value)} [{number(interval[0])}, {number(interval[1])}]"
