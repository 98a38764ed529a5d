"""Figures of probes of bulk, defect, short-range and dynamic properties: arrays in, Figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from mlipjax.report.style import letter_panels, new_figure, styled

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#5A5A5A", "#8C6D31")
_DASHES = ("-", "--", "-.", ":")
_SHRINK = 4.0
"""Times the largest force of the bulk that a frame of forces shows at most."""
_STRAIN = ("xx", "yy", "zz", "yz", "xz", "xy")


def _look(index: int) -> dict[str, Any]:
    """Colour and line of the n-th series: eight colours, then the same ones dashed."""
    return {"color": _COLORS[index % 8], "linestyle": _DASHES[(index // 8) % 4]}


def _legend_outside(figure: Figure, panel: Axes) -> None:
    handles, labels = panel.get_legend_handles_labels()
    columns = 1 + (len(labels) - 1) // 16
    figure.legend(handles, labels, loc="outside right upper", ncols=columns)


@styled
def equation_of_state(volumes: ArrayLike, energies: ArrayLike, fit_v: ArrayLike, fit_e: ArrayLike) -> Figure:
    """Draw energies (eV/atom, above the minimum) against volume (Å^3/atom) and the fitted curve."""
    figure = new_figure(height=2.6, width=3.6)
    panel = figure.subplots()
    panel.plot(fit_v, 1000.0 * np.asarray(fit_e), color=_COLORS[0], label="Birch-Murnaghan fit")
    panel.plot(volumes, 1000.0 * np.asarray(energies), "o", color=_COLORS[1], label="potential")
    panel.set(xlabel="volume (Å³/atom)", ylabel="energy above minimum (meV/atom)")
    panel.legend()
    return figure


@styled
def elastic_constants(clamped: ArrayLike, relaxed: ArrayLike) -> Figure:
    """Draw the (6, 6) matrices in GPa with their numbers; the second is left out where it is NaN."""
    matrices = {"clamped ions": np.asarray(clamped), "relaxed ions": np.asarray(relaxed)}
    matrices = {name: matrix for name, matrix in matrices.items() if np.all(np.isfinite(matrix))}
    limit = max(np.abs(matrix).max() for matrix in matrices.values())
    figure = new_figure(height=3.0, width=3.3 * len(matrices))
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for panel, (name, matrix) in zip(axes, matrices.items(), strict=True):
        panel.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
        panel.grid(False)
        panel.set_xticks(range(6), _STRAIN)
        panel.set_yticks(range(6), _STRAIN)
        panel.set_title(f"{name} (GPa)")
        for (row, column), value in np.ndenumerate(matrix):
            dark = abs(value) > 0.6 * limit
            text = "0" if abs(value) < 0.05 else f"{value:.1f}" if limit < 100 else f"{value:.0f}"
            panel.text(column, row, text, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    letter_panels(axes)
    return figure


@styled
def frequencies(values: ArrayLike) -> Figure:
    """Draw frequencies (THz) as a ladder."""
    figure = new_figure(height=3.0, width=2.2)
    panel = figure.subplots()
    values = np.asarray(values)
    panel.hlines(values, -0.3, 0.3, color=_COLORS[0], linewidth=1.2)
    panel.hlines(values[values < -0.1], -0.3, 0.3, color=_COLORS[1], linewidth=1.6)
    panel.axhline(0.0, color="#333333", linewidth=0.7)
    panel.set_xticks([0], ["Γ"])
    panel.set(xlim=(-0.7, 0.7), xlabel="wave vector", ylabel="frequency (THz; imaginary below zero)")
    return figure


@styled
def phonon_bands(
    distances: ArrayLike, bands: ArrayLike, ticks: ArrayLike, labels: Sequence[str], mesh: ArrayLike
) -> Figure:
    """Draw frequencies (THz) along a path through the Brillouin zone, and their density of states beside it.

    Args:
        distances: (q,) along the path; equal ones where it breaks off.
        bands: (q, m) THz.
        ticks: (t,) distances of points that have names.
        labels: (t,) these names.
        mesh: (k, m) THz, at wave vectors that count alike.
    """
    figure = new_figure(height=3.2, width=5.6)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3.2, 1.0))
    distances, bands, ticks = np.asarray(distances), np.asarray(bands), np.asarray(ticks)
    breaks = np.flatnonzero(np.diff(distances) < 1e-9) + 1
    for part in np.split(np.arange(len(distances)), breaks):
        left.plot(distances[part], bands[part], color=_COLORS[0], linewidth=1.0)
        unstable = np.where(bands[part] < 0.0, bands[part], np.nan)
        left.plot(distances[part], unstable, color=_COLORS[1], linewidth=1.4)
    for tick in ticks[1:-1]:
        left.axvline(tick, color="#999999", linewidth=0.6)
    left.set_xticks(ticks, labels)
    left.set(xlim=(distances[0], distances[-1]), xlabel="wave vector")
    below = "; imaginary below zero" if bands.min() < -0.1 else ""
    left.set_ylabel(f"frequency (THz{below})")
    grid, density = _density(np.ravel(mesh))
    right.fill_betweenx(grid, 0.0, density, color=_COLORS[0], alpha=0.25, linewidth=0)
    right.plot(density, grid, color=_COLORS[0], linewidth=1.0)
    right.set_xlim(left=0.0)
    right.set_xlabel("states (1/THz)")
    for panel in (left, right):
        panel.axhline(0.0, color="#333333", linewidth=0.7)
    letter_panels((left, right))
    return figure


def _density(values: np.ndarray, n_points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Density of values on a grid, with Gaussians of a hundredth of their range; its integral is 1."""
    width = max(0.01 * float(np.ptp(values)), 1e-6)
    edges = np.linspace(values.min() - 4.0 * width, values.max() + 4.0 * width, n_points + 1)
    counts, _ = np.histogram(values, edges)
    grid = 0.5 * (edges[1:] + edges[:-1])
    kernel = np.exp(-0.5 * ((grid[:, None] - grid) / width) ** 2) / (np.sqrt(2.0 * np.pi) * width)
    return grid, kernel @ counts / len(values)


