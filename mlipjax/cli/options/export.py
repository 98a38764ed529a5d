"""Options of ``mlipjax export``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from mlipjax.cli.options.common import Network, Reports


@dataclasses.dataclass(frozen=True)
class Export(Reports, Network):
    """Write a program that LAMMPS runs on many processes or GPUs by itself, without Python.

    The folder has the program in the format of lammps-jax (pair_style jax/kk), and data and input of LAMMPS for the
    structure. It needs the package lammps-jax here, and a LAMMPS with KOKKOS and its plugin there: docs/engines.md says
    how. Energies are those that atoms have beyond their energies alone.

    Attributes:
        model: name, .nqx or .model file or saved folder.
        structure: any file ASE reads; of several frames the last one. It needs a cell. The program holds it and a
            fifth more.
        out: folder to write.
        processes: of LAMMPS along the three lattice vectors. More are fine, fewer have too many atoms each.
        platform: where the program will run.
    """

    model: str
    structure: Path
    out: Path
    processes: tuple[int, int, int] = (1, 1, 1)
    platform: Literal["cuda", "cpu"] = "cuda"
