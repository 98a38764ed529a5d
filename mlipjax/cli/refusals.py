"""Refusals of the parser of a command line, in one line instead of its box."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from mlipjax.cli.bounds import option
from mlipjax.cli.help import options_in

_NO_NUMBER = re.compile(r"Error parsing (\S+): (invalid|could not convert)[^']*('[^']*')")
_NO_CHOICE = re.compile(r"invalid choice ('[^']*') for argument '([^']*)'\. Expected one of \(([^)]*)\)")
_NO_VALUE = re.compile(r"Missing value for argument '([^']*)'")
_UNEXPECTED = re.compile(r"Unrecognized options: (.+?) (?:─|Perhaps)")
_REST = re.compile(r"─ ([^─]+?) ─ For full helptext")


def refusal(box: str, command: str, words: Sequence[str], options: Any) -> str:
    """Say in one line why the words of a command were refused.

    Args:
        box: what the parser printed.
        command: how it is called.
        words: of its command line.
        options: dataclass of its options.
    """
    # lines of the box, which are hyphens where the terminal has no others
    text = " ".join(re.sub("─+|-{5,}", " ─ ", re.sub("[│╭╮╰╯|]", " ", box)).split())
    known = list(options_in(options))
    if found := _NO_NUMBER.search(text):
        return f"{found[1]} must be a {'whole number' if found[2] == 'invalid' else 'number'}, found {found[3]}."
    spelt = {spelling for one in known for spelling in (option(one.name), *re.findall(r"--[\w-]+", one.typed))}
    typed = [word.partition("=")[0] for word in words if word.startswith("--")]
    if strange := [word for word in typed if word.replace("_", "-").replace("--no-", "--") not in spelt]:
        if strange[0] == "--distributed":
            return f"{command} runs in one process: --distributed is for evaluate, finetune, predict and simulate."
        close = difflib.get_close_matches(strange[0], spelt, n=2, cutoff=0.6)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        return f"{strange[0]} is no option of {command}{hint} {command} --help-all explains all of them."
    if found := _NO_CHOICE.search(text):
        # the parser has them in another order every time
        choices = sorted(set(re.findall(r"[^\s',()]+", found[3])) - {"None"})
        return f"{found[2]} must be one of {', '.join(choices)}; found {found[1]}."
    if found := _NO_VALUE.search(text):
        return f"{found[1]} is given without a value."
    needed = [option(one.name) for one in known if one.text.endswith("(required)")]
    if missing := [name for name in needed if name not in {word.replace("_", "-") for word in typed}]:
        return f"{command} needs {' and '.join(missing)}; {command} --help says what they are."
    if found := _UNEXPECTED.search(text):
        return f"{found[1]!r} belongs to no option of {command}: each begins with its name (--model NAME)."
    return f"{(_REST.search(text) or [text, text])[1]} ({command} --help)."
