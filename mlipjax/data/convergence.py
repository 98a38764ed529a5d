"""Which structures of a calculation's output carry labels of electrons that did not converge.

ASE's readers do not say it; the files do. Where a program is not known, or the file does not say it, nothing is.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_OPENERS: dict[str, Any] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_NUMBER = r"\s*([-+.\dEe]+)\s*"
# lines of a text output that end the electronic steps of one structure: converged, and not
_ENDINGS = (
    (b"Program PWSCF", b"convergence has been achieved", b"convergence NOT achieved"),
    (b"CP2K", b"*** SCF run converged", b"*** SCF run NOT converged"),
)


def unconverged(path: Path) -> frozenset[int]:
    """Return the numbers of the structures of a file whose electronic steps did not converge."""
    name = path.name.lower()
    try:
        with _OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
            if "outcar" in name:
                return frozenset(_outcar(file))
            if "vasprun" in name and ".xml" in name:
                return frozenset(_vasprun(file))
            if path.suffix.lower() in (".out", ".pwo", ".log"):
                return frozenset(_output(file))
    except (OSError, EOFError, lzma.LZMAError):  # the reader of structures says what is wrong with the file
        return frozenset()
    return frozenset()


def _outcar(lines: Iterable[bytes]) -> Iterator[int]:
    """An ionic step has converged if it says that EDIFF was reached before it gives its energies."""
    index, reached = 0, False
    for line in lines:
        if b"aborting loop because EDIFF is reached" in line:
            reached = True
        elif b"FREE ENERGIE OF THE ION-ELECTRON SYSTEM" in line:
            if not reached:
                yield index
            index, reached = index + 1, False


def _vasprun(lines: Iterable[bytes]) -> Iterator[int]:
    """An ionic step that took NELM electronic ones has converged only if the last one changed less than EDIFF."""
    settings: dict[str, float] = {}
    index, energies, in_step = 0, [], False
    for line in lines:
        text = line.decode("latin-1")
        for name in ("NELM", "EDIFF"):
            if name not in settings and (found := re.search(rf'name="{name}"\s*>{_NUMBER}<', text)):
                settings[name] = float(found.group(1))
        if "<calculation" in text:
            energies, in_step = [], False
        elif "<scstep" in text:
            in_step = True
            energies.append(float("nan"))
        elif "</scstep" in text:
            in_step = False
        elif in_step and (found := re.search(rf'name="e_fr_energy"\s*>{_NUMBER}<', text)):
            energies[-1] = float(found.group(1))
        elif "</calculation" in text:
            if _exhausted(energies, settings):
                yield index
            index += 1


def _exhausted(energies: list[float], settings: dict[str, float]) -> bool:
    if not len(energies) >= settings.get("NELM", float("inf")):
        return False
    return len(energies) < 2 or not abs(energies[-1] - energies[-2]) <= settings.get("EDIFF", 1e-4)


def _output(lines: Iterable[bytes]) -> Iterator[int]:
    """Structures end in the order of these lines; one that a program gives up on has no energy that ASE would read."""
    known = None
    index = 0
    for line in lines:
        if known is None:
            known = next((ending for ending in _ENDINGS if ending[0] in line), None)
        elif known[2] in line:
            yield index
            index += 1
        elif known[1] in line:
            index += 1


__all__ = ["unconverged"]
