"""Frames of one simulation as arrays, for the observables of molecular dynamics."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mlipjax.data import iread_atoms
from mlipjax.md.observables import masses_of
from mlipjax.system import System
from mlipjax.units import FEMTOSECOND


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """Equally spaced frames of one replica.

    Attributes:
        positions: (f, n, 3) Å, wrapped into the cell or not.
        atomic_numbers: (n,).
        cells: (f, 3, 3) Å.
        pbc: periodicity.
        spacing_ps: ps between frames.
        velocities: (f, n, 3) Å/ps, or ``None``.
        own_masses: (n,) amu where they are not the standard atomic weights, otherwise ``None``.
    """

    positions: np.ndarray
    atomic_numbers: np.ndarray
    cells: np.ndarray
    pbc: tuple[bool, bool, bool]
    spacing_ps: float
    velocities: np.ndarray | None = None
    own_masses: np.ndarray | None = None

    def __post_init__(self) -> None:
        n_frames, n_atoms = self.positions.shape[:2]
        if self.cells.shape != (n_frames, 3, 3) or self.atomic_numbers.shape != (n_atoms,):
            raise ValueError(
                f"found positions {self.positions.shape}, cells {self.cells.shape} and atomic numbers "
                f"{self.atomic_numbers.shape}; expected (f, n, 3), (f, 3, 3) and (n,)."
            )
        if n_frames < 2 or not self.spacing_ps > 0.0:
            raise ValueError(f"found {n_frames} frames, {self.spacing_ps} ps apart; expected two or more, in order.")

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def times_ps(self) -> np.ndarray:
        """(f,) since the first frame."""
        return self.spacing_ps * np.arange(self.n_frames)

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
    def from_systems(cls, systems: Sequence[System], spacing_ps: float) -> Trajectory:
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


def read_trajectory(path: str | Path, *, run: int = 0, spacing_ps: float | None = None) -> Trajectory:
    """Read one replica of a trajectory: extended xyz of ``mlipjax md``, or anything that ASE reads.

    Args:
        path: file.
        run: replica, where frames carry the information ``run``.
        spacing_ps: ps between frames; ``None`` to take it from the information ``time_fs``.

    Raises:
        ValueError: if the file has no such replica, or the time between frames is neither given nor constant.
    """
    frames = [atoms for atoms in iread_atoms(path) if int(atoms.info.get("run", 0)) == run]
    if len(frames) < 2:
        raise ValueError(f"{path}: found {len(frames)} frames of run {run}; expected two or more.")
    if spacing_ps is None:
        times = [atoms.info.get("time_fs") for atoms in frames]
        if any(time is None for time in times):
            raise ValueError(f"{path}: frames do not say their time (time_fs); give the time between frames.")
        steps = np.diff(np.array(times, float))
        if not np.allclose(steps, steps[0], rtol=1e-6):
            raise ValueError(f"{path}: frames are {steps.min():g} to {steps.max():g} fs apart; expected equal times.")
        spacing_ps = float(steps[0]) / 1000.0
    trajectory = Trajectory.from_systems([System.from_ase(atoms) for atoms in frames], spacing_ps)
    if not all(atoms.has("momenta") for atoms in frames):
        return trajectory
    per_ps = 1000.0 * FEMTOSECOND  # ASE's unit of time in ps
    velocities = np.stack([atoms.get_velocities() * per_ps for atoms in frames])
    return dataclasses.replace(trajectory, velocities=velocities)


def unwrapped(trajectory: Trajectory) -> np.ndarray:
    """Positions (f, n, 3) in Å that follow each atom through the cell's faces, centre of mass at rest.

    Each step is taken as the shortest of its images, so that frames may be wrapped or not; in a changing cell steps
    are fractional and scaled by the mean cell.

    Raises:
        ValueError: if an atom moves more than 0.4 of a lattice vector between frames: the way it took is unknown.
    """
    positions = trajectory.positions
    periodic = np.array(trajectory.pbc)
    if periodic.any():
        cells = np.where(periodic[:, None], trajectory.cells, 0.0)
        cells = cells + np.where(periodic[:, None], 0.0, np.eye(3))
        fractional = positions @ np.linalg.inv(cells)
        steps = np.diff(fractional, axis=0)
        steps = np.where(periodic, steps - np.round(steps), steps)
        if np.abs(np.where(periodic, steps, 0.0)).max() > 0.4:
            raise ValueError(
                f"an atom moves {np.abs(np.where(periodic, steps, 0.0)).max():.2f} of a lattice vector between two "
                "frames, so its way is ambiguous; write frames more often."
            )
        path = np.concatenate([np.zeros_like(steps[:1]), np.cumsum(steps, axis=0)])
        positions = (fractional[0] + path) @ cells.mean(axis=0)
    masses = trajectory.masses
    center = np.einsum("fnx,n->fx", positions, masses) / masses.sum()
    return positions - center[:, None, :]
