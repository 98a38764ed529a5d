"""Length of a trajectory against what is asked of it: one question, and the same words, for every probe."""

from __future__ import annotations

import numpy as np

from mlipjax.monitoring.correlation import effective_size
from mlipjax.probes.trajectory import Trajectory

FEW_INDEPENDENT = 10.0
"""Independent frames, two in each of five blocks, below which block errors are no errors."""


def require_frames(trajectory: Trajectory, needed: int, purpose: str) -> None:
    """Raise ``ValueError`` if there are fewer frames than ``purpose`` needs."""
    if trajectory.n_frames < needed:
        length = "" if trajectory.spacing_ps is None else f" ({trajectory.times_ps[-1]:.3g} ps)"
        raise ValueError(
            f"{trajectory.n_frames} frames{length} are too few for {purpose}: expected "
            f"{needed} or more; run the simulation for longer, or write frames more often."
        )


def independent_frames(per_frame: np.ndarray) -> float:
    """Number of independent frames in a trajectory, for an observable.

    Args:
        per_frame: (f, m) the observable of each frame; its component of largest fluctuation counts, which is the
            slowest one in all but contrived cases. Frames that are all alike count as independent: a perfect crystal
            has no fluctuations that could be correlated.
    """
    deviations = np.asarray(per_frame, np.float64) - np.mean(per_frame, axis=0)
    if np.abs(deviations).max(initial=0.0) <= 1e-9 * max(float(np.abs(per_frame).max(initial=0.0)), 1e-300):
        return float(len(per_frame))
    left, values, _ = np.linalg.svd(deviations, full_matrices=False)
    return effective_size([left[:, 0] * values[0]])


def remark(independent: float, n_frames: int) -> str:
    """Remark for a verdict where frames resemble each other too much for their errors to mean anything."""
    if independent >= min(FEW_INDEPENDENT, n_frames):
        return ""
    return (
        f"; WARNING: the {n_frames} frames are worth about {independent:.1f} independent ones: too short a trajectory, "
        "its errors mean nothing"
    )
