"""Options of ``mlipjax predict``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mlipjax.cli.options.common import Batches, Network, Products, Spreads


@dataclasses.dataclass(frozen=True)
class Predict(Spreads, Batches, Products, Network):
    """Predict energies, forces and stresses of structures; labels are not needed, and not used.

    The file written is extended xyz with energy (eV), forces (eV/Å), energies per atom (eV), stress (eV/Å^3, tension
    positive) where there is a volume, and the model's name: ASE, OVITO and others read it. A file of any size is read
    and written structure by structure.

    Attributes:
        model: name, .nqx or .model file or saved folder; or ase:module:factory.
        data: structures: files of any format that ASE reads (extended xyz, POSCAR, cif, trajectories, ...), slices
            such as FILE@:100, patterns, folders.
        write: file to write (.extxyz, .xyz; also .gz or .xz).
        features: also write the features of every atom, as the column features.
        uncertainty: also write standard deviations, as energy_std (eV) and the columns energies_std and forces_std
            (eV/Å): llpr, shallow, shallow:MEMBERS or committee, of a model that mlipjax calibrate gave error bars.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
    """

    model: str
    data: tuple[Path, ...]
    write: Path | None = None
    features: bool = False
    uncertainty: str | None = None
    dispersion: str | None = None
