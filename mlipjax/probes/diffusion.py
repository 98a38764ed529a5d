"""Mean square displacement and self-diffusion, with block errors, and a refusal where there is no diffusion to fit."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from mlipjax.elements import symbols
from mlipjax.probes.enough import require_frames
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory, unwrapped
from mlipjax.report import probe_figures

CM2_PER_S = 1e-4
"""cm^2/s in one Å^2/ps."""

# a fitted coefficient is believed if
_EXPONENT = 0.2  # the MSD's slope in log-log is within this of 1,
_R_SQUARED = 0.95  # the linear fit is as good,
_RELATIVE_ERROR = 0.5  # blocks scatter no more, and
_DISPLACEMENT = 1.0  # Å, the root of the MSD at the window's end is no less: that is rattling in a cage


@dataclasses.dataclass(frozen=True)
class Diffusion(ProbeResult):
    """Mean square displacement and, where it grows linearly, the diffusion coefficient.

    Attributes:
        symbols: elements.
        lags_ps: (m,) ps.
        msd: (elements, m) Å^2.
        coefficients: (elements,) Å^2/ps = 1e-4 cm^2/s; NaN where refused.
        errors: (elements,) standard error over blocks; NaN where refused.
        exponents: (elements,) slope of log MSD against log lag in the window: 1 diffusive, 2 ballistic, 0 bound.
        refusals: (elements,) why no coefficient is given; empty where one is.
        window_ps: lags that were fitted.
        n_blocks: blocks.
        n_dimensions: of the motion: along the periodic directions, 3 where all or none are periodic.
    """

    symbols: tuple[str, ...]
    lags_ps: np.ndarray
    msd: np.ndarray
    coefficients: np.ndarray
    errors: np.ndarray
    exponents: np.ndarray
    refusals: tuple[str, ...]
    window_ps: tuple[float, float]
    n_blocks: int
    n_dimensions: int = 3

    @property
    def verdict(self) -> str:
        """Coefficient of each element, or why there is none."""
        parts = [
            f"D({symbol}) refused: {why}"
            if why
            else f"D({symbol}) = ({d * CM2_PER_S:.2e} ± {e * CM2_PER_S:.0e}) cm^2/s"
            for symbol, d, e, why in zip(self.symbols, self.coefficients, self.errors, self.refusals, strict=True)
        ]
        within = {1: " along the periodic direction", 2: " in the periodic plane"}.get(self.n_dimensions, "")
        return "; ".join(parts) + within

    def figure(self) -> Figure:
        """MSD against lag, double logarithmic, with the lines that were fitted."""
        fits = {s: float(d) for s, d in zip(self.symbols, self.coefficients, strict=True)}
        return probe_figures.mean_square_displacement(
            self.lags_ps, dict(zip(self.symbols, self.msd, strict=True)), fits, self.window_ps, self.n_dimensions
        )


def diffusion(
    trajectory: Trajectory,
    *,
    window: tuple[float, float] = (0.25, 0.75),
    n_blocks: int = 4,
) -> Diffusion:
    """Einstein's relation ``MSD = 2 d D t`` in d dimensions fitted over a window of lags, all time origins averaged.

    The trajectory is divided into contiguous blocks; each gives one independent coefficient, and their spread the
    error. Lags therefore go up to a block's length, of which ``window`` is the part fitted.

    Args:
        trajectory: equilibrated frames.
        window: fitted lags, as parts of a block.
        n_blocks: blocks, at least 3.

    Raises:
        ValueError: for too few frames, a bad window, or frames so far apart that paths are ambiguous.
    """
    if n_blocks < 3:
        raise ValueError(f"found {n_blocks=}; expected 3 or more, whose spread is the error.")
    require_frames(trajectory, 8 * n_blocks, "a diffusion coefficient with an error")
    length = trajectory.n_frames // n_blocks
    if not 0.0 <= window[0] < window[1] <= 1.0:
        raise ValueError(f"found {window=}; expected two parts of a block, ascending.")
    positions, n_dimensions = _within_periods(unwrapped(trajectory), trajectory)
    kinds = np.unique(trajectory.atomic_numbers)
    blocks = positions[: n_blocks * length].reshape(n_blocks, length, *positions.shape[1:])
    by_atom = np.stack([mean_square_displacement(block) for block in blocks])  # (blocks, lags, n)
    lags = trajectory.spacing * np.arange(length)
    fitted = slice(max(1, int(window[0] * length)), max(int(window[1] * length), int(window[0] * length) + 3))
    rows = [_fit(by_atom[:, :, trajectory.atomic_numbers == z].mean(axis=2), lags, fitted, n_dimensions) for z in kinds]
    coefficients, errors, exponents, refusals = zip(*rows, strict=True)
    return Diffusion(
        symbols=tuple(symbols(kinds)),
        lags_ps=lags,
        msd=np.array([by_atom[:, :, trajectory.atomic_numbers == z].mean(axis=(0, 2)) for z in kinds]),
        coefficients=np.array(coefficients),
        errors=np.array(errors),
        exponents=np.array(exponents),
        refusals=tuple(refusals),
        window_ps=(float(lags[fitted][0]), float(lags[fitted][-1])),
        n_blocks=n_blocks,
        n_dimensions=n_dimensions,
    )


def mean_square_displacement(positions: np.ndarray) -> np.ndarray:
    """MSD (f, n) in Å^2 of each atom at every lag, averaged over all time origins, from unwrapped (f, n, 3).

    ``<|r(t+s) - r(t)|^2>`` as sums of squares minus twice the autocorrelation, by fast Fourier transform
    (Calandrini et al., Collection SFN 12, 201 (2011)).
    """
    n_frames = len(positions)
    centred = positions - positions.mean(axis=0)
    transform = np.fft.rfft(centred, 2 * n_frames, axis=0)
    correlation = np.fft.irfft(np.abs(transform) ** 2, 2 * n_frames, axis=0)[:n_frames].sum(axis=-1)
    squares = np.sum(centred**2, axis=-1)
    cumulative = np.concatenate([np.zeros_like(squares[:1]), np.cumsum(squares, axis=0)])
    lag = np.arange(n_frames)
    total = (cumulative[n_frames] - cumulative[lag]) + cumulative[n_frames - lag]
    return np.maximum((total - 2.0 * correlation) / (n_frames - lag)[:, None], 0.0)


def _within_periods(positions: np.ndarray, trajectory: Trajectory) -> tuple[np.ndarray, int]:
    """Positions within the periodic line, plane or space, and its dimension: atoms of a slab do not diffuse out of it.

    Without any periodicity all three directions count.
    """
    periodic = np.array(trajectory.pbc)
    n = int(periodic.sum())
    if n in (0, 3):
        return positions, 3
    vectors = trajectory.cells.mean(axis=0)[periodic]
    axes = np.linalg.svd(vectors, full_matrices=False)[2]
    return positions @ axes.T, n


def _fit(msd: np.ndarray, lags: np.ndarray, fitted: slice, n_dimensions: int) -> tuple[float, float, float, str]:
    """Coefficient, error, exponent and refusal from the MSD of each block (blocks, lags)."""
    x, mean = lags[fitted], msd.mean(axis=0)[fitted]
    if mean.min() <= 0.0:
        return np.nan, np.nan, np.nan, "the atoms do not move"
    exponent = float(np.polyfit(np.log(x), np.log(mean), 1)[0])
    slopes = np.polyfit(x, msd[:, fitted].T, 1)[0] / (2.0 * n_dimensions)
    value, error = float(slopes.mean()), float(slopes.std(ddof=1) / np.sqrt(len(slopes)))
    line = np.polyval(np.polyfit(x, mean, 1), x)
    r_squared = 1.0 - np.sum((mean - line) ** 2) / max(float(np.sum((mean - mean.mean()) ** 2)), 1e-300)
    reach = float(np.sqrt(mean[-1]))
    why = ""
    if reach < _DISPLACEMENT:
        why = f"atoms move {reach:.2f} Å only (limit {_DISPLACEMENT} Å)"
    elif abs(exponent - 1.0) > _EXPONENT:
        why = f"the MSD grows as t^{exponent:.2f}, not as t (limit 1 ± {_EXPONENT})"
    elif r_squared < _R_SQUARED:
        why = f"the fit is poor, R^2 = {r_squared:.2f} (limit {_R_SQUARED})"
    elif not (value > 0.0 and error <= _RELATIVE_ERROR * value):
        why = f"blocks disagree, {value * CM2_PER_S:.1e} ± {error * CM2_PER_S:.1e} cm^2/s; simulate longer"
    return (np.nan, np.nan, exponent, why) if why else (value, error, exponent, why)
