"""The help of a command: its main options, the others by their names; ``--help-all`` explains all.

What an option means stands in the docstring of the dataclass that has it; nothing but these dataclasses is loaded.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from mlipjax.cli.bounds import option as flag

_WORDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
_OTHERS = "running"
_COLUMN = 24


class Option(NamedTuple):
    """An option as it is typed, what follows it, what it means, and its default."""

    name: str
    typed: str
    text: str


def help_text(prog: str, options: Any, *, everything: bool, width: int | None = None) -> str:
    """The help of a command.

    Args:
        prog: how it is called.
        options: dataclass of its options; with ``sections`` those of the first are shown, the others named.
        everything: explain all options.
        width: columns; by default those of the terminal, or 80.
    """
    width = min(width or shutil.get_terminal_size((80, 24)).columns, 120)
    found = {option.name: option for option in options_in(options)}
    sections = [(heading, names.split()) for heading, names in getattr(options, "sections", {}).items()]
    listed = {name for _, names in sections for name in names}
    rest = [name for name in found if name not in listed]
    sections.append((_OTHERS if sections else "options", rest))
    about = inspect.cleandoc(options.__doc__).split("\n\nAttributes:")[0]
    needed = " ".join(option.typed for option in found.values() if option.text.endswith("(required)"))
    lines = [*_folded(" ".join(f"usage: {prog} {needed} [options]".split()), width), "", *_paragraphs(about, width)]
    for number, (heading, names) in enumerate(sections):
        lines += ["", f"{heading}:"]
        if everything or number == 0:
            lines += [line for name in names for line in _explained(found[name], width)]
        else:
            lines += _folded(", ".join(flag(name) for name in names), width, "  ")
    if not everything and len(sections) > 1:
        lines += ["", f"{prog} --help-all explains all of them."]
    return "\n".join(lines)


def options_in(options: Any) -> Iterator[Option]:
    """All options of a dataclass, with those of the dataclasses in it, in their order; inherited ones come last."""
    texts = texts_of(options)
    hints = typing.get_type_hints(options, include_extras=True)
    own = inspect.get_annotations(options)
    for field in sorted(dataclasses.fields(options), key=lambda field: field.name not in own):
        kind, marks = _bare(hints[field.name])
        if dataclasses.is_dataclass(kind):
            yield from options_in(kind)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        text = texts[field.name].replace("``", "")
        if default is dataclasses.MISSING:
            text = f"{text.rstrip('.')} (required)"
        elif not isinstance(default, bool) and default not in (None, (), "", {}) and "by default" not in text:
            shown = " ".join(map(_shown, default)) if isinstance(default, tuple) else _shown(default)
            text = f"{text.rstrip('.')} (default: {shown})"
        yield Option(field.name, _typed(field.name, kind, marks, default), text)


def texts_of(options: Any) -> dict[str, str]:
    """Meanings of the fields of a dataclass, by their names; it may say more of an inherited one than its parents."""
    return {name: text for kind in options.__mro__[-2::-1] for name, text in _attributes(kind.__doc__ or "")}


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _typed(name: str, kind: Any, marks: Sequence[Any], default: Any) -> str:
    """An option as it is typed, with what follows it."""
    if kind is bool:
        return flag(f"no_{name}" if default is True else name)
    if tyro.conf.Positional in marks:
        return _follows(kind)
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    return " ".join([", ".join([*aliases, flag(name)]), _follows(kind)])


def _follows(kind: Any) -> str:
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return "{" + ("," if len(parts) < 5 else ", ").join(map(str, parts)) + "}"
    if typing.get_origin(kind) is dict:
        return " ".join([*map(_follows, parts), "..."])
    if typing.get_origin(kind) is tuple:
        return f"{_follows(parts[0])} ..." if parts[-1] is ... else " ".join(map(_follows, parts))
    return _WORDS[kind]


def _bare(hint: Any) -> tuple[Any, Sequence[Any]]:
    """A type without annotations and without ``None``, and its annotations."""
    marks: list[Any] = []
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            marks += hint.__metadata__
            hint = hint.__origin__
        elif typing.get_origin(hint) in (typing.Union, types.UnionType):
            hint = next(part for part in typing.get_args(hint) if part is not type(None))
        else:
            return hint, marks


def _attributes(doc: str) -> Iterator[tuple[str, str]]:
    """Names and texts of the section ``Attributes:`` of a docstring."""
    section = inspect.cleandoc(doc).partition("Attributes:\n")[2]
    for name, text in re.findall(r"^    (\w+): (.+(?:\n     .*)*)", section, flags=re.MULTILINE):
        yield name, " ".join(text.split())


def _paragraphs(text: str, width: int) -> list[str]:
    return [line for part in text.split("\n\n") for line in (*_folded(" ".join(part.split()), width), "")][:-1]


def _explained(option: Option, width: int) -> list[str]:
    lines = _folded(option.text, width, " " * _COLUMN)
    typed = f"  {option.typed}"
    if len(typed) < _COLUMN - 1:
        return [typed + lines[0][len(typed) :], *lines[1:]]
    return [*_folded(option.typed, width, "  "), *lines]


def _folded(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
