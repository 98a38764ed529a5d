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
    "mft-long": ArmStyle("mft (twice the steps)", "#56B4E9", "v"),
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


_COLLAPSE = {
    "davies_bouldin_original_ratio": ("Davies-Bouldin ratio", 1.0),
    "davies_bouldin_standardised_ratio": ("the same, standardised", 1.0),
    "davies_bouldin_tsne_ratio": ("the same, on t-SNE", 1.0),
    "silhouette_standardised": ("silhouette, standardised", None),
    "effective_rank_within_ratio": ("effective rank within\nclasses, ratio", 1.0),
    "cka_within": ("linear CKA within classes", 1.0),
    "wasserstein_standardised": ("1-Wasserstein per channel,\nstandardised", 0.0),
    "q_before_under_after": ("Q of old features,\nnew charts", 1.0),
}
"""Title of each number, and its value for features that have not changed (``None``: the pretrained model's own)."""


@styled
def collapse_panels(found: Mapping[str, Any]) -> Figure:
    """Numbers of the representation of every mode: each seed with its interval, the mean, and no change dashed.

    Args:
        found: ``nodes`` or ``edges`` of ``_multitask_collapse.examine``.
    """
    modes = found["modes"]
    shown = [key for key in _COLLAPSE if any(key in part["numbers"] for part in modes.values())]
    n_rows = -(-len(shown) // 4)
    figure = new_figure(1.75 * n_rows + 0.3)
    panels = figure.subplots(n_rows, 4, squeeze=False).ravel()
    for panel, key in zip(panels, shown, strict=False):
        title, line = _COLLAPSE[key]
        line = found["pretrained"].get(key, {}).get("value") if line is None else line
        if line is not None:
            panel.axhline(line, color="black", linewidth=0.8, linestyle=(0, (4, 2)))
        for place, (mode, part) in enumerate(modes.items()):
            _draw_seeds(panel, place, STYLES[mode], part["numbers"].get(key))
        panel.set_xticks(range(len(modes)), list(modes), rotation=30)
        panel.set_xlim(-0.6, len(modes) - 0.4)
        panel.grid(axis="x", visible=False)
        panel.set_ylabel(title)
    for panel in panels[len(shown) :]:
        panel.remove()
    letter_panels(panels[: len(shown)])
    return figure


def _draw_seeds(panel: Any, place: int, style: ArmStyle, number: Mapping[str, Any] | None) -> None:
    if number is None or number["mean"] is None:
        return
    seeds = number["seeds"]
    offsets = np.linspace(-0.22, 0.22, len(seeds)) if len(seeds) > 1 else [0.0]
    for offset, value, (low, high) in zip(offsets, seeds, number["confidence_95"], strict=True):
        if low is not None and high is not None:
            panel.plot([place + offset] * 2, [low, high], color=style.color, linewidth=0.8)
        panel.plot(place + offset, value, style.marker, color=style.color, markersize=3.5)
    panel.plot([place - 0.32, place + 0.32], [number["mean"]] * 2, color=style.color, linewidth=1.6)
