"""Pieces of a round as compiled programs, one for equal constants."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax


def compiled(function: Callable[..., Any], *constants: Any, **static: Any) -> Callable[..., Any]:
    """A piece, compiled once per equal constants, also when a run is taken up again in the same process."""
    return functools.partial(run_piece, function, constants, tuple(sorted(static.items())))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def run_piece(
    function: Callable[..., Any], constants: tuple[Any, ...], static: tuple[tuple[str, Any], ...], *arguments: Any
) -> Any:
    """Call ``function(*constants, *arguments, **static)``."""
    return function(*constants, *arguments, **dict(static))
