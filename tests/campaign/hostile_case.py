"""Parts of a campaign: kinds of file, and hostile inputs of each kind."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CUTOFF = 6.0
"""Å; what is accepted must have neighbours within it that fit into memory."""


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        path: file or folder; ``None`` if the input is the command line itself.
        what: how it was spoilt.
        refuse: whether nothing but a refusal is right.
        accept: whether nothing but acceptance is right.
        arguments: the command line that is run after the reader, if any.
    """

    path: Path | None
    what: str
    refuse: bool = False
    accept: bool = False
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: of the kind.
        make: writes one hostile input into an empty folder; given a generator, that folder, that of the good files.
        read: what the library does with it; raises where the content is refused or, as ``AssertionError``, where what
            was accepted makes no sense. Given the input and the folder of good files.
        every: one in so many of the inputs that the reader accepts also goes through the command, which takes seconds.
    """

    name: str
    make: Callable[[np.random.Generator, Path, Path], Case]
    read: Callable[[Path, Path], None] | None = None
    every: int = 1


def check_neighbours(system: Any) -> None:
    """A structure that was accepted has neighbours that can be computed with.

    Atoms that coincide are not the reader's business (a probe may look for them): models and commands refuse them.
    """
    from mlipjax.graph import CoincidingAtoms, neighbor_table

    with contextlib.suppress(CoincidingAtoms):
        neighbor_table(system, CUTOFF)
