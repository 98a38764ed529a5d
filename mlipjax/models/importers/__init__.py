"""Readers of other codes' model files."""

from mlipjax.models.importers.mace_torch import load_mace_torch
from mlipjax.models.importers.nqx import load_nqx
from mlipjax.models.importers.sevennet import load_sevennet

__all__ = ["load_mace_torch", "load_nqx", "load_sevennet"]
