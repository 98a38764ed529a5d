"""Settings of fine-tunes: records that load neither JAX nor ASE until something is made of them."""

from mlipjax.settings.finetune import DISTILLATION, FinetuneSettings, SamplingSettings
from mlipjax.settings.periodic import PeriodicSettings, SystemSettings
from mlipjax.settings.properties import PropertySettings

__all__ = [
    "DISTILLATION",
    "FinetuneSettings",
    "PeriodicSettings",
    "PropertySettings",
    "SamplingSettings",
    "SystemSettings",
]
