"""Control charts: indices of frames against their limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mlipjax.report.html import Illustration, write_report
from mlipjax.report.structures import outstanding
from mlipjax.report.style import arm_styles, letter_panels, new_figure, shared_legend, styled

_ALARM = "#B2182B"
_LIMIT = "#333333"


@styled
def control_charts(
    indices: Mapping[str, ArrayLike],
    limits: Mapping[str, float],
    *,
    runs: Sequence[object] | None = None,
    x: ArrayLike | None = None,
    x_label: str = "frame (number)",
    unit: str = "dimensionless",
) -> Figure:
    """Draw an index in each panel over frames, with its limit and a mark on every frame that exceeds it.

    Args:
        indices: (n,) values of each index, by its name.
        limits: of each index; an infinite one is not drawn.
        runs: (n,) run of each frame; every run is a line of its own.
        x: (n,) time or number of each frame; by default its number in its run.
        x_label: what ``x`` is, with unit.
        unit: of all indices.

    Raises:
        ValueError: if there are no frames, or the lengths do not agree.
    """
    values = {name: np.asarray(index, np.float64) for name, index in indices.items()}
    n = len(next(iter(values.values()), []))
    groups = [0] * n if runs is None else list(runs)
    if n == 0 or any(len(index) != n for index in [*values.values(), groups]):
        raise ValueError("control charts need at least one frame, and as many values of each index as frames.")
    names = list(dict.fromkeys(groups))
    rows = [np.flatnonzero([group == name for group in groups]) for name in names]
    style = arm_styles([f"run {name}" for name in names]) if 1 < len(names) <= 6 else {}
    figure = new_figure(height=1.45 * len(values) + 0.5)
    axes = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for panel, (name, index) in zip(axes, values.items(), strict=True):
        for group, own in zip(names, rows, strict=True):
            along = np.arange(len(own)) if x is None else np.asarray(x, np.float64)[own]
            look = style.get(f"run {group}")
            color, label = (look.color, look.label) if look else ("#0072B2", None)
            panel.plot(along, index[own], color=color, label=label, linewidth=0.8, alpha=0.9, zorder=2)
            out = ~(index[own] <= limits[name])
            # NaN (an element without a chart) is an alarm too; it is marked at the limit
            height = np.where(np.isfinite(index[own]), index[own], limits[name])[out]
            label = "alarm" if group == names[0] else None
            panel.plot(along[out], height, "o", color=_ALARM, markersize=2.5, label=label, zorder=3)
        if np.isfinite(limits[name]):
            panel.axhline(limits[name], color=_LIMIT, linewidth=0.8, linestyle=(0, (4, 2)), label="limit")
        finite = index[np.isfinite(index)]
        if len(finite) and finite.min() > 0.0 and finite.max() > 20.0 * np.median(finite):
            panel.set_yscale("log")
        panel.set_ylabel(f"{name}\n({unit})")
        panel.margins(x=0.01)
    axes[-1].set_xlabel(x_label)
    letter_panels(axes)
    shared_legend(figure, axes)
    return figure


def write_monitor_report(
    folder: Path,
    charts: Figure,
    frames: Sequence[Atoms],
    furthest: Sequence[tuple[float, int]],
    *,
    verdict: str,
    alarm: bool,
    versions: Mapping[str, str],
) -> None:
    """Write ``report.html`` of frames that charts have judged, and its figures.

    Args:
        folder: to write to.
        charts: indices of all frames over their limits.
        frames: all of them.
        furthest: of each frame the index that decides over its limit, and the atom that is furthest out.
        verdict: in words.
        alarm: whether it is bad news.
        versions: of what made it.
    """
    drawn = f"Indices of {len(frames)} frames and their limits; frames above are marked."
    title = "Frames furthest out"
    ratios, atoms = zip(*furthest, strict=True)
    figure, viewer = outstanding(frames, ratios, quantity="index over its limit", title=title, marked=atoms)
    caption = "Numbers are the index over its limit, an alarm above 1; the atom furthest out is drawn in magenta."
    content = [Illustration(charts, drawn, "Charts", "monitor"), Illustration(figure, caption, title, "furthest_out")]
    write_report(folder / "report.html", title="Charts", verdict=verdict, content=[*content, *viewer],
                 versions=versions, alarm=alarm)  # fmt: skip
