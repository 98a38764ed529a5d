"""Velocity autocorrelation and vibrational density of states of a trajectory."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from mlipjax.elements import symbols
from mlipjax.md.observables import default_timestep
from mlipjax.probes.enough import require_frames
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory, unwrapped, without_drift
from mlipjax.report import probe_figures

_STEPS_A_PERIOD = 15.0
"""Of the fastest vibration in ``default_timestep``."""

_PERIODS = 4.0
"""Periods of the mean frequency that the longest lag must hold for peaks to be told apart."""

_EARLY, _UNRELATED = 3, 0.15
"""Velocities whose correlation after each of the first spacings is smaller than this are unrelated."""


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
        mean_THz: root mean square frequency of the motion.
        expected_THz: frequency up to which atoms as light as these vibrate.
        from_positions: whether velocities are differences of positions.
    """

    lags_ps: np.ndarray
    vacf: np.ndarray
    frequencies_THz: np.ndarray
    symbols: tuple[str, ...]
    density: np.ndarray
    resolution_THz: float
    highest_THz: float
    mean_THz: float
    expected_THz: float
    from_positions: bool

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
        if not folded and self.expected_THz > self.highest_THz:
            folded = (
                f"; WARNING: atoms as light as these vibrate at up to {self.expected_THz:.0f} THz, and frames every "
                f"{500.0 / self.highest_THz:.3g} fs fold all above {self.highest_THz:.3g} THz below it"
            )
        source = "; from positions, there are no velocities" if self.from_positions else ""
        return (
            f"highest peak at {self.peak_THz:.2f} THz, density at zero frequency {total[0]:.3g} per THz, resolution "
            f"{self.resolution_THz:.2g} THz{source}{folded}"
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
        ValueError: for fewer than 16 frames, a lag that is not inside the trajectory, atoms that do not move, frames
            that have nothing to do with each other, or a trajectory too short to resolve the motion.
    """
    require_frames(trajectory, 16, "a spectrum")
    velocities = _velocities(trajectory)
    spacing = trajectory.spacing
    n_frames = len(velocities)
    n_lags = n_frames // 2 if longest_lag_ps is None else round(longest_lag_ps / spacing)
    if not 8 <= n_lags < n_frames:
        raise ValueError(f"lags up to {n_lags * spacing:g} ps do not fit a trajectory of {n_frames * spacing:g} ps.")
    masses = trajectory.masses
    transform = np.fft.rfft(velocities, 2 * n_frames, axis=0)
    by_atom = np.fft.irfft(np.abs(transform) ** 2, 2 * n_frames, axis=0)[:n_lags].sum(axis=-1)
    by_atom = by_atom * masses / (n_frames - np.arange(n_lags))[:, None]
    total = by_atom[0].sum()
    if not total > 0.0:
        raise ValueError("the atoms do not move: there is no spectrum of their velocities.")
    kinds = np.unique(trajectory.atomic_numbers)
    rows = np.array([by_atom[:, trajectory.atomic_numbers == z].sum(axis=1) / total for z in kinds])
    window = 0.5 * (1.0 + np.cos(np.pi * np.arange(n_lags) / n_lags))
    # real and even in time: the spectrum is a cosine transform, with the zero lag counted once
    frequencies = np.fft.rfftfreq(2 * n_lags, spacing)
    even = np.concatenate([rows * window, np.zeros((len(kinds), 1)), (rows * window)[:, :0:-1]], axis=1)
    density = 2.0 * spacing * np.fft.rfft(even, axis=1).real
    mean = _mean_frequency(frequencies, density.sum(axis=0))
    _check_resolved(rows.sum(axis=0), spacing, mean)
    return VibrationalSpectrum(
        lags_ps=spacing * np.arange(n_lags),
        vacf=rows.sum(axis=0),
        frequencies_THz=frequencies,
        symbols=tuple(symbols(kinds)),
        density=density,
        resolution_THz=float(1.0 / (n_lags * spacing)),
        highest_THz=float(0.5 / spacing),
        mean_THz=mean,
        expected_THz=1000.0 / (_STEPS_A_PERIOD * default_timestep(trajectory.atomic_numbers)),
        from_positions=trajectory.velocities is None,
    )


def _mean_frequency(frequencies: np.ndarray, density: np.ndarray) -> float:
    weights = np.maximum(density, 0.0)
    return float(np.sqrt(np.sum(weights * frequencies**2) / weights.sum()))


def _check_resolved(vacf: np.ndarray, spacing: float, mean: float) -> None:
    """Raise ``ValueError`` if the frames are too far apart, or too few, for a spectrum of their motion."""
    if np.abs(vacf[1 : 1 + _EARLY]).max() < _UNRELATED:
        raise ValueError(
            f"velocities of frames {1000.0 * spacing:.3g} fs apart have nothing to do with each other (correlation "
            f"{vacf[1]:+.2f}): their spectrum is noise; write frames more often, about every 4 fs."
        )
    needed = _PERIODS / mean
    if len(vacf) * spacing < needed:
        raise ValueError(
            f"lags of {len(vacf) * spacing:.3g} ps hold less than {_PERIODS:g} periods of the motion, whose mean "
            f"frequency is {mean:.3g} THz: run the simulation for {2.0 * needed:.2g} ps or more."
        )


def _velocities(trajectory: Trajectory) -> np.ndarray:
    if trajectory.velocities is not None:
        return without_drift(trajectory.velocities, trajectory.masses)
    path = unwrapped(trajectory)
    return (path[2:] - path[:-2]) / (2.0 * trajectory.spacing)
