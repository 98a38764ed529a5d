"""Readers of other codes' model files."""

from mlipjax.models.importers.nqx import load_nqx

__all__ = ["load_nqx"]
