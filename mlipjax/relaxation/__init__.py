"""Relaxation of structures, of elastic bands between them, and what their ends depend on."""

from mlipjax.relaxation.cell import CellChange
from mlipjax.relaxation.implicit import converged_barrier, relaxed_positions
from mlipjax.relaxation.run import Relaxed, Snapshot, relax
from mlipjax.relaxation.search import OnStep, ProbeDiverged

__all__ = [
    "CellChange",
    "OnStep",
    "ProbeDiverged",
    "Relaxed",
    "Snapshot",
    "converged_barrier",
    "relax",
    "relaxed_positions",
]