@styled
def dimer_walls(distances: ArrayLike, energies: Mapping[str, ArrayLike], holes: Mapping[str, float]) -> Figure:
    """Draw the energy of each pair against distance: the bond (a) and the wall (b); holes are crosses."""
    figure = new_figure(height=2.9)
    axes = figure.subplots(1, 2)
    distances = np.asarray(distances)
    for index, (pair, values) in enumerate(energies.items()):
        for panel in axes:
            panel.plot(distances, values, label=pair, linewidth=1.1, **_look(index))
            if holes.get(pair, 0.0) > 0.0:
                top = np.interp(holes[pair], distances, np.asarray(values))
                panel.plot(holes[pair], top, "x", color="#B2182B", markersize=7, markeredgewidth=1.8, zorder=5)
    lowest = min(float(np.min(np.asarray(values)[distances > 1.0])) for values in energies.values())
    axes[0].set_ylim(min(1.15 * lowest, -0.5), max(-lowest, 2.0))
    axes[1].set_yscale("symlog", linthresh=1.0)
    axes[1].set_xlim(distances[0] - 0.03, 2.0)
    for panel in axes:
        panel.axhline(0.0, color="#333333", linewidth=0.7)
        panel.set_xlabel("distance (Å)")
    axes[0].set_ylabel("pair energy (eV)")
    axes[1].set_ylabel("pair energy (eV, log beyond ±1)")
    letter_panels(axes)
    _legend_outside(figure, axes[0])
    return figure


