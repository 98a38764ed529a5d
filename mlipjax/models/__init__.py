"""Potentials that can be loaded, and how to build new ones."""

from mlipjax.models.io import load, save
from mlipjax.models.nequip import NequIP, NequIPConfig, nequip

__all__ = ["NequIP", "NequIPConfig", "load", "nequip", "save"]
