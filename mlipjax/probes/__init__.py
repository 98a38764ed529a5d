"""Probes: what a potential says where an RMSE is silent. Each returns a typed result with a figure and a verdict."""

from mlipjax.probes.neb import NEBResult, initial_path, neb
from mlipjax.probes.relax import ProbeDiverged, Relaxed, relax
from mlipjax.probes.result import ProbeResult

__all__ = [
    "NEBResult",
    "ProbeDiverged",
    "ProbeResult",
    "Relaxed",
    "initial_path",
    "neb",
    "relax",
]
