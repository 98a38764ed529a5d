"""Frames of a chunk as extended xyz, with total energies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mlipjax.data import TrajectoryWriter
from mlipjax.graph import Near, way_of
from mlipjax.md.chunk import Frames
from mlipjax.md.freedom import Freedom
from mlipjax.system import System

Columns = Callable[[Sequence[System]], Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]]
"""Further content of frames: information, and numbers of atoms by name, such as error bars."""


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
    reference: float,
    stamps: Sequence[Mapping[str, Any]],
    way: Way,
    columns: Columns | None = None,
) -> None:
    """Append frames, all replicas of one time before the next time.

    Energies are total energies: the interaction energy of the frame in float64 plus the isolated-atom energies.
    One file holds all replicas, told apart by the information ``run``, by which data sets are split as well.

    Args:
        writer: where to.
        frames: (R, F, ...) of a chunk, on the host.
        like: the structure simulated: elements, masses and periodicity.
        reference: eV, energy of its isolated atoms.
        stamps: information for each of the F frames.
        way: how the atoms came to be where they are.
        columns: what else is written.
    """
    has_volume = abs(np.linalg.det(np.asarray(like.cell, np.float64))) > 0.0
    for f, stamp in enumerate(stamps):
        cells = frames.cell[:, f]
        systems = [
            replace(like, positions=way.positions(r, frames.position[r, f], cell), cell=cell)
            for r, cell in enumerate(cells)
        ]
        more = [({}, {})] * len(systems) if columns is None else columns(systems)
        for r, (system, (info, arrays)) in enumerate(zip(systems, more, strict=True)):
            writer.write(
                system,
                energy=float(frames.energy[r, f]) + reference,
                forces=frames.force[r, f],
                stress=frames.stress[r, f] if has_volume else None,
                arrays={"momenta": frames.momentum[r, f], **arrays},
                free=way.free,
                info={"run": r, **stamp, **info},
            )
