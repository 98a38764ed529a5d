"""The command line."""

from mlipjax.cli.main import main

__all__ = ["main"]
