"""Frames of a chunk as extended xyz, with total energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlipjax.data import TrajectoryWriter
from mlipjax.md.chunk import Frames
from mlipjax.potential import Potential
from mlipjax.system import System


def write_frames(
    writer: TrajectoryWriter,
    frames: Frames,
    like: System,
    potential: Potential,
    head: int,
    stamps: Sequence[Mapping[str, Any]],
) -> None:
    """Append frames, all replicas of one time before the next time.

    Energies are total energies: the interaction energy of the frame in float64 plus the isolated-atom energies.
    One file holds all replicas, told apart by the information ``run``, by which data sets are split as well.

    Args:
        writer: where to.
        frames: (R, F, ...) of a chunk, on the host.
        like: the structure simulated: elements and periodicity.
        potential: whose isolated-atom energies count.
        head: index of the energy head.
        stamps: information for each of the F frames.
    """
    reference = potential.reference_energy(np.asarray(like.atomic_numbers), head)
    has_volume = abs(np.linalg.det(np.asarray(like.cell, np.float64))) > 0.0
    for f, stamp in enumerate(stamps):
        for r in range(len(frames.energy)):
            writer.write(
                replace(like, positions=frames.position[r, f], cell=frames.cell[r, f]),
                energy=float(frames.energy[r, f]) + reference,
                forces=frames.force[r, f],
                stress=frames.stress[r, f] if has_volume else None,
                momenta=frames.momentum[r, f],
                info={"run": r, **stamp},
            )
