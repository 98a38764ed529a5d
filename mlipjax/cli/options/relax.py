"""Options of ``mlipjax relax``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from mlipjax.cli.options.common import Computes


@dataclasses.dataclass(frozen=True)
class Relax(Computes):
    """Relax structures: positions, and with --cell the cell too.

    Structures of the same atoms are relaxed side by side. Fixed atoms (FixAtoms; move_mask in extended xyz) stay where
    they are. What has not converged after --steps is said, and the exit code is 0 all the same.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        structure: files of any format that ASE reads (POSCAR, cif, extended xyz, ...), slices such as FILE@:100,
            patterns, folders; every structure in them is relaxed.
        cell: what relaxes besides positions: nothing (none), the volume at fixed shape (volume), or lengths and angles
            (full).
        pressure: GPa on the outside; needs --cell volume or full.
        fmax: eV/Å, largest force at which a structure is converged; of a cell, the stress left over times volume
            over the number of atoms.
        steps: evaluations at most.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
        write: write the relaxed structures with energy, forces and stress to this file (extended xyz).
        out: or to this folder, as relaxed.extxyz, with every structure on the way as path.extxyz and results.json.
    """

    model: str
    structure: tuple[Path, ...]
    cell: Literal["none", "volume", "full"] = "none"
    pressure: float = 0.0
    fmax: float = 0.01
    steps: int = 500
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float64"
    dispersion: str | None = None
    write: Path | None = None
    out: Path | None = None
