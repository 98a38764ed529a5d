"""Numbers of steps before the next search for neighbours or the next frame."""

from __future__ import annotations

import math

import numpy as np

from mlipjax.elements import atomic_masses
from mlipjax.units import BOLTZMANN, FEMTOSECOND

_FASTEST = 4.5
"""Standard deviations of a velocity component that none of 1000 atoms exceeds in most samples."""

_LONGEST = 50
"""Beyond this a search costs less than a percent of the steps between two."""

_SHORTEST = 5


def default_chunk_steps(
    atomic_numbers: np.ndarray,
    temperature_K: float,
    timestep_fs: float,
    skin: float,
    masses: np.ndarray | None = None,
) -> int:
    """Steps in which the lightest atom, at its fastest and in free flight, moves half the skin; 5 to 50.

    Args:
        atomic_numbers: of the structure.
        temperature_K: K.
        timestep_fs: fs.
        skin: Å.
        masses: (n,) amu, where they are not the standard atomic weights.
    """
    lightest = float(np.min(atomic_masses(atomic_numbers) if masses is None else masses))
    velocity = _FASTEST * math.sqrt(BOLTZMANN * temperature_K / lightest)
    steps = 0.5 * skin / (velocity * timestep_fs * FEMTOSECOND)
    return int(np.clip(steps, _SHORTEST, _LONGEST))


def align_chunk(steps: int, frame_every: int) -> int:
    """At most ``steps``, such that frames fall on ends of chunks (few different lengths, few compilations)."""
    if steps >= frame_every:
        return steps // frame_every * frame_every
    divisor = max(n for n in range(1, steps + 1) if frame_every % n == 0)
    return divisor if 2 * divisor > steps else steps


def shorten_chunk(steps: int, frame_every: int) -> int:
    """The next shorter length to try after atoms moved too far: a quarter, so that few lengths are compiled."""
    return align_chunk(max(1, steps // 4), frame_every)


def next_piece(step: int, n_steps: int, chunk_steps: int, since_search: int, frame_every: int) -> tuple[int, int]:
    """Length of the next compiled piece, and the steps between its frames.

    A piece ends at the next search, at the end of the run, or at a frame that cannot be recorded within it.

    Args:
        step: steps done.
        n_steps: steps in all.
        chunk_steps: steps between searches.
        since_search: steps since the last search, fewer than ``chunk_steps``.
        frame_every: steps between frames.
    """
    piece = min(chunk_steps - since_search, n_steps - step)
    to_frame = frame_every - step % frame_every
    if piece <= to_frame:
        return piece, piece
    if to_frame < frame_every:
        return to_frame, to_frame
    return piece // frame_every * frame_every, frame_every
