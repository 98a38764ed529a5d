"""Options by name, as the settings that they belong to."""

from __future__ import annotations

import dataclasses
import difflib
import os
from typing import Any, TypeVar

S = TypeVar("S")


def completed(kind: type[S], given: S | None, options: dict[str, Any]) -> S:
    """Settings with the values that options give to their fields; these options are taken out of ``options``.

    Args:
        kind: a frozen dataclass.
        given: where to start, by default the defaults.
        options: values by the name of a field.
    """
    names = [field.name for field in dataclasses.fields(kind) if field.name in options]  # pyright: ignore[reportArgumentType]
    return dataclasses.replace(given or kind(), **{name: _plain(options.pop(name)) for name in names})  # pyright: ignore


def refuse_unknown(options: dict[str, Any], *kinds: Any) -> None:
    """Raise ``TypeError`` for an option that is left because it is a field of none of these settings."""
    for name in options:
        known = [field.name for kind in kinds for field in dataclasses.fields(kind)]
        close = difflib.get_close_matches(name, known, n=1)
        raise TypeError(
            f"there is no option {name!r}; {f'did you mean {close[0]!r}?' if close else 'see mlipjax.settings.'}"
        )


def _plain(value: Any) -> Any:
    """Paths as text and lists as tuples: what a run writes down, and compares with when it is resumed."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value
