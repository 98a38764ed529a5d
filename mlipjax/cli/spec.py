"""A command's options as one TOML file: read as if they were typed, and written with their own help as comments."""

from __future__ import annotations

import dataclasses
import difflib
import json
import textwrap
import tomllib
import types
import typing
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlipjax.cli.bounds import OPTIONS, option
from mlipjax.cli.call import fields_of, given
from mlipjax.cli.help import Option, options_in, texts_of
from mlipjax.files import write_atomic
from mlipjax.settings import SystemSettings

SYSTEM = "system"
"""Name of the tables of structures with settings of their own."""

_OF_COMMANDS = ("spec", "write_spec")


def expand(arguments: Sequence[str], options: Any) -> list[str]:
    """Put the options of a file, named before all others, in their place; what is typed beside it wins.

    With ``--write-spec`` what must be given and is not is the option's name in capitals.

    Args:
        arguments: words of the command line.
        options: dataclass of the command's options; one without a field ``spec`` takes no file.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, it is no TOML, or has a key that is no option.
    """
    arguments = list(arguments)
    if "spec" not in {field.name for field in dataclasses.fields(options)}:
        return arguments
    if arguments and not arguments[0].startswith("-"):
        arguments[:1] = ["--spec", arguments[0]]
    typed = {word.partition("=")[0] for word in arguments}
    names = {known.name: known for known in options_in(options) if known.name not in _OF_COMMANDS}
    if "--spec" in arguments[:1]:
        hints = {field.name: hint for field, hint in fields_of(options) if field.name in names}
        content = read_spec(Path(arguments[1]), hints)
        free = {name: value for name, value in content.items() if typed.isdisjoint(_spellings(names[name]))}
        arguments += [word for name, value in free.items() for word in _words(name, value)]
        typed |= {option(name) for name in free}
    if "--write-spec" in typed:
        needed = [name for name, known in names.items() if known.text.endswith("(required)")]
        arguments += [word for name in needed if option(name) not in typed for word in (option(name), name.upper())]
    return arguments


