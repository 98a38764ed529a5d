"""Radial distribution functions, total and by pair of elements, with errors from blocks of the trajectory."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from ase.data import chemical_symbols
from matplotlib.figure import Figure

from mlipjax.graph import neighbor_table
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory
from mlipjax.report import probe_figures


@dataclasses.dataclass(frozen=True)
class RadialDistribution(ProbeResult):
    """g(r): density of neighbours at a distance, over that of an ideal gas.

    Attributes:
        distances: (m,) Å, centres of the shells.
        pairs: ``"all"`` and every pair of elements, such as ``"Cu-O"``.
        g: (pairs, m), dimensionless.
        error: (pairs, m), standard error of the mean over blocks.
        n_frames, n_blocks: frames used and blocks they were divided into.
    """

    distances: np.ndarray
    pairs: tuple[str, ...]
    g: np.ndarray
    error: np.ndarray
    n_frames: int
    n_blocks: int

    def first_peak(self, pair: str = "all") -> float:
        """Distance of the highest peak in Å."""
        return float(self.distances[np.argmax(self.g[self.pairs.index(pair)])])

    @property
    def verdict(self) -> str:
        """Highest peak of each pair."""
        peaks = ", ".join(
            f"{pair} {self.first_peak(pair):.2f} Å (g = {self.g[i].max():.1f})" for i, pair in enumerate(self.pairs)
        )
        return f"highest peaks: {peaks}; {self.n_frames} frames, largest error of g {self.error.max():.2g}"

    def figure(self) -> Figure:
        """A curve with its error band for each pair."""
        return probe_figures.radial_distribution(self.distances, self.pairs, self.g, self.error)


def radial_distribution(
    trajectory: Trajectory, *, longest: float = 6.0, n_shells: int = 120, n_blocks: int = 5
) -> RadialDistribution:
    """Count neighbours in shells, periodic images included, so ``longest`` may exceed half the cell.

    Args:
        trajectory: equilibrated frames of a structure with a volume.
        longest: Å.
        n_shells: shells up to it.
        n_blocks: contiguous blocks for the errors.

    Raises:
        ValueError: for a structure without a volume or fewer frames than blocks.
    """
    volumes = np.abs(np.linalg.det(trajectory.cells))
    if not all(trajectory.pbc) or volumes.min() <= 0.0:
        raise ValueError("g(r) is relative to a density: it needs a structure periodic along all axes.")
    if not 2 <= n_blocks <= trajectory.n_frames:
        raise ValueError(f"{trajectory.n_frames} frames cannot be divided into {n_blocks} blocks (two or more).")
    edges = np.linspace(0.0, longest, n_shells + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    numbers = trajectory.atomic_numbers
    kinds = np.unique(numbers)
    pairs = list(itertools.combinations_with_replacement(kinds.tolist(), 2))
    per_frame = np.zeros((trajectory.n_frames, 1 + len(pairs), n_shells))
    for frame in range(trajectory.n_frames):
        first, second, distance = _distances(trajectory, frame, longest)
        for row, (a, b) in enumerate([(0, 0), *pairs]):
            counted = np.ones(len(first), bool) if a == 0 else (numbers[first] == a) & (numbers[second] == b)
            ideal = _ordered_pairs(numbers, a, b) / volumes[frame] * shells
            per_frame[frame, row] = np.histogram(distance[counted], edges)[0] / ideal
    blocks = np.array([part.mean(axis=0) for part in np.array_split(per_frame, n_blocks)])
    names = ["-".join(chemical_symbols[z] for z in pair) for pair in pairs]
    single = len(kinds) == 1  # then the only pair is all there is
    chosen = slice(0, 1) if single else slice(None)
    return RadialDistribution(
        distances=0.5 * (edges[1:] + edges[:-1]),
        pairs=("all",) if single else ("all", *names),
        g=per_frame.mean(axis=0)[chosen],
        error=(blocks.std(axis=0, ddof=1) / np.sqrt(n_blocks))[chosen],
        n_frames=trajectory.n_frames,
        n_blocks=n_blocks,
    )


def _distances(trajectory: Trajectory, frame: int, longest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends and length of every directed pair within ``longest``."""
    system = trajectory.system(frame)
    table = neighbor_table(system, longest)
    first, slot = np.nonzero(table.mask)
    second = table.neighbors[first, slot]
    vectors = system.positions[second] - system.positions[first] + table.shifts[first, slot] @ system.cell
    return first, second, np.linalg.norm(vectors, axis=1)


def _ordered_pairs(numbers: np.ndarray, a: int, b: int) -> float:
    """How many (first, second) there are for the ideal gas; 0 for any element. An atom's images count as others."""
    n_a, n_b = (len(numbers) if z == 0 else int(np.sum(numbers == z)) for z in (a, b))
    return float(n_a * n_b)
