"""Readers of other codes' model files."""

from mlipjax.models.importers.mace_torch import load_mace_torch
from mlipjax.models.importers.nqx import load_nqx

__all__ = ["load_mace_torch", "load_nqx"]
