"""One look for all figures: colours and markers by arm, sizes for a two-column page, no pyplot.

Colours are those of Okabe and Ito, which readers with any common colour blindness tell apart; markers differ too,
for print without colour.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlipjax.files import write_atomic

P = ParamSpec("P")
R = TypeVar("R")

WIDTH = 7.1
"""Inches: the text width of a two-column page."""


@dataclasses.dataclass(frozen=True)
class ArmStyle:
    """Look and name of one arm (or data set) in every figure."""

    label: str
    color: str
    marker: str


_KNOWN = {
    "zero-shot": ArmStyle("zero-shot", "#5A5A5A", "D"),
    "naive": ArmStyle("naive", "#D55E00", "s"),
    "periodic": ArmStyle("periodic", "#0072B2", "o"),
    "single": ArmStyle("single trajectory", "#009E73", "^"),
    "single_trajectory": ArmStyle("single trajectory", "#009E73", "^"),
    "independent": ArmStyle("independent", "#000000", "X"),
    "train": ArmStyle("train", "#5A5A5A", "o"),
    "validation": ArmStyle("validation", "#0072B2", "s"),
}
_SPARE = (("#CC79A7", "v"), ("#E69F00", "P"), ("#56B4E9", "h"), ("#7A5195", "<"), ("#8C6D31", ">"), ("#B2182B", "p"))

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.5,
    "xtick.labelsize": 7.0,
    "ytick.labelsize": 7.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}


def arm_styles(names: Iterable[str]) -> dict[str, ArmStyle]:
    """Return a style for each name: the arms of the method always look the same, others by order of appearance.

    Raises:
        ValueError: if there are more unknown names than distinguishable styles.
    """
    names = list(dict.fromkeys(names))
    spare = iter(_SPARE)
    styles = {}
    for name in names:
        if name in _KNOWN:
            styles[name] = _KNOWN[name]
        elif (look := next(spare, None)) is not None:
            styles[name] = ArmStyle(name.replace("_", " "), *look)
        else:
            raise ValueError(f"{len(names)} series are too many to tell apart; draw them in several figures.")
    return styles


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Run a drawing function under the project's settings and leave matplotlib's own as they were."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_RC):
            return draw(*args, **kwargs)

    return wrapper


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure of the given size in inches with constrained layout."""
    return Figure(figsize=(width, height), layout="constrained")


def panel_grid(n: int, n_columns: int, row_height: float, more: float, **shared: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure and its n panels (n,), row by row; the lowest of each column have numbers on their x axis.

    Args:
        n: panels.
        n_columns: of the grid; places that are left over stay empty.
        row_height: inches.
        more: inches beside the rows, for legends.
        shared: of ``Figure.subplots``: axes that panels share.
    """
    n_rows = -(-n // n_columns)
    figure = new_figure(height=row_height * n_rows + more)
    panels = figure.subplots(n_rows, n_columns, squeeze=False, **shared).ravel()
    for panel in panels[n:]:
        panel.remove()
    for panel in panels[max(0, n - n_columns) : n]:
        panel.tick_params(labelbottom=True)
    return figure, panels[:n]


def shared_legend(figure: Figure, panels: Iterable[Axes], order: Iterable[str] = ()) -> None:
    """Put one legend above all panels, each label once and no wider than the figure; those of ``order`` come first."""
    entries = dict.fromkeys(order)
    for panel in panels:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            entries[label] = entries.get(label) or handle
    shown = {label: handle for label, handle in entries.items() if handle is not None}
    for columns in range(max(1, min(len(shown), 5)), 0, -1):
        legend = figure.legend(shown.values(), shown.keys(), loc="outside upper center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def letter_panels(axes: Iterable[Axes]) -> None:
    """Mark panels a, b, c, ... so that captions can name them."""
    for index, panel in enumerate(axes):
        panel.set_title(chr(ord("a") + index), loc="left", fontweight="bold")


def rounded(value: float) -> str:
    """Three significant digits; numbers of four and more digits before the point in full: 2222, not 2.22e+03."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def figure_png(figure: Figure, dpi: int = 200) -> bytes:
    """Render a figure; equal figures give equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, all of it or nothing."""
    write_atomic(path, figure_png(figure))
