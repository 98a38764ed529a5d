"""The short-range wall: two atoms brought together until they must repel."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from matplotlib.figure import Figure

from mlipjax.probes.evaluator import Evaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.system import System

_TOLERANCE = 1e-3
"""eV by which an energy may fall towards shorter distances and still count as a wall."""


@dataclasses.dataclass(frozen=True)
class DimerWalls(ProbeResult):
    """Energy of isolated pairs of atoms against their distance.

    Attributes:
        pairs: names such as ``"Cu-O"``.
        distances: (m,) Å, ascending.
        energies: (pairs, m) eV, relative to the largest distance.
        holes: (pairs,) Å, the largest distance inside the minimum below which the energy falls again; 0 for none.
        walls: (pairs,) eV at the shortest distance.
        depths: (pairs,) eV of the minimum, negative where the pair is bound.
        minima: (pairs,) Å, where the minimum is (of those outside the hole).
    """

    pairs: tuple[str, ...]
    distances: np.ndarray
    energies: np.ndarray
    holes: np.ndarray
    walls: np.ndarray
    depths: np.ndarray
    minima: np.ndarray

    @property
    def verdict(self) -> str:
        """Pairs that have no wall, and the distance below which."""
        bad = [f"{pair} below {hole:.2f} Å" for pair, hole in zip(self.pairs, self.holes, strict=True) if hole > 0]
        tried = f"down to {self.distances[0]:.2f} Å"
        if bad:
            return f"HOLES in the short-range wall: {', '.join(bad)} (tried {tried}); hot or reactive runs can fall in"
        return f"all {len(self.pairs)} pairs repel {tried}; lowest wall {self.walls.min():.1f} eV"

    def figure(self) -> Figure:
        """One curve for each pair."""
        return probe_figures.dimer_walls(
            self.distances,
            dict(zip(self.pairs, self.energies, strict=True)),
            dict(zip(self.pairs, self.holes, strict=True)),
        )


def dimer_walls(
    evaluate: Evaluator,
    elements: Sequence[int],
    *,
    shortest: float = 0.5,
    longest: float = 5.5,
    n_points: int = 101,
) -> DimerWalls:
    """Evaluate every pair of elements at all distances, in one batch.

    Universal potentials rarely see atoms closer than in hot liquids; where the energy falls inwards, an atom that
    gets there never comes back. The distance is searched from the sum of the covalent radii inwards: the outer
    region, where a universal model was trained on few isolated pairs, is drawn and not judged.

    Args:
        evaluate: the potential.
        elements: atomic numbers; all their pairs are tried.
        shortest: distance in Å.
        longest: likewise.
        n_points: distances.

    Raises:
        ValueError: for no element or distances out of order.
    """
    kinds = sorted({int(z) for z in elements})
    if not kinds or not 0.0 < shortest < longest or n_points < 5:
        raise ValueError(
            f"found {kinds=}, {shortest=}, {longest=}, {n_points=}; expected elements and 0 < shortest < longest."
        )
    pairs = list(itertools.combinations_with_replacement(kinds, 2))
    distances = np.linspace(shortest, longest, n_points)
    systems = [_pair(first, second, r) for first, second in pairs for r in distances]
    results = evaluate(systems)
    energies = np.array([result.energy for result in results]).reshape(len(pairs), -1)
    energies = energies - energies[:, -1:]
    rows = [
        _judge(distances, row, sum(covalent_radii[z] for z in pair)) for pair, row in zip(pairs, energies, strict=True)
    ]
    holes, depths, minima = (np.array(column) for column in zip(*rows, strict=True))
    return DimerWalls(
        pairs=tuple("-".join(chemical_symbols[z] for z in pair) for pair in pairs),
        distances=distances,
        energies=energies,
        holes=holes,
        walls=energies[:, 0],
        depths=depths,
        minima=minima,
    )


def _pair(first: int, second: int, distance: float) -> System:
    return System(
        np.array([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]),
        np.array([first, second], np.int32),
        np.zeros((3, 3)),
        (False, False, False),
    )


def _judge(distances: np.ndarray, energies: np.ndarray, bond: float) -> tuple[float, float, float]:
    """Outer end of the hole (0 for none), and depth and place of the minimum outside it."""
    inside = np.flatnonzero(distances <= bond)
    hole = 0
    if len(inside) > 1:
        # steps inwards that lower the energy, from the highest point of the wall inwards: a bond shorter than the
        # covalent radii is no hole as long as the energy rises again further in
        top = int(np.argmax(energies[: inside[-1] + 1]))
        if top > 0 and energies[top] - energies[:top].min() > _TOLERANCE:
            hole = top
    outside = slice(hole, None)
    lowest = hole + int(np.argmin(energies[outside]))
    return (float(distances[hole]) if hole else 0.0), float(energies[lowest]), float(distances[lowest])
