"""Options of ``mlipjax doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import tyro

from mlipjax.cli.options.common import LABELS, Batches, Computes, LabelOptions, Network, Sections


@dataclasses.dataclass(frozen=True)
class Doctor(Computes, Batches, Network):
    """Check whether fine-tuning a model on labelled structures makes sense; fatal findings exit non-zero.

    Attributes:
        model: name, .nqx file or saved folder to start from.
        train: labelled structures to train on: files of any format that ASE reads (extended xyz, ASE database, OUTCAR,
            vasprun.xml, ...), slices such as FILE@:100, patterns, folders, or a folder of mlipjax convert --data.
        valid: labelled structures for validation, if there are any; likewise.
        test: labelled structures for testing, if there are any.
        replay: structures to replay with labels of the model's own level of theory, if there are any.
        anchor: structures of the model's own level to measure the retained error on, if there are any.
        labels: names of the labels in the files.
        e0s: isolated-atom energies: a JSON file, "estimate" (least squares against the model), "isolated" (of the
            isolated atoms in the training set) or "model" (as is).
        dtype: precision of training.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid test replay anchor e0s",
        "labels": LABELS,
    }

    model: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    replay: tuple[Path, ...] = ()
    anchor: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    e0s: str = "model"
