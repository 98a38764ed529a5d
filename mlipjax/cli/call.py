"""From the options of a command to the arguments of a verb."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

R = TypeVar("R")


def given(command: Any) -> dict[str, Any]:
    """All options of a command by their names; those of dataclasses in it, and these dataclasses, too."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(command):
        value = found[field.name] = getattr(command, field.name)
        if dataclasses.is_dataclass(value):
            found |= given(value)
    return found


def call(verb: Callable[..., R], command: Any, **more: Any) -> R:
    """Call a verb with those options of a command that it takes, and more arguments.

    A test compares the names and defaults of both, so that none is left out unseen.
    """
    takes = inspect.signature(verb).parameters
    return verb(**{name: value for name, value in given(command).items() if name in takes}, **more)
