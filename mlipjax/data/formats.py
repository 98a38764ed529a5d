"""Which format a file has: by its name where that says it, else by what its beginning holds.

ASE looks at the first 2000 bytes of a file, and only if the ending of its name says nothing: it takes every ``.out``
for one of Quantum ESPRESSO. What a queue writes before a program starts is longer than that.
"""

from __future__ import annotations

import os
from pathlib import Path

from mlipjax.files import PACKED, first_bytes

_HEAD = 1 << 16
# endings under which programs of all kinds write, "" for none
_ANY = frozenset({".out", ".log", ".txt", ".pwo", ".output", ".stdout", ""})
# outputs of programs, as ASE calls them
OUTPUTS = (
    "espresso-out", "aims-output", "orca-output", "gpaw-out", "gaussian-out", "nwchem-out", "onetep-out",
    "gamess-us-out", "abinit-out",
)  # fmt: skip
CP2K_OUTPUT = "cp2k-output"
"""Of this program ASE has no reader; ``cp2k`` is one."""
_CP2K = (b"CP2K|", b"PROGRAM STARTED AT")


def file_format(path: Path) -> str:
    """Return the format of a file as ASE calls it, or ``CP2K_OUTPUT``.

    Raises:
        ase.io.formats.UnknownFileTypeError: if neither name nor content tell a format.
        OSError: if the file cannot be read or unpacked.
    """
    from ase.io.formats import filetype

    if found := output_format(path):
        return found
    # an absolute name: at the start of a relative one ASE looks for the address of a database server
    return filetype(os.path.abspath(path))


def output_format(path: Path) -> str | None:
    """Return the format of a program's output that its beginning tells; ``None`` if it tells none."""
    from ase.io.formats import ioformats

    packed = path.suffix.lower()
    if (path.with_suffix("") if packed in PACKED else path).suffix.lower() not in _ANY:
        return None
    head = first_bytes(path, _HEAD)
    if all(word in head for word in _CP2K):
        return CP2K_OUTPUT
    return next((name for name in OUTPUTS if ioformats[name].match_magic(head)), None)
