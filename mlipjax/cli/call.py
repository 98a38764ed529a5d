"""From the options of a command to the arguments of a verb."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from mlipjax.cli.options.common import LabelOptions

R = TypeVar("R")


def fields_of(options: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Fields of a dataclass and their types, those of dataclasses in it in place of these."""
    plain, hints = typing.get_type_hints(options), typing.get_type_hints(options, include_extras=True)
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(plain[field.name]):
            yield from fields_of(plain[field.name])
        else:
            yield field, hints[field.name]


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
    parameters = inspect.signature(verb).parameters.values()
    takes = {one.name for one in parameters if one.kind is not one.VAR_KEYWORD}
    if len(takes) < len(parameters):  # those that name labels
        takes |= {field.name for field in dataclasses.fields(LabelOptions)}
    return verb(**{name: value for name, value in given(command).items() if name in takes}, **more)