@styled
def softening(reference: ArrayLike, predicted: ArrayLike, slope: float, apart: ArrayLike | None = None) -> Figure:
    """Draw predicted against reference force components (eV/Å), the diagonal and the fitted slope.

    Components of structures that stand apart have a colour of their own; those beyond the frame are marked on it.
    """
    reference, predicted = np.asarray(reference), np.asarray(predicted)
    other = np.zeros(len(reference), bool) if apart is None else np.asarray(apart, bool)
    figure = new_figure(height=3.0, width=3.4)
    panel = figure.subplots()
    largest = np.maximum(np.abs(reference), np.abs(predicted))
    # all of the bulk, and all others unless they would shrink it to a dot
    limit = 1.05 * min(float(largest.max()), _SHRINK * float(largest[~other].max(initial=1e-12)))
    beyond = largest > limit
    look: dict[str, Any] = {"linewidths": 0, "rasterized": True}
    for chosen, color, label in ((~other, _COLORS[0], None), (other, _COLORS[3], "structures apart")):
        inside = chosen & ~beyond
        if chosen.any():
            panel.scatter(reference[inside], predicted[inside], s=4, color=color, alpha=0.4, label=label, **look)
    if beyond.any():
        edges = np.clip(reference[beyond], -limit, limit), np.clip(predicted[beyond], -limit, limit)
        label = f"{int(beyond.sum())} beyond the frame"
        panel.scatter(*edges, s=14, marker="D", color=_COLORS[3], label=label, clip_on=False, zorder=4, **look)
    ends = np.array([-limit, limit])
    panel.plot(ends, ends, color="#333333", linewidth=0.8, linestyle=(0, (4, 2)), label="equal")
    panel.plot(ends, slope * ends, color=_COLORS[1], label=f"slope {slope:.3f}")
    panel.set_xlim(*ends)
    panel.set_ylim(*ends)
    panel.set(aspect="equal", xlabel="reference force (eV/Å)", ylabel="predicted force (eV/Å)")
    panel.legend()
    return figure


@styled
def vacancies(names: Sequence[str], unrelaxed: ArrayLike, relaxed: ArrayLike) -> Figure:
    """Draw formation energies (eV) as bars for each site."""
    figure = new_figure(height=2.6, width=max(2.6, 1.2 + 0.8 * len(names)))
    panel = figure.subplots()
    place = np.arange(len(names))
    panel.bar(place - 0.2, unrelaxed, 0.38, color=_COLORS[6], label="unrelaxed")
    if np.all(np.isfinite(np.asarray(relaxed))):
        panel.bar(place + 0.2, relaxed, 0.38, color=_COLORS[0], label="relaxed")
    panel.set_xticks(place, names)
    panel.set(xlabel="atom taken out", ylabel="vacancy formation energy (eV)")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


@styled
def radial_distribution(distances: ArrayLike, pairs: Sequence[str], g: ArrayLike, error: ArrayLike) -> Figure:
    """Draw g(r) of each pair with a band of one standard error."""
    figure = new_figure(height=2.7, width=5.0)
    panel = figure.subplots()
    for index, (pair, mean, band) in enumerate(zip(pairs, np.asarray(g), np.asarray(error), strict=True)):
        look: dict[str, Any] = {"color": "#000000", "linestyle": "-"} if pair == "all" else _look(index)
        panel.plot(distances, mean, label=pair, **look)
        panel.fill_between(
            np.asarray(distances), mean - band, mean + band, color=look["color"], alpha=0.25, linewidth=0
        )
    panel.axhline(1.0, color="#333333", linewidth=0.7, linestyle=(0, (4, 2)))
    panel.set(xlabel="distance (Å)", ylabel="g(r)")
    panel.set_ylim(bottom=0.0)
    _legend_outside(figure, panel)
    return figure


@styled
def mean_square_displacement(
    lags: ArrayLike,
    msd: Mapping[str, ArrayLike],
    coefficients: Mapping[str, float],
    window: tuple[float, float],
    n_dimensions: int = 3,
) -> Figure:
    """Draw the MSD (Å^2) against lag (ps) with the fitted ``2 d D t``; the window fitted is shaded."""
    figure = new_figure(height=2.8, width=4.6)
    panel = figure.subplots()
    lags = np.asarray(lags)
    for index, (symbol, values) in enumerate(msd.items()):
        values, d = np.asarray(values), coefficients.get(symbol, np.nan)
        known = np.isfinite(d)
        label = f"{symbol}: D = {1e-4 * d:.1e} cm²/s" if known else f"{symbol}: no D (refused)"
        panel.plot(lags[1:], values[1:], label=label, **_look(index))
        if known:
            inside = (lags >= window[0]) & (lags <= window[1])
            offset = float(np.mean(values[inside] - 2.0 * n_dimensions * d * lags[inside]))
            line = 2.0 * n_dimensions * d * lags[inside] + offset
            panel.plot(lags[inside], line, color="#000000", linewidth=0.8, linestyle=(0, (4, 2)))
    panel.axvspan(*window, color="#EEEEEE", zorder=0)
    panel.set(xscale="log", yscale="log", xlabel="lag (ps)", ylabel="mean square displacement (Å²)")
    panel.legend(loc="upper left")
    return figure


