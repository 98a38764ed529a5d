"""Blocks of the documentation that are written from the code itself."""

from __future__ import annotations

from html import escape
from typing import Any

from mlipjax.cli.help import help_text
from mlipjax.cli.main import options_of


def command_help(source: str, *_: Any, **__: Any) -> str:
    """The help of the command that a block names, with all its options; a fence of ``pymdownx.superfences``."""
    name = source.strip()
    text = help_text(f"mlipjax {name}", options_of(name), everything=True, width=88)
    return f"<pre><code>{escape(text)}</code></pre>"
