"""Frames of one simulation as arrays, for the observables of molecular dynamics."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlipjax.data import read_atoms
from mlipjax.graph import coincidences
from mlipjax.lattice import completed, minimum_image, share_of_period
from mlipjax.md.observables import masses_of
from mlipjax.system import System
from mlipjax.units import FEMTOSECOND

if TYPE_CHECKING:
    from ase import Atoms

_LISTED = 8
"""Runs that are named in a message."""

_STILL = 1e-5
"""Å, or Å/ps: an atom that never moves further, or faster, is held."""

_LARGEST_STEP = 0.4
"""Of a period of the lattice: an atom that moves half of one may have come either way."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Frames of one replica, equally spaced in time where that is known.

    Attributes:
        positions: (f, n, 3) Å, wrapped into the cell or not.
        atomic_numbers: (n,).
        cells: (f, 3, 3) Å.
        pbc: periodicity.
        spacing_ps: ps between frames, or ``None`` where they do not say.
        velocities: (f, n, 3) Å/ps, or ``None``.
        own_masses: (n,) amu where they are not the standard atomic weights, otherwise ``None``.
    """

    positions: np.ndarray
    atomic_numbers: np.ndarray
    cells: np.ndarray
    pbc: tuple[bool, bool, bool]
    spacing_ps: float | None
    velocities: np.ndarray | None = None
    own_masses: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_frames, n_atoms = self.positions.shape[:2]
        if self.cells.shape != (n_frames, 3, 3) or self.atomic_numbers.shape != (n_atoms,):
            raise ValueError(
                f"found positions {self.positions.shape}, cells {self.cells.shape} and atomic numbers "
                f"{self.atomic_numbers.shape}; expected (f, n, 3), (f, 3, 3) and (n,)."
            )
        if n_frames < 2 or not (self.spacing_ps is None or self.spacing_ps > 0.0):
            raise ValueError(f"found {n_frames} frames, {self.spacing_ps} ps apart; expected two or more, in order.")

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def spacing(self) -> float:
        """Time between frames in ps; ``ValueError`` where it is not known."""
        if self.spacing_ps is None:
            raise ValueError("frames do not say their times (time_fs); give the time between frames (spacing_ps).")
        return self.spacing_ps

    @property
    def times_ps(self) -> np.ndarray:
        """(f,) since the first frame; ``ValueError`` where the time between frames is not known."""
        return self.spacing * np.arange(self.n_frames)

    def system(self, frame: int) -> System:
        """One frame."""
        return System(self.positions[frame], self.atomic_numbers, self.cells[frame], self.pbc, self.own_masses)

    @property
    def masses(self) -> np.ndarray:
        """(n,) amu."""
        return masses_of(self.system(0))

    def part(self, frames: slice) -> Trajectory:
        """A contiguous part."""
        velocities = None if self.velocities is None else self.velocities[frames]
        return dataclasses.replace(
            self, positions=self.positions[frames], cells=self.cells[frames], velocities=velocities
        )

    @classmethod
    def from_systems(cls, systems: Sequence[System], spacing_ps: float | None) -> Trajectory:
        """Collect structures of the same atoms.

        Raises:
            ValueError: if atoms or periodicity change.
        """
        first = systems[0]
        for index, system in enumerate(systems):
            if system.pbc != first.pbc or not np.array_equal(system.atomic_numbers, first.atomic_numbers):
                raise ValueError(f"frame {index} has other atoms or periodicity than the first; give one simulation.")
        return cls(
            positions=np.stack([np.asarray(system.positions, np.float64) for system in systems]),
            atomic_numbers=np.asarray(first.atomic_numbers),
            cells=np.stack([np.asarray(system.cell, np.float64) for system in systems]),
            pbc=first.pbc,
            spacing_ps=spacing_ps,
            own_masses=first.masses,
        )


def read_trajectory(path: str | Path, *, run: str | int | None = None, spacing_ps: float | None = None) -> Trajectory:
    """Read one replica of a trajectory: extended xyz of ``mlipjax md``, or anything that ASE reads.

    Args:
        path: file.
        run: replica, where frames carry the information ``run``: any name or number. ``None`` for the only one there
            is, or 0 of several numbered ones.
        spacing_ps: ps between frames; ``None`` to take it from the information ``time_fs``, if it is there.

    Raises:
        ValueError: if the file has no such replica, atoms of a frame coincide, or frames say times that are not
            equally spaced.
    """
    everything = read_atoms(path)
    names = [str(atoms.info.get("run", 0)) for atoms in everything]
    wanted = _chosen_run(path, names, run)
    frames = [atoms for atoms, name in zip(everything, names, strict=True) if name == wanted]
    if len(frames) < 2:
        raise ValueError(f"{path}: found {len(frames)} frame of run {wanted}; expected two or more.")
    if spacing_ps is None:
        spacing_ps = _spacing(path, frames)
    systems = [System.from_ase(atoms) for atoms in frames]
    for index, why in coincidences(systems).items():
        raise ValueError(f"{path}: frame {index} of run {wanted}: {why}")
    try:
        trajectory = Trajectory.from_systems(systems, spacing_ps)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if not all(atoms.has("momenta") for atoms in frames):
        return trajectory
    per_ps = 1000.0 * FEMTOSECOND  # ASE's unit of time in ps
    velocities = np.stack([atoms.get_velocities() * per_ps for atoms in frames])
    return dataclasses.replace(trajectory, velocities=velocities)


def _chosen_run(path: str | Path, names: list[str], run: str | int | None) -> str:
    """Name of the run that is meant, among those of all frames."""
    counts = Counter(names)
    wanted = str(run) if run is not None else next(iter(counts)) if len(counts) == 1 else "0"
    if wanted in counts:
        return wanted
    told = ", ".join(f"{name} ({n} frames)" for name, n in list(counts.items())[:_LISTED])
    more = f" and {len(counts) - _LISTED} more" if len(counts) > _LISTED else ""
    asked = f"found 0 frames of run {wanted}" if run is not None else f"frames belong to {len(counts)} runs, name one"
    raise ValueError(f"{path}: {asked}; the runs are {told}{more}.")


def _spacing(path: str | Path, frames: Sequence[Atoms]) -> float | None:
    """Time between frames in ps, if they say it."""
    times = [atoms.info.get("time_fs") for atoms in frames]
    try:
        known = np.array(times, float)
    except (TypeError, ValueError):
        return None
    if not np.isfinite(known).all():
        return None
    steps = np.diff(known)
    if not (np.allclose(steps, steps[0], rtol=1e-6) and steps[0] > 0.0):
        raise ValueError(f"{path}: frames are {steps.min():g} to {steps.max():g} fs apart; expected equal times.")
    return float(steps[0]) / 1000.0


def unwrapped(trajectory: Trajectory) -> np.ndarray:
    """Positions (f, n, 3) in Å that follow each atom through the cell's faces, without drift (see ``without_drift``).

    Each step is taken as the shortest of its images, so that frames may be wrapped or not; in a changing cell steps
    are fractional and scaled by the mean cell.

    Raises:
        ValueError: if an atom moves more than 0.4 of a period of the lattice between frames: its way is unknown.
    """
    positions, pbc = trajectory.positions, trajectory.pbc
    if any(pbc):
        cells = np.stack([completed(cell, pbc) for cell in trajectory.cells])
        mean = cells.mean(axis=0)
        # in a constant cell these are the positions themselves
        straight = positions if np.all(cells == cells[0]) else positions @ np.linalg.inv(cells) @ mean
        steps = minimum_image(np.diff(straight, axis=0), mean, pbc)
        share = share_of_period(steps, mean, pbc)
        if share.max() > _LARGEST_STEP:
            frame, atom = np.unravel_index(int(np.argmax(share)), share.shape)
            raise ValueError(
                f"atom {atom} moves {share.max():.2f} of a lattice vector between frames {frame} and {frame + 1}, so "
                "its way is ambiguous; write frames more often."
            )
        positions = straight[0] + np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
    return positions[0] + without_drift(positions - positions[0], trajectory.masses)


def without_drift(motion: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Displacements or velocities (f, n, 3) less those of the centre of mass.

    If an atom never moves, it was held, and it is the one at rest: the centre of mass goes with the others then.
    """
    if (np.abs(motion).max(axis=(0, 2)) < _STILL).any():
        return motion
    return motion - np.einsum("fnx,n->fx", motion, masses)[:, None, :] / masses.sum()
