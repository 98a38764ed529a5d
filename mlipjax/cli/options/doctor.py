"""Options of ``mlipjax doctor``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Computes, LabelOptions, Sections


@dataclasses.dataclass(frozen=True)
class Doctor(Computes):
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
        head: name of the energy head; by default the model's first.
        dtype: precision of training.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid test replay anchor e0s",
        "labels": f"{LABELS}",
    }

    model: str
    train: tuple[Path, ...]
    valid: tuple[Path, ...] = ()
    test: tuple[Path, ...] = ()
    replay: tuple[Path, ...] = ()
    anchor: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    e0s: str = "model"
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = 8
    max_slots: int | None = None
