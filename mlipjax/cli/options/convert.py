"""Options of ``mlipjax convert``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

from mlipjax.cli.options.common import LabelOptions, Reports


@dataclasses.dataclass(frozen=True)
class Convert(Reports):
    """Save a model as a folder with config.json and params.safetensors, which other programs can read.

    With --data, write labelled structures instead, one by one: to extended xyz (--out FILE.extxyz, also .gz or .xz), an
    ASE database (.db) or HDF5 as MACE reads it (.h5); or, without an ending, to a folder of flat arrays: wherever a
    command takes labelled structures it takes this folder, and reads from disk what it needs at the time, for data that
    do not fit into memory. Energies, forces and stresses are written in eV and Å, under ASE's names.

    Attributes:
        out: folder or file to write; it must not hold a model yet, or with --data not exist.
        model: name, .nqx file or saved folder.
        data: labelled structures: files of any format that ASE reads, slices such as FILE@:100, patterns, folders.
        labels: names of the labels in the files.
    """

    out: Path
    model: str | None = None
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
