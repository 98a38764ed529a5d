"""The words of a command in messages of the library: ``e0s="estimate"`` becomes ``--e0s estimate``.

The library names its settings as Python arguments; a command has an option for each of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any

# name="value", name=("one", "two"), name=0.2; or a name alone in parentheses
_GIVEN = re.compile(r"""\b([a-z][a-z0-9_]*)=(\([^()]*\)|"[^"]*"|'[^']*'|[\w.+-]*[\w])""")
_ALONE = re.compile(r"\(([a-z][a-z0-9_]*)\)")


def as_options(text: str, *options: Any) -> str:
    """Return a message in which settings are named as options of a command.

    Args:
        text: message of the library.
        options: dataclasses whose fields are options.
    """
    names = {name for kind in options for name in _fields(kind)}

    def given(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if name not in names:
            return match[0]
        words = re.findall(r"[^\s,()\"']+", value)
        option = f"--{name.replace('_', '-')}"
        return option if words == ["True"] else " ".join([option, *words])

    def alone(match: re.Match[str]) -> str:
        return f"(--{match[1].replace('_', '-')})" if match[1] in names else match[0]

    return _ALONE.sub(alone, _GIVEN.sub(given, text))


@contextlib.contextmanager
def option_words(*options: Any) -> Iterator[None]:
    """Reword errors about bad input that leave this context.

    Raises:
        ValueError: with the same message, in the words of the command.
    """
    try:
        yield
    except ValueError as error:
        reworded = as_options(str(error), *options)
        if type(error) is not ValueError or reworded == str(error):
            raise
        raise ValueError(reworded) from error


def _fields(kind: Any) -> Iterator[str]:
    """Names of the fields of a dataclass, and of those that it holds."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _fields(hints[field.name])
        else:
            yield field.name
