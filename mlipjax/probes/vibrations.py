"""Velocity autocorrelation and vibrational density of states of a trajectory."""

from __future__ import annotations

import dataclasses

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory, unwrapped
from mlipjax.report import probe_figures


@dataclasses.dataclass(frozen=True)
class VibrationalSpectrum(ProbeResult):
    """Mass-weighted velocity autocorrelation and its spectrum.

    Attributes:
        lags_ps: (m,) ps.
        vacf: (m,) of all atoms, 1 at zero lag.
        frequencies_THz: (k,).
        symbols: elements.
        density: (elements, k) per THz; all together integrate to 1, each to its share of the kinetic energy.
        resolution_THz: width of the window.
        highest_THz: Nyquist frequency of the frames: what lies above is folded back.
    """

    lags_ps: np.ndarray
    vacf: np.ndarray
    frequencies_THz: np.ndarray
    symbols: tuple[str, ...]
    density: np.ndarray
    resolution_THz: float
    highest_THz: float

    @property
    def peak_THz(self) -> float:
        """Frequency of the highest peak."""
        return float(self.frequencies_THz[np.argmax(self.density.sum(axis=0))])

    @property
    def verdict(self) -> str:
        """Highest peak, weight at zero frequency (diffusion), and whether frames were frequent enough."""
        total = self.density.sum(axis=0)
        step = self.frequencies_THz[1]
        edge = float(total[self.frequencies_THz > 0.9 * self.highest_THz].sum() * step)
        folded = (
            f"; WARNING: {100 * edge:.0f} % lies next to the highest frequency the frames resolve"
            if edge > 0.02
            else ""
        )
        return (
            f"highest peak at {self.peak_THz:.2f} THz, density at zero frequency {total[0]:.3g} per THz, resolution "
            f"{self.resolution_THz:.2g} THz{folded}"
        )

    def figure(self) -> Figure:
        """Correlation and spectrum."""
        return probe_figures.vibrational_spectrum(
            self.lags_ps, self.vacf, self.frequencies_THz, dict(zip(self.symbols, self.density, strict=True))
        )


def vibrational_spectrum(trajectory: Trajectory, *, longest_lag_ps: float | None = None) -> VibrationalSpectrum:
    """Correlate velocities over all time origins and transform, with a Hann window against truncation ripples.

    Args:
        trajectory: frames often enough to resolve the fastest vibration (twice per period at the least), with
            velocities; without, they are central differences of unwrapped positions.
        longest_lag_ps: ps; by default half of the trajectory.

    Raises:
        ValueError: for fewer than 16 frames, or a lag that is not inside the trajectory.
    """
    if trajectory.n_frames < 16:
        raise ValueError(f"found {trajectory.n_frames} frames; a spectrum needs 16 or more.")
    velocities = _velocities(trajectory)
    spacing = trajectory.spacing_ps
    n_frames = len(velocities)
    n_lags = n_frames // 2 if longest_lag_ps is None else round(longest_lag_ps / spacing)
    if not 8 <= n_lags < n_frames:
        raise ValueError(f"lags up to {n_lags * spacing:g} ps do not fit a trajectory of {n_frames * spacing:g} ps.")
    masses = trajectory.masses
    transform = np.fft.rfft(velocities, 2 * n_frames, axis=0)
    by_atom = np.fft.irfft(np.abs(transform) ** 2, 2 * n_frames, axis=0)[:n_lags].sum(axis=-1)
    by_atom = by_atom * masses / (n_frames - np.arange(n_lags))[:, None]
    total = by_atom[0].sum()
    kinds = np.unique(trajectory.atomic_numbers)
    rows = np.array([by_atom[:, trajectory.atomic_numbers == z].sum(axis=1) / total for z in kinds])
    window = 0.5 * (1.0 + np.cos(np.pi * np.arange(n_lags) / n_lags))
    # real and even in time: the spectrum is a cosine transform, with the zero lag counted once
    frequencies = np.fft.rfftfreq(2 * n_lags, spacing)
    even = np.concatenate([rows * window, np.zeros((len(kinds), 1)), (rows * window)[:, :0:-1]], axis=1)
    density = 2.0 * spacing * np.fft.rfft(even, axis=1).real
    return VibrationalSpectrum(
        lags_ps=spacing * np.arange(n_lags),
        vacf=rows.sum(axis=0),
        frequencies_THz=frequencies,
        symbols=tuple(chemical_symbols[z] for z in kinds),
        density=density,
        resolution_THz=float(1.0 / (n_lags * spacing)),
        highest_THz=float(0.5 / spacing),
    )


def _velocities(trajectory: Trajectory) -> np.ndarray:
    if trajectory.velocities is not None:
        return trajectory.velocities
    path = unwrapped(trajectory)
    return (path[2:] - path[:-2]) / (2.0 * trajectory.spacing_ps)