@styled
def vibrational_spectrum(
    lags: ArrayLike, vacf: ArrayLike, frequencies: ArrayLike, density: Mapping[str, ArrayLike]
) -> Figure:
    """Draw the velocity autocorrelation (a) and the spectrum of each element (b)."""
    figure = new_figure(height=2.6)
    left, right = figure.subplots(1, 2)
    left.plot(lags, vacf, color=_COLORS[0], linewidth=1.0)
    left.axhline(0.0, color="#333333", linewidth=0.7)
    left.set(xlabel="lag (ps)", ylabel="velocity autocorrelation")
    total = np.sum([np.asarray(values) for values in density.values()], axis=0)
    for index, (symbol, values) in enumerate(density.items()):
        right.plot(frequencies, values, label=symbol, linewidth=1.0, **_look(index))
    frequencies = np.asarray(frequencies)
    used = np.cumsum(np.maximum(total, 0.0)) < 0.999 * np.sum(np.maximum(total, 0.0))
    right.set_xlim(0.0, 1.1 * float(frequencies[used].max(initial=frequencies[1])))
    right.set(xlabel="frequency (THz)", ylabel="density of states (1/THz)")
    right.legend()
    letter_panels((left, right))
    return figure


@styled
def bond_events(times: ArrayLike, bonds: Mapping[str, ArrayLike]) -> Figure:
    """Draw the number of bonds of each pair of elements against time (ps)."""
    figure = new_figure(height=2.5, width=5.0)
    panel = figure.subplots()
    for index, (pair, counts) in enumerate(bonds.items()):
        panel.step(times, counts, where="post", label=pair, linewidth=1.2, **_look(index))
    panel.set(xlabel="time (ps)", ylabel="number of bonds")
    panel.set_ylim(bottom=0.0)
    panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    if bonds:
        _legend_outside(figure, panel)
    return figure


@styled
def crystal_order(
    times: ArrayLike | Mapping[str, ArrayLike], fraction: Mapping[str, ArrayLike], mean: Mapping[str, ArrayLike]
) -> Figure:
    """Draw the solid fraction (a) and the mean averaged q6 (b) against time (ps), a line for each name."""
    figure = new_figure(height=2.5)
    axes = figure.subplots(1, 2)
    for index, name in enumerate(fraction):
        t = times[name] if isinstance(times, Mapping) else times
        axes[0].plot(t, fraction[name], label=name or None, linewidth=1.1, **_look(index))
        axes[1].plot(t, mean[name], linewidth=1.1, **_look(index))
    axes[0].set(ylabel="solid fraction of atoms", ylim=(0.0, 1.0))
    axes[1].set_ylabel("mean averaged q6")
    for panel in axes:
        panel.set_xlabel("time (ps)")
    letter_panels(axes)
    if any(fraction):
        _legend_outside(figure, axes[0])
    return figure


@styled
def force_slopes(slopes: Mapping[str, tuple[float, float, float]], errors: Mapping[str, float]) -> Figure:
    """Draw the slope of forces of each model with its interval (a), and its force error in meV/Å (b), as rows."""
    names = list(slopes)
    figure = new_figure(height=0.9 + 0.24 * len(names))
    left, right = figure.subplots(1, 2, sharey=True)
    place = np.arange(len(names))[::-1]
    values = np.array([slopes[name] for name in names])
    spread = np.abs(values[:, 1:] - values[:, :1]).T
    left.errorbar(values[:, 0], place, xerr=spread, fmt="o", color=_COLORS[0], capsize=2, linewidth=1.0)
    left.axvline(1.0, color="#333333", linewidth=0.8, linestyle=(0, (4, 2)))
    left.set_yticks(place, names)
    left.set_xlabel("slope of predicted on reference forces")
    right.barh(place, [errors[name] for name in names], 0.6, color=_COLORS[0])
    right.set_xlabel("force MAE (meV/Å)")
    letter_panels((left, right))
    return figure
