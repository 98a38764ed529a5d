"""Notices for the user although nothing is wrong: one line, said once.

A notice is a Python warning of its own category: a library's caller may filter it, record it in a test, or turn it into
an error; the command line prints it as one line on stderr.
"""

from __future__ import annotations

import warnings
from typing import Any


class Notice(UserWarning):
    """Something in the input that is honoured in part, ignored, or chosen among several."""


def notice(text: str, *, depth: int = 1) -> None:
    """Say ``text`` once per place and text.

    Args:
        text: one sentence that names what was found, what is done about it, and the option that changes that.
        depth: frames above the caller that the notice is about.
    """
    warnings.warn(text, Notice, stacklevel=depth + 2)


def say_unused(why: str, **settings: tuple[Any, Any]) -> None:
    """Say of each setting (its value, its usual one) that it decides nothing, unless it is the usual one."""
    for name, (value, usual) in settings.items():
        if value != usual:
            notice(f"{name}={value} is not used: {why}.", depth=2)
