"""Options by name, as the settings that they belong to."""

from __future__ import annotations

import dataclasses
import difflib
import os
from typing import Any


def completed(options: dict[str, Any], *settings: Any) -> tuple[Any, ...]:
    """Settings with the values that options give to their fields.

    Args:
        options: values by the name of a field.
        settings: frozen dataclasses; a name that several have is given to all of them.

    Raises:
        TypeError: for an option that is no field of any.
    """
    known = [{field.name for field in dataclasses.fields(one)} for one in settings]
    for name in options:
        if not any(name in names for names in known):
            close = difflib.get_close_matches(name, sorted(set().union(*known)), n=1)
            raise TypeError(
                f"there is no option {name!r}; {f'did you mean {close[0]!r}?' if close else 'see mlipjax.settings.'}"
            )
    return tuple(
        dataclasses.replace(one, **{name: _plain(options[name]) for name in names & set(options)})
        for one, names in zip(settings, known, strict=True)
    )


def _plain(value: Any) -> Any:
    """Paths as text and lists as tuples: what a run writes down, and compares with when it is resumed."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(value) if isinstance(value, list) else value


__all__ = ["completed"]
