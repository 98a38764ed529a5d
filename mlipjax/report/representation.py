"""Figures of the microscope: maps of atoms by class, and numbers of models with their intervals."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from mlipjax.report.style import WIDTH, arm_styles, letter_panels, panel_grid, shared_legend, styled

_RAMPS = {"H": "Oranges", "C": "Greys", "N": "Blues", "O": "Reds", "F": "Greens", "Cl": "YlGn", "S": "YlOrBr"}
"""Colours of the elements that chemists know them by; others take what is left."""

_SPARE_RAMPS = ("Purples", "PuRd", "GnBu", "BuGn", "RdPu", "YlGnBu", "OrRd", "BuPu")
_MARKERS = "os^Dv<>Ph"
_OTHER = "#DDDDDD"
_DOT = "#0072B2"


@styled
def class_maps(
    maps: Mapping[str, ArrayLike], classes: Sequence[str], *, notes: Mapping[str, str] | None = None, n_shown: int = 14
) -> Figure:
    """Draw the atoms (or pairs) of every model in two dimensions, coloured by element and shaded by class.

    Args:
        maps: (M, 2) coordinates by model.
        classes: (M,) class of each atom.
        notes: a line under each model's name.
        n_shown: classes with a colour; those with fewer atoms are "other".

    Raises:
        ValueError: if a map has another number of points than there are classes.
    """
    names = np.asarray(classes)
    looks = _looks(names, n_shown)
    n_columns = min(len(maps), 2 if len(maps) == 4 else 3)
    figure, axes = panel_grid(len(maps), n_columns, min(WIDTH / n_columns, 3.2), 0.9)
    for panel, (model, points) in zip(axes, maps.items(), strict=True):
        points = np.asarray(points, np.float64)
        if len(points) != len(names):
            raise ValueError(f"the map of {model} has {len(points)} points, there are {len(names)} atoms.")
        for name, (color, marker) in looks.items():
            own = names == name if name != "other" else ~np.isin(names, list(looks))
            panel.scatter(
                *points[own].T, s=7, color=color, marker=marker, linewidths=0.15, edgecolors="#333333", label=name
            )
        panel.set_title(f"{model}\n{notes[model]}" if notes and model in notes else model)
        panel.set(xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 9), markerscale=1.8)
    return figure


def _looks(names: np.ndarray, n_shown: int) -> dict[str, tuple[str, str]]:
    """Colour and marker of the commonest classes, by element or pair of elements; "other" first so that it lies below.

    Of pairs, bonds ("C-H") and others ("C..H") have one colour and different markers.
    """
    found, counts = np.unique(names, return_counts=True)
    shown = sorted(found[np.argsort(-counts, kind="stable")][:n_shown].tolist(), key=_element_and_number)
    looks = {"other": (_OTHER, ".")} if len(found) > n_shown else {}
    # more groups than ramps: the next ones are darker
    spare = ((ramp, shade) for shade in (0.6, 0.9, 0.35) for ramp in _SPARE_RAMPS)
    elements: dict[str, list[str]] = {}
    for name in shown:
        elements.setdefault(_element_and_number(name)[0].replace("..", "-"), []).append(name)
    for element, members in elements.items():
        ramp, shade = (_RAMPS[element], 0.6) if element in _RAMPS else next(spare)
        alike = len(members) == 1 or "-" in element
        shades = [shade] * len(members) if alike else np.linspace(0.35, 0.9, len(members))
        for index, (name, own) in enumerate(zip(members, shades, strict=True)):
            marker = "^" if ".." in name else _MARKERS[index % len(_MARKERS)]
            looks[name] = (to_hex(colormaps[ramp](own)), marker)
    return looks


def _element_and_number(name: str) -> tuple[str, int]:
    match = re.match(r"([A-Za-z.-]+)(\d*)", name)
    return (match[1], int(match[2] or 0)) if match else (name, 0)


@styled
def estimate_panels(
    panels: Mapping[str, Mapping[str, tuple[float, float, float]]],
    *,
    better: Mapping[str, str] | None = None,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Draw a number of every model with its interval, a panel for each kind of number.

    Args:
        panels: ``panels[title][model] = (value, low, high)``; limits may be NaN (drawn without a bar).
        better: by title, what a reader should know, such as "lower is better".
        lines: by title, a value to compare with, drawn as a dashed line.

    Raises:
        ValueError: if there is no panel.
    """
    if not panels:
        raise ValueError("there is no number to draw.")
    models = list(dict.fromkeys(model for rows in panels.values() for model in rows))
    figure, axes = panel_grid(len(panels), min(len(panels), 3), 0.24 * len(models) + 0.95, 0.1, sharey=True)
    for panel, (title, rows) in zip(axes, panels.items(), strict=True):
        _draw_estimates(panel, models, rows)
        if lines and title in lines:
            panel.axvline(lines[title], color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
        panel.set_xlabel(f"{title}\n({better[title]})" if better and title in better else title)
        panel.margins(x=0.12)
        values = [row[0] for row in rows.values()]
        # one stranger among models of one family would leave the others on top of each other
        if min(values) > 0.0 and max(values) > 50.0 * min(values):
            panel.set_xscale("log")
    letter_panels(axes)
    return figure


def _draw_estimates(panel: Axes, models: list[str], rows: Mapping[str, tuple[float, float, float]]) -> None:
    for height, model in enumerate(models):
        if model not in rows:
            continue
        value, low, high = rows[model]
        if np.isfinite([low, high]).all():
            panel.plot([low, high], [height, height], color=_DOT, linewidth=1.6, solid_capstyle="butt")
        panel.plot(value, height, "o", color=_DOT, markersize=4.5)
    panel.set_yticks(range(len(models)), models)
    panel.set_ylim(len(models) - 0.5, -0.5)
    panel.grid(visible=False, axis="y")


@styled
def estimates_along(
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]],
    *,
    better: Mapping[str, str] | None = None,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Draw numbers with their intervals against the optimiser step, a panel for each number and a line for each run.

    Args:
        panels: ``panels[title][run]`` are (step, value, low, high), the run's snapshots in order and last the model
            that was kept, which is drawn as a star; limits may be NaN.
        better: by title, what a reader should know, such as "lower is better".
        lines: by title, a value to compare with, drawn as a dashed line.

    Raises:
        ValueError: if there is no panel, or more runs than can be told apart.
    """
    if not panels:
        raise ValueError("there is no number to draw.")
    styles = arm_styles(run for rows in panels.values() for run in rows)
    n_columns = min(len(panels), 3)
    figure, axes = panel_grid(len(panels), n_columns, 1.65, 0.4, sharex=True)
    for panel, (title, rows) in zip(axes, panels.items(), strict=True):
        for run, points in rows.items():
            step, value, low, high = np.asarray(points, np.float64).T
            look = styles[run]
            panel.fill_between(step[:-1], low[:-1], high[:-1], color=look.color, alpha=0.2, linewidth=0)
            panel.plot(step[:-1], value[:-1], color=look.color, marker=look.marker, markersize=3.5, label=look.label)
            panel.plot(step[-1], value[-1], "*", color=look.color, markersize=9, markeredgecolor="white")
        if lines and title in lines:
            panel.axhline(lines[title], color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
        panel.set_ylabel(f"{title}\n({better[title]})" if better and title in better else title, fontsize=6.5)
    for panel in axes[-n_columns:]:
        panel.set_xlabel("optimiser step")
    axes[0].plot([], [], "*", color="#333333", markersize=8, linestyle="none", label="the model that was kept")
    shared_legend(figure, axes[:1])
    letter_panels(axes)
    return figure