def check_once(arguments: Sequence[str], options: Any) -> None:
    """Refuse an option of several values that is typed twice: the parser would take the last values and drop the first.

    Args:
        arguments: words of the command line.
        options: dataclass of the command's options; some of them collect what is typed (``UseAppendAction``).

    Raises:
        ValueError: naming the option.
    """
    several = {option(field.name) for field, hint in fields_of(options) if typing.get_origin(hint) is tuple}
    typed = Counter(word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--"))
    for word in sorted(several):
        if typed[word] > 1:
            raise ValueError(f"{word} is given {typed[word]} times; give all its values behind one {word}.")


def _spellings(known: Option) -> list[str]:
    return [word.rstrip(",") for word in known.typed.split() if word.startswith("--")]


def read_spec(path: Path, hints: Mapping[str, Any]) -> dict[str, Any]:
    """Options in a file, without its tables of systems.

    Args:
        path: of the file.
        hints: types of the options by their names.

    Raises:
        FileNotFoundError, ValueError: see ``expand``.
    """
    content = _load(path)
    content.pop(SYSTEM, None)
    for name, value in content.items():
        _check_name(path, name, [*hints, SYSTEM])
        _check_type(path, name, value, hints[name])
    return content


def read_systems(path: Path) -> tuple[SystemSettings, ...]:
    """Structures with settings of their own in a file.

    Raises:
        FileNotFoundError, ValueError: if there is no such file, or what it says of a structure cannot be honoured.
    """
    tables = _load(path).get(SYSTEM, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: structures with settings of their own are tables [[{SYSTEM}]].")
    return tuple(_system(path, number, table) for number, table in enumerate(tables, 1))


def _system(path: Path, number: int, table: Mapping[str, Any]) -> SystemSettings:
    hints, where = typing.get_type_hints(SystemSettings), f"{path}, {SYSTEM} {number}"
    for name, value in table.items():
        _check_name(where, name, list(hints))
        _check_type(where, name, value, hints[name])
        values = value if isinstance(value, list) else [value]
        for item in values if name in OPTIONS and name != "labels_per_round" else ():
            if not OPTIONS[name].holds(item):
                raise ValueError(f"{where}: {name} must be {OPTIONS[name]}, found {item}.")
    if "structure" not in table:
        raise ValueError(f"{where}: it has no structure; name a file.")
    try:
        given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in table.items()}
        return SystemSettings(**given)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _check_type(where: Any, name: str, value: Any, hint: Any) -> None:
    """Refuse a value of another type than an option's."""
    kinds = list(_kinds(hint))
    several = [kind for kind in kinds if typing.get_origin(kind) is tuple]
    for item in value if several and isinstance(value, list) else [value]:
        allowed = [kind for kind in kinds if kind not in several]
        allowed += [typing.get_args(kind)[0] for kind in several]
        if isinstance(item, str) and item.startswith("-"):
            raise ValueError(
                f"{where}: {name} is {item!r}, which would be taken for an option; write ./{item} for a file."
            )
        if not any(_is(item, kind) for kind in allowed):
            wanted = " or ".join(dict.fromkeys(map(_in_words, allowed)))
            raise ValueError(f"{where}: {name} must be {wanted}{' or a list' if several else ''}, found {value!r}.")


def _kinds(hint: Any) -> Iterator[Any]:
    """The types that a hint allows, without annotations and ``None``."""
    if typing.get_origin(hint) is typing.Annotated:
        yield from _kinds(hint.__origin__)
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _kinds(part)
    elif hint is not type(None):
        yield hint


def _is(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is (str if kind in (Any, Path) else kind)


def _in_words(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, "text")


def _load(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a TOML file of options.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # besides its own: bytes that are no text, a number of 5000 digits
        raise ValueError(f"{path}: no TOML file: {error}.") from None


def _check_name(where: Any, name: str, known: Sequence[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "the command's --help-all lists all of them."
        raise ValueError(f"{where}: there is no option {name!r}; {hint}")


def _words(name: str, value: Any) -> list[str]:
    """An option as it is typed."""
    if isinstance(value, bool):
        return [option(name if value else f"no_{name}")]
    values = value if isinstance(value, list) else [value]
    return [option(name), *map(str, values)] if values else []


def write_spec(path: Path, command: Any, systems: Sequence[SystemSettings] = ()) -> None:
    """Write the options of a command; those left at their default are comments.

    Args:
        path: of the file.
        command: with options.
        systems: structures with settings of their own.
    """
    lines = [
        f"# Options of a command of mlipjax: mlipjax {type(command).__name__.lower()} {path.name}",
        "# What is typed behind the name of this file wins. Files are found from where the command is called.",
    ]
    values = given(command)
    defaults = defaults_of(type(command))
    for known in options_in(type(command)):
        if known.name in (*_OF_COMMANDS, "json", "quiet"):
            continue
        value = values[known.name]
        is_default = known.name in defaults and value == defaults[known.name]
        shown = known.typed.rstrip(" .").split()[-1] if value in (None, ()) else _toml(value)
        lines += ["", *_comment(_meaning(known)), f"{'# ' * is_default}{known.name} = {shown}"]
    lines += ["", "", *_comment("Structures with settings of their own, one table each; several temperatures are as "
                                "many systems.")]  # fmt: skip
    if not systems:
        texts = texts_of(SystemSettings)
        lines += [f"# [[{SYSTEM}]]", *(f"# {name} = ...  # {text.replace('``', '')}" for name, text in texts.items())]
    for system in systems:
        lines += ["", f"[[{SYSTEM}]]"]
        for field in dataclasses.fields(system):
            if (value := getattr(system, field.name)) != field.default:
                lines.append(f"{field.name} = {_toml(value)}")
    write_atomic(path, "\n".join(lines) + "\n")


def _meaning(known: Option) -> str:
    """Meaning of an option, and the words it takes."""
    text, (_, brace, choices) = known.text.replace(" (required)", ""), known.typed.partition("{")
    return f"{text.rstrip('.')}: one of {choices[:-1].replace(',', ', ').replace('  ', ' ')}" if brace else text


def defaults_of(options: Any) -> dict[str, Any]:
    """Defaults by name of the options that have one, those of dataclasses in them included."""
    found: dict[str, Any] = {}
    for field, _ in fields_of(options):
        if field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def _comment(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(str(value), ensure_ascii=False)
