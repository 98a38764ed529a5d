"""Figures of ``experiments.bias`` that no other experiment needs: arrays in, figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from mlipjax.report import arm_styles
from mlipjax.report.style import letter_panels, new_figure, shared_legend, styled


@styled
def element_errors(mae: Mapping[str, Mapping[str, float]], norm: Mapping[str, float]) -> Figure:
    """Draw the force MAE of each element (a), and the same relative to the mean force on that element (b).

    Args:
        mae: ``mae[model][element]`` in meV/Å.
        norm: mean norm of the reference force by element, meV/Å.
    """
    styles, elements = arm_styles(mae), list(norm)
    figure = new_figure(height=2.5)
    panels = figure.subplots(1, 2)
    width = 0.8 / len(styles)
    for k, (model, style) in enumerate(styles.items()):
        x = np.arange(len(elements)) + (k - (len(styles) - 1) / 2) * width
        absolute = np.array([mae[model][element] for element in elements])
        relative = 100.0 * absolute / np.array([norm[element] for element in elements])
        for panel, values in zip(panels, (absolute, relative), strict=True):
            panel.bar(x, values, width, color=style.color, label=style.label)
    for panel, label in zip(panels, ("force MAE (meV/Å)", "force MAE / mean |F| (%)"), strict=True):
        panel.set_xticks(np.arange(len(elements)), elements)
        panel.set_ylabel(label)
        panel.grid(axis="x", visible=False)
    letter_panels(panels)
    shared_legend(figure, panels)
    return figure


@styled
def cross_charts(q: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], unit: str) -> Figure:
    """Draw Q per element of each model's chart (a panel) for sets of frames: mean, and 5 % to 95 % of the frames.

    Args:
        q: ``q[model][set of frames][element]``, one value per frame.
        unit: of Q.
    """
    sets = list(dict.fromkeys(name for by_set in q.values() for name in by_set))
    arms = arm_styles(dict.fromkeys(name.split(":")[0] for name in sets))
    figure = new_figure(height=2.6)
    panels = figure.subplots(1, len(q), sharey=True, squeeze=False)[0]
    for panel, (model, by_set) in zip(panels, q.items(), strict=True):
        elements = list(next(iter(by_set.values())))
        step = 0.7 / max(len(by_set), 1)
        for k, (name, values) in enumerate(by_set.items()):
            style = arms[name.split(":")[0]]
            x = np.arange(len(elements)) + (k - (len(by_set) - 1) / 2) * step
            series = [np.asarray(values[element], np.float64) for element in elements]
            center = np.array([s.mean() for s in series])
            low, high = (np.array([np.quantile(s, p) for s in series]) for p in (0.05, 0.95))
            held_out = not name.endswith(": all")
            panel.errorbar(
                x,
                center,
                yerr=[np.maximum(center - low, 0.0), np.maximum(high - center, 0.0)],
                fmt=style.marker,
                color=style.color,
                markerfacecolor="white" if held_out else style.color,
                linewidth=1.0,
                capsize=2,
                label=f"{style.label}: {'held out' if held_out else 'all frames'}",
            )
        panel.set_xticks(np.arange(len(elements)), elements)
        panel.set_title(f"{arm_styles([model])[model].label} chart")
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(axis="x", visible=False)
    panels[0].set_ylabel(f"mean Q ({unit})")
    letter_panels(panels)
    shared_legend(figure, panels)
    return figure


@styled
def own_runs(runs: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw counted bonds and the density along each model's own trajectory, a panel for each kind.

    Args:
        runs: by model: ``time_ps``, ``events`` by kind, ``density_g_per_cm3``.
    """
    styles = arm_styles(runs)
    kinds = list(next(iter(runs.values()))["events"])
    labels = [*(f"{kind}\n(per Co)" if kind.startswith("Co") else f"{kind}\n(number of bonds)" for kind in kinds)]
    figure = new_figure(height=3.4)
    panels = figure.subplots(2, -(-(len(kinds) + 1) // 2), sharex=True, squeeze=False).ravel()
    for k, (name, run) in enumerate(runs.items()):
        look: Any = {"color": styles[name].color, "label": styles[name].label, "linewidth": 1.2}
        for panel, kind in zip(panels, kinds, strict=False):
            # equal counts would hide each other
            shift = 0.05 * (k - (len(styles) - 1) / 2)
            panel.step(run["time_ps"], np.asarray(run["events"][kind]) + shift, where="post", **look)
        panels[len(kinds)].plot(run["time_ps"], run["density_g_per_cm3"], **look)
    for panel, label in zip(panels, [*labels, "density\n(g/cm³)"], strict=False):
        panel.set_ylabel(label)
    for panel, kind in zip(panels, kinds, strict=False):
        counts = np.concatenate([np.asarray(run["events"][kind], np.float64) for run in runs.values()])
        panel.set_ylim(counts.min() - 0.9, counts.max() + 0.9)
        panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for panel in panels[len(kinds) + 1 :]:
        panel.remove()
    for panel in panels[len(kinds) - 2 : len(kinds) + 1]:
        panel.set_xlabel("time (ps)")
        panel.tick_params(labelbottom=True)
    shared_legend(figure, panels[: len(kinds) + 1])
    return figure


@styled
def forgetting(growth: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> Figure:
    """Draw the retained force error after fine-tuning relative to before, by strategy and arm.

    Args:
        growth: ``growth[strategy][arm]``: factor with the ends of its interval.
    """
    strategies = list(growth)
    arms = arm_styles(arm for by_arm in growth.values() for arm in by_arm)
    figure = new_figure(height=2.4, width=min(7.1, 2.4 + 1.1 * len(strategies)))
    panel = figure.subplots()
    for k, (arm, style) in enumerate(arms.items()):
        x = np.array([i for i, strategy in enumerate(strategies) if arm in growth[strategy]], float)
        values = np.array([growth[strategy][arm] for strategy in strategies if arm in growth[strategy]])
        x += (k - (len(arms) - 1) / 2) * 0.15
        errors = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
        panel.errorbar(x, values[:, 0], yerr=errors, fmt=style.marker, color=style.color, label=style.label, capsize=2)
    panel.axhline(1.0, color="#333333", linewidth=0.7, linestyle=(0, (4, 2)), label="nothing forgotten")
    panel.set_xticks(np.arange(len(strategies)), strategies)
    panel.set_xlim(-0.6, len(strategies) - 0.4)
    panel.set_ylabel("force RMSE on MPtrj,\nafter / before")
    shared_legend(figure, [panel])
    return figure


@styled
def claim_chart(claims: Sequence[Any]) -> Figure:
    """Draw the number behind each claim relative to the value that decides it, with its interval.

    Args:
        claims: with ``statement``, ``value``, ``low``, ``high``, ``threshold`` and ``answer``.
    """
    colors = {"supported": "#009E73", "contradicted": "#D55E00", "not decided": "#5A5A5A"}
    figure = new_figure(height=0.34 * len(claims) + 0.9)
    panel = figure.subplots()
    for row, claim in enumerate(claims):
        values = np.array([claim.value, claim.low, claim.high]) - claim.threshold
        panel.plot(values[1:], [row, row], color=colors[claim.answer], linewidth=2.0)
        panel.plot(values[0], row, "o", color=colors[claim.answer])
    for answer, color in colors.items():
        panel.plot([], [], "o-", color=color, label=answer)
    panel.axvline(0.0, color="#333333", linewidth=0.8)
    if max(abs(end - claim.threshold) for claim in claims for end in (claim.low, claim.high)) > 3.0:
        panel.set_xscale("symlog", linthresh=1.0)
    panel.set_yticks(np.arange(len(claims)), ["\n".join(wrap(claim.statement, 56)) for claim in claims], fontsize=6.5)
    panel.invert_yaxis()
    panel.set_xlabel("measure minus the value that decides (dimensionless)")
    shared_legend(figure, [panel])
    return figure
