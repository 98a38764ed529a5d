"""Options of ``mlipjax calibrate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar, Literal

import tyro

from mlipjax.cli.options.common import LABELS, Computes, LabelOptions, Sections
from mlipjax.defaults import Precision


@dataclasses.dataclass(frozen=True)
class Calibrate(Computes):
    """Give a model error bars, calibrated on structures that it was not trained on, and save them in its folder.

    evaluate and predict then take --uncertainty llpr (the posterior of the last layer, exact), shallow (draws from it,
    cheaper) or committee (this model and --members).

    Attributes:
        model: saved folder; or a name or file, with --out.
        valid: labelled structures that it was not trained on, best of several trajectories: each counts once.
        train: structures that it was trained on, for the posterior of its last layer; their labels are not looked at.
        members: saved models instead, fine-tuned like this one from other seeds: with it they are a committee.
        labels: names of the labels in the files of --valid.
        moves: random moves per training structure that stand for its forces in the posterior; 0 for energies alone.
        seed: of these moves.
        head: name of the energy head; by default the model's first.
        dtype: precision of the network.
        precision: of the network's float32 products on GPUs and TPUs: in full, or faster with "high" (forces err by
            1 meV/Å rms on GPUs, 0.01 on TPUs) or "default" (1 and 6 meV/Å). On CPUs all three are the same.
        batch_size: structures computed together.
        max_slots: padded atoms times neighbour slots computed at once; by default as many as the memory of the device
            holds (65 536 on CPUs); lower it if memory runs out.
        out: folder for the model and its error bars; by default that of the model.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid members out head",
        "labels": f"{LABELS}",
    }

    model: str
    valid: tuple[Path, ...]
    train: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    moves: int = 4
    seed: int = 0
    head: str | None = None
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precision = "highest"
    batch_size: int = 8
    max_slots: int | None = None
    out: Path | None = None
