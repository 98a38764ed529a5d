"""Makes the package itself callable: ``mlipjax.finetune(...)`` is a fixed name, and so is the package's."""

from __future__ import annotations

import sys
from types import ModuleType

from mlipjax.finetune.single import FinetuneResult, finetune


class _CallablePackage(ModuleType):
    def __call__(self, *args, **kwargs) -> FinetuneResult:
        """Call ``mlipjax.finetune.finetune``."""
        return finetune(*args, **kwargs)


sys.modules["mlipjax.finetune"].__class__ = _CallablePackage
