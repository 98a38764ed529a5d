"""Figures of ``experiments.migration``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mlipjax.report.style import letter_panels, new_figure, styled

_LOOKS = (
    ("#000000", "X"), ("#5A5A5A", "D"), ("#E69F00", "P"), ("#56B4E9", "h"), ("#0072B2", "o"), ("#009E73", "^"),
    ("#D55E00", "s"), ("#CC79A7", "v"), ("#8C6D31", ">"), ("#7A5195", "<"),
)  # fmt: skip
"""Oracle first, then models in their order."""


def _looks(names: list[str]) -> dict[str, dict[str, str]]:
    return {name: dict(zip(("color", "marker"), _LOOKS[i % len(_LOOKS)], strict=True)) for i, name in enumerate(names)}


def _legend(figure: Figure, panel: Any) -> None:
    """All labels above the panels; names of arms are long, so few stand side by side."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)


@styled
def fixed_profiles(results: Mapping[str, Any]) -> Figure:
    """A panel for each path: energies of all models on the published images."""
    models = {"oracle": [results["reference"]]} | dict(results["models"])
    looks = _looks(list(models))
    figure = new_figure(3.5)
    panels = figure.subplots(1, len(results["paths"]), squeeze=False)[0]
    for panel, (path, about) in zip(panels, results["paths"].items(), strict=True):
        everything = []
        for name, seeds in models.items():
            profiles = np.array([row["paths"][path]["profile_eV"] for row in seeds])
            profile, images = profiles.mean(axis=0), np.arange(profiles.shape[1])
            panel.plot(images, profile, label=name, **looks[name])
            if len(seeds) > 1:
                width = profiles.std(axis=0, ddof=1)
                panel.fill_between(images, profile - width, profile + width, color=looks[name]["color"], alpha=0.2)
            if "scratch" not in name:
                everything.append(profile)
        candidate = np.array(about["candidate_eV"])
        panel.plot(np.arange(len(candidate)), candidate, "x:", color="#888888", label="published candidate")
        # models from scratch may be off by many eV; the panel is for the others
        values = np.concatenate([*everything, candidate])
        margin = 0.25 * np.ptp(values)
        panel.set_ylim(values.min() - margin, values.max() + margin)
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        panel.set_xlabel(f"image of {path}")
    panels[0].set_ylabel("energy (eV)")
    letter_panels(panels)
    _legend(figure, panels[0])
    return figure


@styled
def barriers(summary: Mapping[str, Any]) -> Figure:
    """A panel for each path: self-consistent barriers, the oracle's as a line."""
    figure = new_figure(2.9)
    panels = figure.subplots(1, len(summary["paths"]), squeeze=False, sharey=True)[0]
    for panel, (path, entries) in zip(panels, summary["paths"].items(), strict=True):
        names = [name for name, entry in entries.items() if entry["own_eV"] is not None]
        looks = _looks(list(entries))
        for row, name in enumerate(names):
            entry = entries[name]
            done = entry["converged"] == 1.0
            panel.barh(
                row,
                entry["own_eV"],
                xerr=entry.get("own_eV_std"),
                color=looks[name]["color"],
                hatch=None if done else "///",
                edgecolor="white",
            )
            # a bar of no height has no hatches to show
            note = f" {entry['own_eV']:.2f}" + ("" if done else ", not converged")
            panel.text(entry["own_eV"], row, note, va="center", fontsize=7)
        panel.set_yticks(range(len(names)), names)
        if "oracle" in names:
            panel.axvline(entries["oracle"]["own_eV"], color="#333333", linewidth=0.8)
        panel.margins(x=0.25)
        panel.xaxis.set_major_locator(MaxNLocator(3))
        panel.set_xlabel(f"barrier of {path} (eV)")
        panel.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    letter_panels(panels)
    return figure


@styled
def sliding(results: Mapping[str, Any]) -> Figure | None:
    """Relaxed sliding energies along both vectors; nothing if no model could be slid."""
    models = {"oracle": results["reference"]} | {name: seeds[0] for name, seeds in results["models"].items()}
    looks = _looks(list(models))
    known = {name: row["crystal"]["profiles"] for name, row in models.items() if "profiles" in row["crystal"]}
    if not known:
        return None
    vectors = list(next(iter(known.values())))
    figure = new_figure(3.4)
    panels = figure.subplots(1, len(vectors), squeeze=False)[0]
    for panel, vector in zip(panels, vectors, strict=True):
        kept = []
        for name, profiles in known.items():
            values = np.array(profiles[vector]["relaxed_meV_per_A2"], np.float64)
            panel.plot(profiles[vector]["shift_A"], values, label=name, **looks[name])
            if "scratch" not in name:
                kept.append(values)
        if kept:
            shown = np.concatenate(kept)
            margin = 0.2 * max(np.ptp(shown), 1e-3)
            panel.set_ylim(shown.min() - margin, shown.max() + margin)
        panel.set_xlabel(f"shift along {vector} (Å)")
    panels[0].set_ylabel("sliding energy (meV/Å²)")
    letter_panels(panels)
    _legend(figure, panels[0])
    return figure
