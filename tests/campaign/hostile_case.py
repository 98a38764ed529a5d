"""What a campaign is made of: kinds of file, and hostile inputs of each kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np


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
