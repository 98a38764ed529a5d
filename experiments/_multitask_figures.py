"""Figures of ``experiments.multitask``: arrays in, matplotlib ``Figure`` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from mlipjax.report.style import ArmStyle, letter_panels, new_figure, shared_legend, styled

STYLES = {
    "scratch": ArmStyle("scratch", "#5A5A5A", "D"),
    "ft": ArmStyle("ft (all parameters)", "#D55E00", "s"),
    "lp": ArmStyle("lp (head alone)", "#009E73", "^"),
    "mft": ArmStyle("mft (with force field)", "#0072B2", "o"),
}
_TESTS = {"id": "in domain (ID)", "ood": "out of domain (OOD)"}
_BINS = 16


@styled
def improvement_bars(rows: Sequence[Mapping[str, Any]], paper: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Improvement over scratch of every mode, ID and OOD side by side, beside the paper's."""
    figure = new_figure(2.6)
    panels = figure.subplots(1, 2, sharey=True)
    shown = [row for row in rows if row["mode"] != "scratch" and row["id"]["better_percent"] is not None]
    for index, (panel, (test, title)) in enumerate(zip(panels, _TESTS.items(), strict=True)):
        for place, row in enumerate(shown):
            value, (low, high) = row[test]["better_percent"], row[test]["better_percent_95"]
            error = [[max(value - low, 0.0)], [max(high - value, 0.0)]]
            style = STYLES[row["mode"]]
            panel.bar(place, value, color=style.color, width=0.6, label=style.label)
            panel.errorbar(place, value, yerr=error, color="black", capsize=3, linewidth=0.8)
            published = paper[row["mode"]]["improvement"][index]
            label = "paper" if place == 0 else None
            panel.plot(place + 0.4, published, "D", color="white", markeredgecolor="black", label=label)
        panel.axhline(0.0, color="black", linewidth=0.8)
        panel.set_xticks(range(len(shown)), [row["mode"] for row in shown])
        panel.grid(axis="x", visible=False)
        panel.set_title(title)
    panels[0].set_ylabel("MAE lower than scratch (%)")
    letter_panels(panels)
    shared_legend(figure, panels)
    return figure


@styled
def residuals_by_label(
    values: Mapping[str, np.ndarray], errors: Mapping[str, Mapping[str, np.ndarray]], unit: str
) -> Figure:
    """Mean error and MAE of every mode in bins of the value, ID and OOD together.

    Args:
        values: of both test sets.
        errors: by mode and test set, (seeds, structures).
        unit: of the property.
    """
    figure = new_figure(2.9)
    panels = figure.subplots(1, 2)
    everything = np.concatenate([values["id"], values["ood"]])
    edges = np.unique(np.quantile(everything, np.linspace(0.0, 1.0, _BINS + 1)))
    bins = np.clip(np.digitize(everything, edges[1:-1]), 0, len(edges) - 2)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    used = counts > 0
    middle = np.bincount(bins, everything, len(edges) - 1)[used] / counts[used]
    for mode, parts in errors.items():
        joined = np.concatenate([parts["id"], parts["ood"]], axis=1)
        style = STYLES[mode]
        for panel, per_structure in zip(panels, (joined.mean(axis=0), np.abs(joined).mean(axis=0)), strict=True):
            mean = np.bincount(bins, per_structure, len(edges) - 1)[used] / counts[used]
            panel.plot(middle, mean, marker=style.marker, color=style.color, label=style.label)
    for panel, what in zip(panels, ("mean error", "MAE"), strict=True):
        panel.axvspan(values["id"].min(), values["id"].max(), color="#EFEFEF", zorder=0)
        panel.set(xlabel=f"value ({unit})", ylabel=f"{what} ({unit})")
    panels[0].axhline(0.0, color="black", linewidth=0.8)
    letter_panels(panels)
    shared_legend(figure, panels)
    return figure


@styled
def data_efficiency(rows: Sequence[Mapping[str, Any]], unit: str) -> Figure:
    """MAE of every mode against the number of training structures, ID and OOD."""
    figure = new_figure(2.9)
    panels = figure.subplots(1, 2)
    for panel, (test, title) in zip(panels, _TESTS.items(), strict=True):
        for mode in dict.fromkeys(row["mode"] for row in rows):
            mine = sorted((row for row in rows if row["mode"] == mode), key=lambda row: row["n"])
            sizes = [row["n"] for row in mine]
            intervals = np.array([row[test]["mae_95"] for row in mine])
            style = STYLES[mode]
            panel.plot(sizes, [row[test]["mae"] for row in mine], marker=style.marker, color=style.color,
                       label=style.label)  # fmt: skip
            panel.fill_between(sizes, *intervals.T, color=style.color, alpha=0.15, linewidth=0)
        panel.set(xscale="log", yscale="log", xlabel="training structures", ylabel=f"MAE ({unit})", title=title)
        sizes = sorted({row["n"] for row in rows})
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.minorticks_off()
        # errors span less than a decade, where a logarithmic axis would show no number at all
        panel.yaxis.set_major_locator(MaxNLocator(5))
        panel.yaxis.set_major_formatter(ScalarFormatter())
    letter_panels(panels)
    shared_legend(figure, panels)
    return figure
