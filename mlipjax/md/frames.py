"""Frames of a chunk as extended xyz, with total energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlipjax.data import TrajectoryWriter
from mlipjax.graph import Near, way_of
from mlipjax.md.chunk import Frames
from mlipjax.md.freedom import Freedom
from mlipjax.potential import Potential
from mlipjax.system import System


@dataclass(frozen=True)
class Way:
    """Offsets from positions near the origin to those of atoms that nothing brought back, and which atoms may move.

    Attributes:
        images: (R, N, 3) lattice vectors taken off each atom since the start of the run.
        start: those taken off before, and the shift along open directions.
        freedom: which coordinates may move; ``None`` for all.
    """

    images: np.ndarray
    start: Near
    freedom: Freedom | None = None

    def positions(self, replica: int, position: Any, cell: Any) -> np.ndarray:
        """(N, 3) Å, continuous in time; as they are, bit for bit, if nothing was taken off."""
        images = self.images[replica] + self.start.images
        if not (images.any() or self.start.origin.any()):
            return position
        return way_of(position, images, cell, self.start.origin)

    @property
    def free(self) -> np.ndarray | None:
        """(N, 3) true for coordinates that may move; ``None`` if all may."""
        return None if self.freedom is None else self.freedom.free


def write_frames(
    writer: TrajectoryWriter,
    frames: Frames,
    like: System,
    potential: Potential,
    head: int,
    stamps: Sequence[Mapping[str, Any]],
    way: Way,
) -> None:
    """Append frames, all replicas of one time before the next time.

    Energies are total energies: the interaction energy of the frame in float64 plus the isolated-atom energies.
    One file holds all replicas, told apart by the information ``run``, by which data sets are split as well.

    Args:
        writer: where to.
        frames: (R, F, ...) of a chunk, on the host.
        like: the structure simulated: elements, masses and periodicity.
        potential: whose isolated-atom energies count.
        head: index of the energy head.
        stamps: information for each of the F frames.
        way: how the atoms came to be where they are.
    """
    reference = potential.reference_energy(np.asarray(like.atomic_numbers), head)
    has_volume = abs(np.linalg.det(np.asarray(like.cell, np.float64))) > 0.0
    for f, stamp in enumerate(stamps):
        for r in range(len(frames.energy)):
            cell = frames.cell[r, f]
            writer.write(
                replace(like, positions=way.positions(r, frames.position[r, f], cell), cell=cell),
                energy=float(frames.energy[r, f]) + reference,
                forces=frames.force[r, f],
                stress=frames.stress[r, f] if has_volume else None,
                momenta=frames.momentum[r, f],
                free=way.free,
                info={"run": r, **stamp},
            )
