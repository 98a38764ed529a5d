"""Figures of trajectories: temperature and energy, where they go in feature space, and how unusual they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from numpy.typing import ArrayLike

from mlipjax.report.style import arm_styles, letter_panels, new_figure, panel_grid, shared_legend, styled


@dataclasses.dataclass(frozen=True)
class Trace:
    """Temperature and energy along one trajectory.

    Attributes:
        time: (n,) ps.
        temperature: (n,) K.
        energy: (n,) eV/atom, potential energy; drawn relative to the mean of the first trace's first tenth.
        events: times in ps at which something happened, such as a fine-tune.
    """

    time: ArrayLike
    temperature: ArrayLike
    energy: ArrayLike
    events: ArrayLike = ()


@styled
def traces(runs: Mapping[str, Trace], *, target_temperature: float | None = None) -> Figure:
    """Draw temperature (a) and potential energy (b) against time, a line for each run.

    Args:
        runs: by arm; their events, fine-tunes, are marked on the time axis.
        target_temperature: K, of the thermostat.
    """
    styles = arm_styles(runs)
    figure = new_figure(height=3.6)
    top, bottom = figure.subplots(2, 1, sharex=True)
    first = np.asarray(next(iter(runs.values())).energy, np.float64)
    zero = float(np.mean(first[: max(1, len(first) // 10)]))
    for arm, trace in runs.items():
        time, color = np.asarray(trace.time), styles[arm].color
        top.plot(time, trace.temperature, color=color, label=styles[arm].label, linewidth=0.9)
        bottom.plot(time, 1000.0 * (np.asarray(trace.energy, np.float64) - zero), color=color, linewidth=0.9)
        events = np.asarray(trace.events, np.float64)
        if events.size:
            bottom.plot(
                events,
                np.zeros_like(events),
                color=color,
                marker="^",
                linestyle="none",
                clip_on=False,
                transform=bottom.get_xaxis_transform(),
                label=f"fine-tune ({styles[arm].label})",
            )
    if target_temperature is not None:
        top.axhline(target_temperature, color="#333333", linewidth=0.7, linestyle=(0, (4, 2)))
    top.set_ylabel("temperature (K)")
    bottom.set(ylabel="potential energy\n(meV/atom, shifted)", xlabel="time (ps)")
    bottom.margins(x=0.01)
    letter_panels((top, bottom))
    shared_legend(figure, (top, bottom))
    return figure


@styled
def pca_map(sets: Mapping[str, ArrayLike], *, explained: tuple[float, float], what: str = "structures") -> Figure:
    """Draw data sets on their first two principal components, each with an ellipse of two standard deviations.

    Args:
        sets: (n, 2) scores by data set, on common components.
        explained: fraction of the variance each component explains.
        what: what a point is.
    """
    styles = arm_styles(sets)
    figure = new_figure(height=3.2, width=5.6)
    panel = figure.subplots()
    for name, scores in sets.items():
        scores = np.asarray(scores, np.float64)
        style = styles[name]
        alpha = float(np.clip(12.0 / np.sqrt(len(scores)), 0.15, 0.85))
        label = f"{style.label} ({len(scores)})"
        panel.scatter(*scores.T, s=16, color=style.color, marker=style.marker, alpha=alpha, linewidths=0, label=label)
        _draw_spread(panel, scores, style.color)
    panel.set_xlabel(f"PC 1 ({100 * explained[0]:.0f} % of variance, dimensionless)")
    panel.set_ylabel(f"PC 2 ({100 * explained[1]:.0f} %, dimensionless)")
    figure.legend(
        title=f"data set\n(number of {what})", loc="outside right upper", alignment="left", title_fontsize=7.5
    )
    return figure


def _draw_spread(panel: Axes, scores: np.ndarray, color: str) -> None:
    """Ellipse of two standard deviations along the principal axes of a point cloud."""
    if len(scores) < 3:
        return
    variances, axes = np.linalg.eigh(np.cov(scores.T))
    width, height = 4.0 * np.sqrt(np.maximum(variances[::-1], 0.0))
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    center = (float(scores[:, 0].mean()), float(scores[:, 1].mean()))
    panel.add_patch(Ellipse(center, width, height, angle=angle, fill=False, edgecolor=color, linewidth=1.0))


@styled
def q_residual(
    times: Mapping[str, ArrayLike],
    residuals: Mapping[str, Mapping[str, ArrayLike]],
    *,
    limits: Mapping[str, float] | None = None,
    unit: str = "squared feature units",
) -> Figure:
    """Draw the mean Q-residual of each element over time, a panel for each element, a line for each arm.

    Args:
        times: (n,) ps, by arm.
        residuals: ``residuals[element][arm]``, (n,) mean squared PCA reconstruction error of its atoms.
        limits: by element, the value that the training set rarely exceeds.
        unit: of the residuals, for instance ``"multiples of the limit"``.
    """
    styles = arm_styles(times)
    n_rows = 1 if len(residuals) <= 4 else -(-len(residuals) // 4)
    figure, axes = panel_grid(len(residuals), -(-len(residuals) // n_rows), 1.6, 0.7, sharex=True)
    for panel, (element, by_arm) in zip(axes, residuals.items(), strict=True):
        for arm, values in by_arm.items():
            panel.plot(times[arm], values, color=styles[arm].color, label=styles[arm].label, linewidth=0.9)
        if limits and element in limits:
            panel.axhline(limits[element], color="#333333", linewidth=0.8, linestyle=(0, (4, 2)), label="limit")
        panel.set_ylim(bottom=0.0)
        panel.set_title(element, fontweight="bold")
    figure.supxlabel("time (ps)", fontsize=8.0)
    figure.supylabel(f"mean Q-residual\n({unit})", fontsize=8.0, multialignment="center")
    shared_legend(figure, axes)
    return figure
