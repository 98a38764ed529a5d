"""Figures of migration and sliding probes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator
from scipy.signal import resample

from mlipjax.report.style import arm_styles, new_figure, shared_legend, styled

_RELAXED, _GIVEN, _LINE = "#0072B2", "#5A5A5A", "#333333"

_REFINED = 8
"""Points drawn between two neighbouring shifts of a gamma surface, along each vector."""


@styled
def energy_path(
    distance_A: ArrayLike, energies_eV: ArrayLike, slopes_eV_per_A: ArrayLike, given_eV: ArrayLike | None = None
) -> Figure:
    """Draw energies of the images of a band, the cubic curve through energies and slopes, and the path as given.

    Args:
        distance_A: (P,) arc length of the relaxed images.
        energies_eV: (P,) relative to the first image.
        slopes_eV_per_A: (P,) derivative along the path.
        given_eV: (P,) energies of the images before relaxation, drawn at equal parts of the way.
    """
    x, y = np.asarray(distance_A, np.float64), np.asarray(energies_eV, np.float64)
    figure = new_figure(2.9, 4.6)
    axes = figure.add_subplot()
    if np.all(np.diff(x) > 0):
        fine = np.linspace(x[0], x[-1], 300)
        axes.plot(fine, CubicHermiteSpline(x, y, np.asarray(slopes_eV_per_A))(fine), color=_RELAXED)
    axes.plot(x, y, "o", color=_RELAXED, label="relaxed band")
    top = int(np.argmax(y))
    # above the curve: below it lies the path as given
    axes.annotate(
        f"{y[top]:.3f} eV", (x[top], y[top]), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=7.5
    )
    if given_eV is not None:
        axes.plot(
            np.linspace(x[0], x[-1], len(np.asarray(given_eV))), given_eV, "--s", color=_GIVEN, label="path as given"
        )
    axes.margins(y=0.15)
    axes.set(xlabel="distance along the path (Å)", ylabel="energy (eV)")
    axes.legend()
    return figure


@styled
def sliding_profile(shift_A: ArrayLike, rigid_meV_per_A2: ArrayLike, relaxed_meV_per_A2: ArrayLike) -> Figure:
    """Draw energies of sliding against the shift.

    Between the given shifts the curves are monotone cubics: no point of them is higher than what was computed.

    Args:
        shift_A: (n,) ascending.
        rigid_meV_per_A2: (n,) relative to no shift.
        relaxed_meV_per_A2: (n,) likewise; not drawn where it is NaN throughout.
    """
    x = np.asarray(shift_A, np.float64)
    figure = new_figure(2.9, 4.6)
    axes = figure.add_subplot()
    axes.axhline(0.0, color=_LINE, linewidth=0.5)
    fine = np.linspace(x[0], x[-1], 300)
    for energies, color, style, marker, name in (
        (rigid_meV_per_A2, _GIVEN, "--", "s", "rigid layers"),
        (relaxed_meV_per_A2, _RELAXED, "-", "o", "relaxed along the normal"),
    ):
        y = np.asarray(energies, np.float64)
        if np.isnan(y).all():
            continue
        axes.plot(fine, PchipInterpolator(x, y)(fine), style, color=color)
        axes.plot(x, y, marker, color=color, markersize=4, label=name)
    axes.set(xlabel="shift (Å)", ylabel="sliding energy (meV/Å²)")
    shared_legend(figure, [axes])
    return figure


@styled
def path_profiles(profiles: Mapping[str, tuple[ArrayLike, ArrayLike]], *, x_label: str, y_label: str) -> Figure:
    """Draw several energy profiles over one axis.

    Args:
        profiles: name -> (x, y).
        x_label, y_label: with units.
    """
    figure = new_figure(3.2, 5.2)
    axes = figure.add_subplot()
    looks = arm_styles(profiles)
    for name, (x, y) in profiles.items():
        axes.plot(x, y, color=looks[name].color, marker=looks[name].marker, label=looks[name].label)
    axes.axhline(0.0, color=_LINE, linewidth=0.5)
    axes.set(xlabel=x_label, ylabel=y_label)
    shared_legend(figure, [axes])
    return figure


@styled
def gamma_surface(fractions: ArrayLike, energies_meV_per_A2: ArrayLike, vectors_A: ArrayLike, kind: str) -> Figure:
    """Draw the energy of sliding over the two lattice vectors of a layer.

    Between the given shifts it is the Fourier series through them: the energy is periodic, and straight lines along the
    lattice vectors would break the symmetry of the layer in the drawing. Dots are the given shifts.

    Args:
        fractions: (n,) shifts along each vector, in [0, 1), evenly spaced.
        energies_meV_per_A2: (n, n), first index along the first vector.
        vectors_A: (2, 2) the two lattice vectors in the plane.
        kind: "rigid" or "relaxed", for the label.
    """
    steps = np.asarray(fractions, np.float64)
    values = np.asarray(energies_meV_per_A2, np.float64)
    vectors = np.asarray(vectors_A, np.float64)
    x, y, tiled = _over_two_cells(fourier_refined(values, _REFINED), vectors)
    both = np.concatenate([steps, steps + 1.0])
    grid = both[:, None, None] * vectors[0] + both[None, :, None] * vectors[1]
    figure = new_figure(3.2, 4.8)
    axes = figure.add_subplot()
    drawn = axes.contourf(x, y, tiled, levels=np.linspace(tiled.min(), tiled.max(), 25), cmap="viridis")
    axes.plot(*grid.reshape(-1, 2).T, ".", color="white", markersize=1.5, alpha=0.7)
    corner = np.array([[0, 0], vectors[0], vectors[0] + vectors[1], vectors[1], [0, 0]])
    axes.plot(corner[:, 0], corner[:, 1], color="white", linewidth=1.0)
    axes.set_aspect("equal")
    axes.grid(False)
    axes.set(xlabel="shift x (Å)", ylabel="shift y (Å)")
    label = f"{kind} sliding energy (meV/Å²)"
    figure.colorbar(drawn, ax=axes, label=label, shrink=0.8, ticks=MaxNLocator(6))
    return figure


def fourier_refined(values: ArrayLike, factor: int) -> np.ndarray:
    """(n f, n f) samples of the Fourier series through (n, n) samples of a periodic function."""
    refined: Any = np.asarray(values, np.float64)
    for axis, n in enumerate(refined.shape):
        refined = resample(refined, n * factor, axis=axis)
    return refined


def _over_two_cells(values: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions x, y in Å and values of two cells each way, the far edges included."""
    n = len(values)
    tiled = np.pad(np.tile(values, (2, 2)), (0, 1), mode="wrap")
    first, second = np.meshgrid(*[np.arange(2 * n + 1) / n] * 2, indexing="ij")
    return first * vectors[0, 0] + second * vectors[1, 0], first * vectors[0, 1] + second * vectors[1, 1], tiled
