"""Crystalline order of every atom: averaged Steinhardt parameters, for growth from a melt."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure
from scipy.special import sph_harm_y

from mlipjax.graph import neighbor_table
from mlipjax.probes.enough import require_frames
from mlipjax.probes.rdf import radial_distribution
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory
from mlipjax.report import probe_figures
from mlipjax.system import System

SOLID = 0.35
"""Averaged q6 above which an atom is crystalline: bcc 0.51, fcc 0.57, liquids about 0.2, thermal crystals above 0.4
(Lechner, Dellago, J. Chem. Phys. 129, 114707 (2008))."""

_FRAMES = 8
"""Two in each of the four blocks that the error of a trend comes from."""

_MOST_NEIGHBORS = 20.0
"""Of an atom on average, above which a cutoff reaches beyond the first shells and the threshold means nothing."""

_REACH = 8.0
"""Å, within which the first shell of neighbours ends."""


@dataclasses.dataclass(frozen=True)
class CrystalOrder(ProbeResult):
    """Crystalline order against time.

    Attributes:
        times_ps: (f,) ps.
        mean: (f,) averaged q6, mean over atoms.
        solid_fraction: (f,) part of the atoms above ``threshold``.
        rate_per_ps: slope of ``solid_fraction`` by least squares.
        rate_error: its standard error, 1/ps: over blocks of a quarter of the run, or of the fit if that is larger.
        threshold: averaged q6 of a crystalline atom.
        cutoff: Å, within which atoms are neighbours.
        neighbors: mean number of them.
    """

    times_ps: np.ndarray
    mean: np.ndarray
    solid_fraction: np.ndarray
    rate_per_ps: float
    rate_error: float
    threshold: float
    cutoff: float
    neighbors: float

    @property
    def verdict(self) -> str:
        """Growth, melting or neither within the error."""
        word = "no significant growth or melting"
        if abs(self.rate_per_ps) > 2.0 * self.rate_error:
            word = "the crystal GROWS" if self.rate_per_ps > 0 else "the crystal MELTS"
        return (
            f"{word}: solid fraction {self.solid_fraction[0]:.2f} to {self.solid_fraction[-1]:.2f} in "
            f"{self.times_ps[-1]:.3g} ps, {self.rate_per_ps:+.3f} ± {self.rate_error:.3f} per ps; "
            f"{self.neighbors:.1f} neighbours within {self.cutoff:.2f} Å"
        ) + self._warning

    @property
    def _warning(self) -> str:
        if self.neighbors <= _MOST_NEIGHBORS:
            return ""
        return "; WARNING: q6 is of the first shells, 12 to 14 neighbours in close-packed crystals: reduce the cutoff"

    def figure(self) -> Figure:
        """Fraction and mean against time."""
        return probe_figures.crystal_order(self.times_ps, {"": self.solid_fraction}, {"": self.mean})


def crystal_order(trajectory: Trajectory, cutoff: float | None = None) -> CrystalOrder:
    """Averaged q6 of all frames and its trend.

    Args:
        trajectory: eight frames or more.
        cutoff: Å, within the first minimum of g(r) (fcc) or behind the second shell (bcc, 14 neighbours); ``None`` for
            the first minimum of g(r) of these frames.

    Raises:
        ValueError: for fewer than eight frames, or an atom without a neighbour.
    """
    require_frames(trajectory, _FRAMES, "a trend of the order with an error")
    if cutoff is None:
        cutoff = radial_distribution(trajectory, longest=_REACH, n_shells=160, n_blocks=2).first_minimum()
    systems = [trajectory.system(frame) for frame in range(trajectory.n_frames)]
    values = np.array([averaged_q6(system, cutoff) for system in systems])
    fraction, times = (values > SOLID).mean(axis=1), trajectory.times_ps
    rates = [np.polyfit(t, x, 1)[0] for t, x in zip(np.array_split(times, 4), np.array_split(fraction, 4), strict=True)]
    slope, covariance = np.polyfit(times, fraction, 1, cov=True)
    return CrystalOrder(
        times_ps=times,
        mean=values.mean(axis=1),
        solid_fraction=fraction,
        rate_per_ps=float(slope[0]),
        # blocks that change only between each other would have no error
        rate_error=max(float(np.std(rates, ddof=1) / 2.0), float(np.sqrt(covariance[0, 0]))),
        threshold=SOLID,
        cutoff=cutoff,
        neighbors=float(
            np.mean([neighbor_table(system, cutoff).mask.sum(axis=1).mean() for system in systems[::_FRAMES]])
        ),
    )


def averaged_q6(system: System, cutoff: float) -> np.ndarray:
    """Steinhardt's q6 (n,) from harmonics averaged over each atom and its neighbours within ``cutoff`` (Å).

    ``q6m(i) = <Y6m(r_ij)>_j``, ``Q6m(i)`` the mean of ``q6m`` over ``i`` and its neighbours, and
    ``Q6(i) = (4 pi / 13 sum_m |Q6m(i)|^2)^(1/2)``.
    """
    table = neighbor_table(system, cutoff)
    if not table.mask.any(axis=1).all():
        raise ValueError(f"an atom has no neighbour within {cutoff} Å; enlarge the cutoff.")
    vectors = system.positions[table.neighbors] - system.positions[:, None] + table.shifts @ system.cell
    length = np.where(table.mask, np.linalg.norm(vectors, axis=-1), 1.0)
    polar = np.arccos(np.clip(vectors[..., 2] / length, -1.0, 1.0))
    azimuth = np.arctan2(vectors[..., 1], vectors[..., 0])
    counts = table.mask.sum(axis=1, keepdims=True)
    m = np.arange(-6, 7)
    harmonics = sph_harm_y(6, m, polar[..., None], azimuth[..., None]) * table.mask[..., None]
    own = harmonics.sum(axis=1) / counts
    averaged = (own + (own[table.neighbors] * table.mask[..., None]).sum(axis=1)) / (counts + 1)
    return np.sqrt(4.0 * np.pi / 13.0 * np.sum(np.abs(averaged) ** 2, axis=1))
