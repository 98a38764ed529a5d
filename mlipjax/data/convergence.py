"""Structures of a calculation's output whose electrons did not converge.

ASE's readers do not say it; the files do. Where a program is not known, or the file does not say it, nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mlipjax.data.cp2k import unconverged_in_cp2k
from mlipjax.data.formats import CP2K_OUTPUT, output_format
from mlipjax.files import PACKED, UNREADABLE


class _Output(NamedTuple):
    """How a program's text output is divided into structures, as ASE's reader divides it.

    Attributes:
        begins: words in a line at which the next structure begins.
        first: whether one begins with the file.
        results: words without which ASE leaves a structure out; none if it reads every one.
        failed: words of electronic steps that did not converge, in small letters.
    """

    begins: tuple[bytes, ...]
    first: bool
    results: tuple[bytes, ...]
    failed: tuple[bytes, ...]


_VASPRUN = re.compile(r"""(</?calculation|</?scstep)\b|name="(NELM|EDIFF|e_fr_energy)"\s*>\s*([^<\s]+)""")
_OUTPUTS = {
    "espresso-out": _Output(
        (b"Program PWSCF", b"ATOMIC_POSITIONS"),
        False,
        (b"!    total energy", b"Forces acting on atoms", b"total   stress", b"End of self-consistent calculation"),
        (b"convergence not achieved",),
    ),
    "orca-output": _Output(
        (b"ORCA GEOMETRY RELAXATION STEP", b"ORCA TERMINATED NORMALLY"),
        True,
        (),
        (b"scf not converged after", b"wavefunction not fully converged"),
    ),
    "gpaw-out": _Output((b"ositions:\n",), False, (), (b"did not converge!",)),
}
_AIMS_FAILED = (b"self-consistency cycle did not converge",)
# FHI-aims' structures end at the one of these lines where it relaxes them, at the other in all other runs
_AIMS_RELAXED, _AIMS_NEXT = b"Attempting to predict improved coordinates", b"loop: Re-initialization"


def unconverged(path: Path) -> frozenset[int]:
    """Return the numbers of the structures of a file whose electronic steps did not converge."""
    name = path.name.lower()
    try:
        with PACKED.get(path.suffix.lower(), open)(path, "rb") as file:
            if "outcar" in name:
                return frozenset(_outcar(file))
            if "vasprun" in name and ".xml" in name:
                return frozenset(_vasprun(file))
            if (kind := output_format(path)) == "aims-output":
                lines = list(file)
                ends = _AIMS_RELAXED if any(_AIMS_RELAXED in line for line in lines) else _AIMS_NEXT
                return frozenset(_output(lines, _Output((ends,), True, (), _AIMS_FAILED)))
            if kind == CP2K_OUTPUT:
                return frozenset(unconverged_in_cp2k(path))
            if kind in _OUTPUTS:
                return frozenset(_output(file, _OUTPUTS[kind]))
    except (*UNREADABLE, ValueError):  # the reader of structures says what is wrong
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


def _output(lines: Iterable[bytes], output: _Output) -> Iterator[int]:
    index, failed, counts = (0 if output.first else -1), False, not output.results
    for line in lines:
        if any(word in line for word in output.begins):
            index += bool(counts or index < 0)
            failed, counts = False, not output.results
            continue
        failed = failed or any(word in line.lower() for word in output.failed)
        counts = counts or any(word in line for word in output.results)
        if failed and counts and index >= 0:
            yield index
