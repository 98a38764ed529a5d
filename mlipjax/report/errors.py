"""Figures of errors: against labels for each arm, parity, learning curves, training histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mlipjax.report.style import ArmStyle, arm_styles, letter_panels, new_figure, rounded, shared_legend, styled


@dataclasses.dataclass(frozen=True)
class ErrorCurve:
    """Errors of one arm on one test set, as labels accumulate.

    Each error is (n,) values, or (n, 3) values with the lower and upper end of an interval. An arm that is
    fine-tuned once is a curve of one point.

    Attributes:
        labels: (n,) number of labels the model has seen (or number of the round).
        energy_mean: meV/atom, mean signed error (prediction minus reference).
        energy_std: meV/atom, standard deviation of the error: what remains without a constant offset.
        energy_rmse: meV/atom.
        force_rmse: meV/Å.
    """

    labels: ArrayLike
    energy_mean: ArrayLike
    energy_std: ArrayLike
    energy_rmse: ArrayLike
    force_rmse: ArrayLike


_PANELS = (
    ("energy_mean", "mean energy error", "meV/atom"),
    ("energy_std", "offset-free std of energy", "meV/atom"),
    ("energy_rmse", "energy RMSE", "meV/atom"),
    ("force_rmse", "force RMSE", "meV/Å"),
)


@styled
def error_against_labels(curves: Mapping[str, Mapping[str, ErrorCurve]], *, x_label: str = "DFT labels used") -> Figure:
    """Draw errors against labels: a row for each test set, a column for each kind of error, a line for each arm.

    Arms of one point are drawn a little beside their number of labels, so that they do not hide each other.

    Args:
        curves: ``curves[test set][arm]``.
        x_label: what ``ErrorCurve.labels`` counts.
    """
    rows = list(curves)
    styles = arm_styles(arm for arms in curves.values() for arm in arms)
    figure = new_figure(height=1.9 * len(rows) + 0.5)
    axes = figure.subplots(len(rows), len(_PANELS), squeeze=False, sharex=True)
    for row, test_set in enumerate(rows):
        for column, (field, title, unit) in enumerate(_PANELS):
            panel = axes[row, column]
            shifts = _sideways(curves[test_set])
            for arm, curve in curves[test_set].items():
                values = np.asarray(getattr(curve, field), np.float64)
                _draw_curve(panel, np.asarray(curve.labels) + shifts[arm], values, styles[arm])
            _finish_error_panel(panel, signed=field == "energy_mean")
            panel.set(ylabel=unit, title=title if row == 0 else "")
        axes[row, 0].set_ylabel(f"{test_set}\nmeV/atom")
    ticks = np.unique(np.concatenate([np.ravel(c.labels) for arms in curves.values() for c in arms.values()]))
    for panel in axes[-1]:
        panel.set(xlabel=x_label, xticks=ticks if len(ticks) <= 7 else ticks[:: -(-len(ticks) // 6)])
    shared_legend(figure, axes.ravel(), order=[style.label for style in styles.values()])
    return figure


def _sideways(arms: Mapping[str, ErrorCurve]) -> dict[str, float]:
    """Shifts of the arms of one point along the axis: equal budgets must not hide each other or a line."""
    everything = np.concatenate([np.ravel(curve.labels) for curve in arms.values()])
    step = 0.07 * (np.ptp(everything) or 1.0)
    shifts = dict.fromkeys(arms, 0.0)
    taken: dict[float, int] = {}
    for arm, curve in arms.items():
        if np.size(curve.labels) == 1:
            place = float(np.ravel(curve.labels)[0])
            taken[place] = taken.get(place, 0) + 1
            shifts[arm] = step * taken[place] * (1 if place > everything.min() else -1)
    return shifts


def _draw_curve(panel: Axes, x: np.ndarray, values: np.ndarray, style: ArmStyle) -> None:
    center = values[:, 0] if values.ndim == 2 else values
    look: dict[str, Any] = {"color": style.color, "marker": style.marker, "label": style.label}
    if values.ndim == 2 and len(x) > 1:
        panel.fill_between(x, values[:, 1], values[:, 2], color=style.color, alpha=0.18, linewidth=0)
    elif values.ndim == 2:
        panel.vlines(x, values[:, 1], values[:, 2], color=style.color, linewidth=1.1)
    look |= {"linestyle": "-" if len(x) > 1 else "none", "zorder": 3 if len(x) > 1 else 4}
    panel.plot(x, center, markeredgecolor="white", markeredgewidth=0.5, **look)


def _finish_error_panel(panel: Axes, *, signed: bool) -> None:
    panel.margins(x=0.08)
    if signed:
        panel.axhline(0.0, color="#333333", linewidth=0.7)
        return
    panel.set_ylim(bottom=0.0)


@styled
def parity(reference: ArrayLike, predictions: Mapping[str, ArrayLike], *, quantity: str, unit: str) -> Figure:
    """Draw predictions against the reference, a panel for each model, with n, MAE, RMSE and slope.

    A mean error larger than the whole range of the reference, as of energies with another zero, is taken out of the
    points and printed: drawn, it would leave a speck beside an empty diagonal.

    Args:
        reference: (n,) values, for instance all force components of a test set.
        predictions: (n,) values by model.
        quantity: such as ``"force component"``.
        unit: of the values, such as ``"eV/Å"``; errors of values in eV are printed in meV.

    Raises:
        ValueError: if lengths differ.
    """
    reference = np.asarray(reference, np.float64).ravel()
    factor, error_unit = (1000.0, f"m{unit}") if unit.startswith("eV") else (1.0, unit)
    styles = arm_styles(predictions)
    figure = new_figure(height=2.9, width=min(7.1, 2.4 * len(styles) + 0.4))
    axes = figure.subplots(1, len(styles), squeeze=False, sharex=True, sharey=True)[0]
    drawn: list[np.ndarray] = []
    for panel, (name, values) in zip(axes, predictions.items(), strict=True):
        values = np.asarray(values, np.float64).ravel()
        if values.shape != reference.shape:
            raise ValueError(f"{name}: {values.size} predictions for {reference.size} reference values.")
        offset = _offset_not_drawn(reference, values)
        drawn.append(values - offset)
        _draw_parity(panel, reference, drawn[-1], styles[name])
        text = _errors_text(reference, values, factor, error_unit)
        if offset:
            text += f"\nnot drawn: mean error\n{factor * offset:+.0f} {error_unit}"
        # points far above the diagonal leave the corner below it free
        above = np.mean(drawn[-1] - reference) > 0.1 * np.ptp([reference, drawn[-1]])
        x, y, across, up = (0.96, 0.04, "right", "bottom") if above else _UPPER_LEFT
        panel.text(x, y, text, ha=across, va=up, transform=panel.transAxes, fontsize=7, linespacing=1.35)
        panel.set(title=styles[name].label, xlabel=f"reference {quantity} ({unit})", aspect="equal")
    everything = np.concatenate([reference, *drawn])
    margin = 0.04 * (np.ptp(everything) or 1.0)
    ends = (everything.min() - margin, everything.max() + margin)
    axes[0].set(xlim=ends, ylim=ends, ylabel=f"predicted ({unit})")
    return figure


_UPPER_LEFT = (0.04, 0.96, "left", "top")
"""Place of the text of a parity plot, and how it is aligned there."""


def _offset_not_drawn(reference: np.ndarray, values: np.ndarray) -> float:
    """Mean error where it exceeds the range of the reference, else 0; one value alone has no range to compare with."""
    offset, spread = float(np.mean(values - reference)), float(np.ptp(reference))
    return offset if 0.0 < spread < abs(offset) else 0.0


def _draw_parity(panel: Axes, reference: np.ndarray, values: np.ndarray, style: ArmStyle) -> None:
    # layout must not see it: the extent of an endless line pushes titles off the figure
    panel.axline((0.0, 0.0), slope=1.0, color="#333333", linewidth=0.7).set_in_layout(False)
    alpha = float(np.clip(60.0 / np.sqrt(len(reference)), 0.08, 0.8))
    panel.scatter(reference, values, s=7, color=style.color, alpha=alpha, linewidths=0, rasterized=True)


def _errors_text(reference: np.ndarray, values: np.ndarray, factor: float, unit: str) -> str:
    error = values - reference
    mae, rmse = factor * float(np.mean(np.abs(error))), factor * float(np.sqrt(np.mean(error**2)))
    spread = np.ptp(reference)
    slope = f"\nslope {np.polyfit(reference, values, 1)[0]:.3f}" if spread > 0 else ""
    return f"n = {len(error)}\nMAE {rounded(mae)} {unit}\nRMSE {rounded(rmse)} {unit}{slope}"


@styled
def training_history(
    epochs: ArrayLike, losses: Mapping[str, ArrayLike], errors: Mapping[str, ArrayLike], *, best: float | None = None
) -> Figure:
    """Draw a training run: losses (a) and validation errors (b) against epochs.

    Args:
        epochs: (n,) epochs at which both were taken.
        losses: by name, such as ``train`` and ``validation``; (n,) dimensionless.
        errors: by name with unit, such as ``"force RMSE (meV/Å)"``; (n,).
        best: epoch whose parameters were kept.
    """
    epochs = np.asarray(epochs)
    figure = new_figure(height=2.5)
    panels = figure.subplots(1, 2)
    for panel, series in zip(panels, (losses, errors), strict=True):
        for name, style in arm_styles(series).items():
            values = np.asarray(series[name], np.float64)
            marker = style.marker if len(epochs) < 3 else None  # a line through one point is invisible
            panel.plot(epochs, values, color=style.color, label=style.label, marker=marker)
        if best is not None:
            panel.axvline(best, color="#333333", linewidth=0.8, linestyle=(0, (3, 2)), label="kept")
        panel.set_yscale("log")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.set_xlabel("epoch")
        panel.legend(loc="best", frameon=True, facecolor="white", edgecolor="none", framealpha=0.9)
    panels[0].set_ylabel("loss (dimensionless)")
    panels[1].set_ylabel("validation error (unit in legend)")
    letter_panels(panels)
    return figure
