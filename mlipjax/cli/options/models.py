"""Options of ``mlipjax models``."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Models:
    """List the models known by name: elements, size, level of theory, licence, and where each one is.

    Attributes:
        json: also write the list to this file.
    """

    json: Path | None = None
