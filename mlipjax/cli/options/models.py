"""Options of ``mlipjax models``."""

from __future__ import annotations

import dataclasses

from mlipjax.cli.options.common import Reports


@dataclasses.dataclass(frozen=True)
class Models(Reports):
    """List the models known by name: elements, size, level of theory, licence, and where each one is."""
