"""Radial distribution functions, total and by pair of elements, with errors from blocks of the trajectory."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from matplotlib.figure import Figure

from mlipjax.elements import symbols
from mlipjax.graph import neighbor_table
from mlipjax.probes.enough import independent_frames, remark, require_frames
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory
from mlipjax.report import probe_figures

_FEWEST = 50
"""Counted pairs (each from either end) below which g(r) is a handful of spikes."""


@dataclasses.dataclass(frozen=True)
class RadialDistribution(ProbeResult):
    """g(r): density of neighbours at a distance, over that of an ideal gas.

    Attributes:
        distances: (m,) Å, centres of the shells.
        pairs: ``"all"`` and every pair of elements, such as ``"Cu-O"``.
        g: (pairs, m), dimensionless.
        error: (pairs, m), standard error of the mean over blocks.
        refusals: (pairs,) why a pair has no g(r), which is NaN then; empty where it has one.
        n_frames, n_blocks: frames used and blocks they were divided into.
        n_independent: independent frames that these are worth.
    """

    distances: np.ndarray
    pairs: tuple[str, ...]
    g: np.ndarray
    error: np.ndarray
    refusals: tuple[str, ...]
    n_frames: int
    n_blocks: int
    n_independent: float

    def first_peak(self, pair: str = "all") -> float:
        """Distance of the highest peak in Å; NaN for a pair that was refused."""
        g = self.g[self.pairs.index(pair)]
        return float(self.distances[np.argmax(g)]) if np.isfinite(g).all() else np.nan

    def first_minimum(self) -> float:
        """Å, end of the first shell: the lowest point from the highest peak of all pairs up to 1.7 times its place."""
        peak = self.first_peak()
        behind = (self.distances > peak) & (self.distances < 1.7 * peak)
        if not behind.any():
            raise ValueError(f"no shell of neighbours ends within {self.distances[-1]:.1f} Å.")
        # of a gap without any pair, its middle
        lowest = self.distances[behind][self.g[0, behind] <= self.g[0, behind].min() + 1e-12]
        return float(lowest.mean())

    @property
    def verdict(self) -> str:
        """Highest peak of each pair, or why it has none."""
        parts = [
            f"g({pair}) refused: {why}" if why else f"{pair} {self.first_peak(pair):.2f} Å (g = {g.max():.1f})"
            for pair, g, why in zip(self.pairs, self.g, self.refusals, strict=True)
        ]
        known = self.error[[not why for why in self.refusals]]
        largest = f", largest error of g {known.max():.2g}" if len(known) else ""
        return f"highest peaks: {', '.join(parts)}; {self.n_frames} frames{largest}" + remark(
            self.n_independent, self.n_frames
        )

    def figure(self) -> Figure:
        """A curve with its error band for each pair that has one."""
        kept = [row for row, why in enumerate(self.refusals) if not why]
        pairs = [self.pairs[row] for row in kept]
        return probe_figures.radial_distribution(self.distances, pairs, self.g[kept], self.error[kept])


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
        ValueError: for a structure without a volume, fewer than two frames a block, or hardly a pair counted.
    """
    volumes = np.abs(np.linalg.det(trajectory.cells))
    if not all(trajectory.pbc) or volumes.min() <= 0.0:
        raise ValueError("g(r) is relative to a density: it needs a structure periodic along all axes.")
    if n_blocks < 2 or n_shells < 2 or not 0.0 < longest < np.inf:
        raise ValueError(f"found {n_blocks=}, {n_shells=}, {longest=}; expected 2 or more of both, and a distance.")
    require_frames(trajectory, 2 * n_blocks, "a g(r) with errors")
    edges = np.linspace(0.0, longest, n_shells + 1)
    shells = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    numbers = trajectory.atomic_numbers
    kinds = np.unique(numbers)
    pairs = list(itertools.combinations_with_replacement(kinds.tolist(), 2))
    per_frame = np.zeros((trajectory.n_frames, 1 + len(pairs), n_shells))
    found = np.zeros(1 + len(pairs), int)
    for frame in range(trajectory.n_frames):
        first, second, distance = _distances(trajectory, frame, longest)
        for row, (a, b) in enumerate([(0, 0), *pairs]):
            counted = np.ones(len(first), bool) if a == 0 else (numbers[first] == a) & (numbers[second] == b)
            ideal = _ordered_pairs(numbers, a, b) / volumes[frame] * shells
            counts = np.histogram(distance[counted], edges)[0]
            per_frame[frame, row] = counts / ideal
            found[row] += counts.sum()
    refusals = [_refusal(numbers, pair, n, longest) for pair, n in zip([(0, 0), *pairs], found, strict=True)]
    if refusals[0]:
        raise ValueError(f"there is no g(r) to speak of: {refusals[0]}; choose a longer distance.")
    refused = np.array([bool(why) for why in refusals])
    blocks = np.array([part.mean(axis=0) for part in np.array_split(per_frame, n_blocks)])
    names = ["-".join(symbols(pair)) for pair in pairs]
    single = len(kinds) == 1  # then the only pair is all there is
    chosen = slice(0, 1) if single else slice(None)
    g, error = per_frame.mean(axis=0), blocks.std(axis=0, ddof=1) / np.sqrt(n_blocks)
    g[refused] = error[refused] = np.nan
    return RadialDistribution(
        distances=0.5 * (edges[1:] + edges[:-1]),
        pairs=("all",) if single else ("all", *names),
        g=g[chosen],
        error=error[chosen],
        refusals=tuple(refusals[chosen]),
        n_frames=trajectory.n_frames,
        n_blocks=n_blocks,
        # counts scatter as their roots: so weighed, the few pairs of the innermost shells do not drown all others
        n_independent=independent_frames(per_frame[:, 0] * np.sqrt(shells)),
    )


def _refusal(numbers: np.ndarray, pair: tuple[int, int], found: int, longest: float) -> str:
    """Reason why there is no g(r) of a pair of elements; empty if there is one."""
    a, b = pair
    if a == b != 0 and len(np.unique(numbers)) > 1 and np.sum(numbers == a) < 2:
        return "one such atom, which meets its own images only"
    if found < _FEWEST:
        return f"{found} such pairs within {longest:g} Å in all frames (limit {_FEWEST})"
    return ""


def _distances(trajectory: Trajectory, frame: int, longest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both ends and length of every directed pair within ``longest``."""
    system = trajectory.system(frame)
    table = neighbor_table(system, longest)
    first, slot = np.nonzero(table.mask)
    second = table.neighbors[first, slot]
    vectors = system.positions[second] - system.positions[first] + table.shifts[first, slot] @ system.cell
    return first, second, np.linalg.norm(vectors, axis=1)


def _ordered_pairs(numbers: np.ndarray, a: int, b: int) -> float:
    """Number of pairs (first, second) in the ideal gas; 0 for any element. An atom's images count as others."""
    n_a, n_b = (len(numbers) if z == 0 else int(np.sum(numbers == z)) for z in (a, b))
    return float(n_a * n_b)
