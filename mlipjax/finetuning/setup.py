"""Fixed parts of a periodic fine-tune: its sizes, its functions, and the numbers that may be traced."""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import struct

from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.graph import VerletSpec
from mlipjax.losses import Loss
from mlipjax.md.gate import Limits
from mlipjax.optim import Hyper, Optimizer
from mlipjax.potential import Potential


@dataclasses.dataclass(frozen=True)
class RoundConfig:
    """Static sizes of a round.

    Attributes:
        labels_per_replica: frames labelled per replica and round.
        chunks_per_label: chunks of MD between two labelled frames.
        steps_per_chunk: MD steps between two searches for neighbours.
        train_steps: optimiser steps per round; the optimiser starts anew every round.
        batch_size: frames per optimiser step.
        chart_components: principal components of the monitor's charts, 0 for none.
        alarm: whether the charts are read after every chunk, and what an alarm does; ``None`` for no reading.
        estimate_shift: take the mean difference between the first round's labels and the model's energies off all
            labels: for an oracle whose energies have another zero.
    """

    labels_per_replica: int = 5
    chunks_per_label: int = 4
    steps_per_chunk: int = 25
    train_steps: int = 100
    batch_size: int = 5
    chart_components: int = 0
    alarm: AlarmConfig | None = None
    estimate_shift: bool = False

    def __post_init__(self) -> None:
        for name in ("labels_per_replica", "chunks_per_label", "steps_per_chunk", "train_steps", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, found {value}")
        if self.chart_components < 0:
            raise ValueError(f"chart_components must be at least 0, found {self.chart_components}")
        if self.alarm is not None and not self.chart_components:
            raise ValueError("alarms need charts: chart_components must be 1 or more, found 0")


@struct.dataclass
class Controls:
    """The numbers of a run that may be traced: swept over by ``vmap``, differentiated by ``grad``.

    Attributes:
        hyper: learning rate, layer decay, loss weights.
        ensemble: of the MD, with its temperature and time step.
        limits: when a replica is held.
    """

    hyper: Hyper
    ensemble: Any
    limits: Limits


@dataclasses.dataclass(frozen=True)
class Setup:
    """Constants of a run: the functions, and their static sizes.

    Attributes:
        potential: the student.
        spec: sizes of the neighbour tables.
        config: sizes of a round.
        optimizer, loss: of the training.
    """

    potential: Potential
    spec: VerletSpec
    config: RoundConfig
    optimizer: Optimizer
    loss: Loss
