"""The words of a command in messages of the library: ``e0s="estimate"`` becomes ``--e0s estimate``.

The library names its settings as Python arguments; a command has an option for each of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console

from mlipjax.cli.bounds import option
from mlipjax.cli.call import fields_of
from mlipjax.cli.options.training import Finetune

# name="value", name=("one", "two"), name=0.2; or a name alone in parentheses
_GIVEN = re.compile(r"""\b([a-z][a-z0-9_]*)=(\([^()]*\)|"[^"]*"|'[^']*'|[\w.+-]*[\w])""")
_ALONE = re.compile(r"\(([a-z][a-z0-9_]*)\)")
# in a sentence only names with an underscore, which no plain word has, and no part of a path
_NAME = re.compile(r"(?<![\w/.'\"-])([a-z][a-z0-9]*_[a-z0-9_]+)(?![\w/'\"-]|\.\w)")


def in_options(text: str, options: Any) -> str:
    """Return a message in which settings are named as options of a command.

    Args:
        text: message of the library.
        options: dataclass whose fields are options, also those of dataclasses in it.
    """
    names = {field.name for field, _ in fields_of(options)}

    def given(match: re.Match[str]) -> str:
        if match[1] not in names:
            return match[0]
        words = re.findall(r"[^\s,()\"']+", match[2])
        return option(match[1]) if words == ["True"] else " ".join([option(match[1]), *words])

    def alone(match: re.Match[str]) -> str:
        return match[0].replace(match[1], option(match[1])) if match[1] in names else match[0]

    return _NAME.sub(alone, _ALONE.sub(alone, _GIVEN.sub(given, text)))


def print_findings(console: Console, findings: Iterable[Any]) -> None:
    """Print what the doctor found, a line each, in the words of ``mlipjax finetune``."""
    for finding in findings:
        console.print(in_options(f"{finding.severity}: {finding}", Finetune))
