"""Structures of a calculation's output whose electrons did not converge.

ASE's readers do not say it; the files do. Where a program is not known, or the file does not say it, nothing is.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mlipjax.files import PACKED

_VASPRUN = re.compile(r"""(</?calculation|</?scstep)\b|name="(NELM|EDIFF|e_fr_energy)"\s*>\s*([^<\s]+)""")
# lines of a text output that end the electronic steps of one structure: converged, and not
_ENDINGS = (
    (b"Program PWSCF", b"convergence has been achieved", b"convergence NOT achieved"),
    (b"CP2K", b"*** SCF run converged", b"*** SCF run NOT converged"),
)


def unconverged(path: Path) -> frozenset[int]:
    """Return the numbers of the structures of a file whose electronic steps did not converge."""
    name = path.name.lower()
    try:
        with PACKED.get(path.suffix.lower(), open)(path, "rb") as file:
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
        for token in _VASPRUN.finditer(line.decode("latin-1")):
            tag, name, value = token.groups()
            if tag == "<calculation":
                energies, in_step = [], False
            elif tag == "<scstep":
                energies, in_step = [*energies, float("nan")], True
            elif tag == "</scstep":
                in_step = False
            elif tag == "</calculation":
                if _exhausted(energies, settings):
                    yield index
                index += 1
            elif name == "e_fr_energy":
                energies[-1:] = [_number(value)] if in_step else energies[-1:]
            else:
                settings.setdefault(name, _number(value))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # VASP prints stars for what does not fit
        return float("nan")


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
