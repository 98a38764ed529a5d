"""Options of ``mlipjax calibrate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import tyro

from mlipjax.cli.options.common import LABELS, Batches, Computes, LabelOptions, Network, Products, Sections


@dataclasses.dataclass(frozen=True)
class Calibrate(Computes, Batches, Products, Network):
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
        out: folder for the model and its error bars; by default that of the model.
    """

    sections: ClassVar[Sections] = {
        "main options": "model train valid members out head",
        "labels": LABELS,
    }

    model: str
    valid: tuple[Path, ...]
    train: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    labels: tyro.conf.OmitArgPrefixes[LabelOptions] = dataclasses.field(default_factory=LabelOptions)
    moves: int = 4
    seed: int = 0
    out: Path | None = None
