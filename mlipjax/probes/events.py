"""Counting what happens in a trajectory: bonds formed and broken, and coordination that changes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
from ase.data import chemical_symbols, covalent_radii
from matplotlib.figure import Figure

from mlipjax.graph import neighbor_table
from mlipjax.lattice import minimum_image
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.trajectory import Trajectory
from mlipjax.report import probe_figures

FORMED = 1.15
BROKEN = 1.5
"""A bond forms within 1.15 and breaks beyond 1.5 sums of covalent radii: thermal motion crosses one line, not both."""

Bonds = Counter[tuple[int, int]]
"""Number of bonds of each pair of atoms, that is, with how many images of the second the first has one."""

_FAR = 1.0
"""Å from frame to frame beyond which an atom may have changed its neighbours twice."""


@dataclasses.dataclass(frozen=True)
class Event:
    """One bond that formed or broke.

    Attributes:
        frame: first frame with the new state.
        kind: ``"formed"`` or ``"broken"``.
        pair: elements, such as ``"C-H"``.
        atoms: indices.
    """

    frame: int
    kind: str
    pair: str
    atoms: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class EventCounts(ProbeResult):
    """Bond events of a trajectory.

    Attributes:
        times_ps: (f,) ps.
        bonds: by pair of elements, (f,) number of bonds.
        events: in order.
        coordination: by element, (f,) mean number of bonds of its atoms.
        largest_step_A: 99th percentile of the distance an atom is from its place in the frame before (nearest image).
    """

    times_ps: np.ndarray
    bonds: dict[str, np.ndarray]
    events: tuple[Event, ...]
    coordination: dict[str, np.ndarray]
    largest_step_A: float

    def count(self, kind: str, pair: str | None = None) -> int:
        """Number of events of a kind (of a pair)."""
        return sum(event.kind == kind and pair in (None, event.pair) for event in self.events)

    @property
    def verdict(self) -> str:
        """Events by pair, and coordination at start and end."""
        tally = Counter((event.pair, event.kind) for event in self.events)
        told = (
            ", ".join(f"{n} {pair} {kind}" for (pair, kind), n in sorted(tally.items())) or "no bond formed or broken"
        )
        changes = ", ".join(f"{s} {c[0]:.2f} to {c[-1]:.2f}" for s, c in self.coordination.items())
        spacing = self.times_ps[1] - self.times_ps[0]
        warning = ""
        if self.largest_step_A > _FAR:
            warning = (
                f"; WARNING: atoms move {self.largest_step_A:.1f} Å between frames, so bonds that form and break in "
                "between are not seen; write frames more often"
            )
        return (
            f"{told} in {self.times_ps[-1]:.3g} ps; coordination {changes}; what lasts less than a "
            f"spacing of frames, {spacing:.3g} ps, is not seen{warning}"
        )

    def figure(self) -> Figure:
        """Number of bonds of each pair against time."""
        return probe_figures.bond_events(self.times_ps, self.bonds)

    def as_dict(self):
        """As the base, events as mappings."""
        base = ProbeResult.as_dict(dataclasses.replace(self, events=()))
        return base | {"events": [dataclasses.asdict(e) for e in self.events], "verdict": self.verdict}


def bond_events(
    trajectory: Trajectory,
    *,
    elements: Sequence[int] | None = None,
    formed: float = FORMED,
    broken: float = BROKEN,
) -> EventCounts:
    """Follow bonds with hysteresis through the frames.

    Args:
        trajectory: frames in order of time; an event shorter than their spacing is not seen.
        elements: count bonds with at least one atom of these (say, those of an adsorbate); ``None`` for all. Metal
            atoms of a melt form and break "bonds" all the time: leave them out.
        formed: bonds form below it, in sums of covalent radii,
        broken: and break above it; ``formed < broken``.

    Raises:
        ValueError: for thresholds out of order or elements that are not there.
    """
    if not 0.0 < formed < broken:
        raise ValueError(f"found {formed=} and {broken=}; expected 0 < formed < broken.")
    numbers = trajectory.atomic_numbers
    chosen = np.isin(numbers, numbers if elements is None else list(elements))
    if not chosen.any():
        raise ValueError(f"no atom of the elements {list(elements or ())} in the trajectory.")
    bonded: Bonds = Counter()
    events, bonds, coordination = [], [], []
    for frame in range(trajectory.n_frames):
        near, far = _contacts(trajectory, frame, chosen, formed, broken)
        # as many as there were, but all that are short and none that is long
        now: Bonds = +Counter({pair: max(near[pair], min(bonded[pair], most)) for pair, most in far.items()})
        for kind, pairs in (("broken", bonded - now), ("formed", now - bonded)):
            if frame > 0:
                events += [Event(frame, kind, _pair(numbers, pair), pair) for pair in sorted(pairs.elements())]
        bonded = now
        tally = Counter(_pair(numbers, pair) for pair in bonded.elements())
        bonds.append(tally)
        degree = np.bincount(np.array(list(bonded.elements()), int).ravel(), minlength=len(numbers))
        coordination.append({z: float(degree[numbers == z].mean()) for z in np.unique(numbers[chosen]).tolist()})
    names = sorted(set().union(*bonds))
    return EventCounts(
        times_ps=trajectory.times_ps,
        bonds={name: np.array([tally[name] for tally in bonds]) for name in names},
        events=tuple(events),
        coordination={chemical_symbols[z]: np.array([row[z] for row in coordination]) for z in coordination[0]},
        largest_step_A=_largest_step(trajectory, chosen),
    )


def _largest_step(trajectory: Trajectory, chosen: np.ndarray) -> float:
    """99th percentile over frames and chosen atoms of the distance from the nearest image of the frame before."""
    steps = [
        minimum_image(after[chosen] - before[chosen], cell, trajectory.pbc)
        for before, after, cell in zip(
            trajectory.positions[:-1], trajectory.positions[1:], trajectory.cells[1:], strict=True
        )
    ]
    return float(np.percentile(np.linalg.norm(steps, axis=-1), 99.0))


def _contacts(
    trajectory: Trajectory, frame: int, chosen: np.ndarray, formed: float, broken: float
) -> tuple[Bonds, Bonds]:
    """Pairs within either threshold: in a small cell with several images of an atom, and with its own."""
    numbers = trajectory.atomic_numbers
    radii = covalent_radii[numbers]
    system = trajectory.system(frame)
    table = neighbor_table(system, 2.0 * broken * float(radii.max()) + 1e-6)
    first, slot = np.nonzero(table.mask)
    second = table.neighbors[first, slot]
    shifts = table.shifts[first, slot]
    # every pair is there from both ends: that of an atom with its own image, by opposite shifts
    ahead = np.array([tuple(shift) > (0, 0, 0) for shift in shifts.tolist()], bool)
    use = ((first < second) | ((first == second) & ahead)) & (chosen[first] | chosen[second])
    first, second, shifts = first[use], second[use], shifts[use]
    vectors = system.positions[second] - system.positions[first] + shifts @ system.cell
    ratio = np.linalg.norm(vectors, axis=1) / (radii[first] + radii[second])
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))

    def within(limit: float) -> Bonds:
        return Counter(pair for pair, value in zip(pairs, ratio, strict=True) if value <= limit)

    return within(formed), within(broken)


def _pair(numbers: np.ndarray, pair: tuple[int, int]) -> str:
    return "-".join(sorted(chemical_symbols[numbers[atom]] for atom in pair))
