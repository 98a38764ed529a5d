"""Options of ``mlipjax evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import tyro

from mlipjax.cli.options.common import LABELS, Batches, LabelOptions, Network, Products, Sections, Spreads


@dataclasses.dataclass(frozen=True)
class Evaluate(Spreads, Batches, Products, Network):
    """Compare a model's energies, forces and stresses with labels.

    Attributes:
        model: name, .nqx file or saved folder; ase:module:factory for a foreign calculator.
        data: labelled structures: files of any format that ASE reads (extended xyz, ASE database, OUTCAR, vasprun.xml,
            ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data.
        labels: names of the labels in the files.
        property: structures and a number for each instead, as FILE:KEY, for a model that predicts it.
        uncertainty: also compare error bars with errors: llpr, shallow, shallow:MEMBERS or committee, of a model that
            mlipjax calibrate gave error bars.
        monitor: a monitor.npz of the model, whose indices are then compared with the error bars.
        dispersion: added to the model, as d3bj:FUNCTIONAL; refused where its labels contain it already.
        write: also write every structure with labels, predictions and errors to this file (extended xyz).
        out: also write report.html with parity plots, and results.json, to this folder.
    """

    sections: ClassVar[Sections] = {
        "main options": "model data property head uncertainty monitor write out",
        "labels": LABELS,
    }

    model: str
    data: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    property: str | None = None
    uncertainty: str | None = None
    monitor: Path | None = None
    dispersion: str | None = None
    write: Path | None = None
    out: Path | None = None
