"""Potentials that can be loaded, and how to build new ones."""

from mlipjax.models.io import load, save
from mlipjax.models.mace import MACE, MACEConfig, mace
from mlipjax.models.nequip import NequIP, NequIPConfig, nequip

__all__ = ["MACE", "MACEConfig", "NequIP", "NequIPConfig", "load", "mace", "nequip", "save"]
