"""Probes: what a potential says where an RMSE is silent. Each returns a typed result with a figure and a verdict."""

from mlipjax.probes.relax import ProbeDiverged, Relaxed, relax
from mlipjax.probes.result import ProbeResult

__all__ = ["ProbeDiverged", "ProbeResult", "Relaxed", "relax"]
