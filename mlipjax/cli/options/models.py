"""Options of ``mlipjax models``."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import tyro

from mlipjax.cli.options.common import Reports


@dataclasses.dataclass(frozen=True)
class Models(Reports):
    """List the models known by name: elements, level of theory, training data, licence, and whether each one is here.

    Attributes:
        name: everything that is known of this one.
    """

    name: Annotated[str | None, tyro.conf.Positional] = None
