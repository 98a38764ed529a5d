"""Adapt a universal machine-learned interatomic potential to a material, safely, in one JAX program."""

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from mlipjax._version import __version__

if TYPE_CHECKING:
    from mlipjax.calculator import Calculator
    from mlipjax.models import load, save
    from mlipjax.potential import Model, Potential, Prediction
    from mlipjax.system import Labels, System
    from mlipjax.verbs import (
        calibrate,
        distill,
        evaluate,
        finetune,
        monitor,
        neb,
        periodic,
        predict,
        read,
        relax,
        simulate,
    )

__all__ = [
    "Calculator",
    "Labels",
    "Model",
    "Potential",
    "Prediction",
    "System",
    "__version__",
    "calibrate",
    "distill",
    "evaluate",
    "finetune",
    "load",
    "monitor",
    "neb",
    "periodic",
    "predict",
    "read",
    "relax",
    "save",
    "simulate",
]

_HOMES = {
    "Calculator": "mlipjax.calculator",
    "Labels": "mlipjax.system",
    "Model": "mlipjax.potential",
    "Potential": "mlipjax.potential",
    "Prediction": "mlipjax.potential",
    "System": "mlipjax.system",
    "load": "mlipjax.models",
    "save": "mlipjax.models",
}  # of all others: the verbs


def __getattr__(name: str) -> Any:
    # imported when first used: the command line answers --help and --version without loading JAX
    if name not in __all__:
        if name.startswith("_") or importlib.util.find_spec(f"mlipjax.{name}") is None:
            raise AttributeError(f"module 'mlipjax' has no attribute {name!r}")
        return importlib.import_module(f"mlipjax.{name}")  # mlipjax.md, mlipjax.probes, ...
    return getattr(importlib.import_module(_HOMES.get(name, "mlipjax.verbs")), name)
