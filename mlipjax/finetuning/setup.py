"""Fixed parts of a periodic fine-tune: its sizes, its functions, and the numbers that may be traced.

What belongs to one simulated system stands in a record of its own, here and in the state (``SystemState``); a run holds
tuples of them, with one entry or many.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from flax import struct

from mlipjax.dispersion import D3BJ
from mlipjax.finetuning.alarm import AlarmConfig
from mlipjax.graph import GraphBatch, VerletSpec
from mlipjax.losses import Loss
from mlipjax.md.gate import Limits
from mlipjax.optim import Hyper, Optimizer
from mlipjax.optim.lora import Adapters, merge_adapters
from mlipjax.potential import Model, Potential
from mlipjax.settings.periodic import Select
from mlipjax.system import Labels
from mlipjax.typing import Array, Bool, Params


@struct.dataclass
class FrameStack:
    """Frames of equal padded sizes, C of them.

    Attributes:
        graphs: one structure each, with a leading axis C.
        labels: with a leading axis C; energies without isolated-atom energies.
        labelled: (C,) frames to train on.
        batch_size: of them in every optimiser step (static).
    """

    graphs: GraphBatch
    labels: Labels
    labelled: Bool[Array, " C"]
    batch_size: int = struct.field(pytree_node=False)


@dataclasses.dataclass(frozen=True)
class RoundConfig:
    """Static parts of a round that all systems share.

    Attributes:
        train_steps: optimiser steps per round; the optimiser starts anew every round.
        chart_components: principal components of the monitor's charts, 0 for none.
        alarm: whether the charts are read after every chunk, and what an alarm does; ``None`` for no reading.
        select: how the frames that are labelled are chosen.
        estimate_shift: take the difference between the first round's labels and the model's energies off all labels, as
            far as a constant per element explains it: for an oracle whose energies have another zero.
    """

    train_steps: int = 100
    chart_components: int = 0
    alarm: AlarmConfig | None = None
    estimate_shift: bool = False
    select: Select = "interval"

    def __post_init__(self) -> None:
        _check_counts(self, "train_steps")
        if self.chart_components < 0:
            raise ValueError(f"chart_components must be at least 0, found {self.chart_components}")
        if self.alarm is not None and not self.chart_components:
            raise ValueError("alarms need charts: chart_components must be 1 or more, found 0")
        if self.select == "alarm" and self.alarm is None:
            raise ValueError("frames are chosen by alarms of charts that are read: give an AlarmConfig")
        if self.select != "interval" and self.alarm is not None and self.alarm.interrupts:
            raise ValueError(f"found select {self.select!r} with alarms that interrupt a round; choose one of both")


@dataclasses.dataclass(frozen=True)
class SystemSetup:
    """Static sizes of one system.

    Attributes:
        spec: sizes of its neighbour tables.
        composition: (atomic number, number of atoms) of each element.
        labels_per_replica: frames labelled per replica and round.
        chunks_per_frame: chunks of MD between two sampled frames.
        steps_per_chunk: MD steps between two searches for neighbours.
        batch_size: its frames in every optimiser step.
        sample_factor: frames sampled for each that is labelled; 1 where they are not chosen.
    """

    spec: VerletSpec
    composition: tuple[tuple[int, int], ...]
    labels_per_replica: int = 5
    chunks_per_frame: int = 4
    steps_per_chunk: int = 25
    batch_size: int = 5
    sample_factor: int = 1

    def __post_init__(self) -> None:
        sizes = ("labels_per_replica", "chunks_per_frame", "steps_per_chunk", "batch_size", "sample_factor")
        _check_counts(self, *sizes)

    @property
    def frames_per_replica(self) -> int:
        """Frames that are sampled per replica and round."""
        return self.labels_per_replica * self.sample_factor

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return sum(count for _, count in self.composition)


@struct.dataclass
class SystemControls:
    """Numbers of one system that may be traced.

    Attributes:
        ensemble: of its MD, with temperature and time step.
        limits: when a replica is held.
        weight: factor of its labels in the loss.
    """

    ensemble: Any
    limits: Limits
    weight: float | Array = 1.0


@struct.dataclass
class Controls:
    """The numbers of a run that may be traced: swept over by ``vmap``, differentiated by ``grad``.

    Attributes:
        hyper: learning rate, layer decay, loss weights, a pull to earlier parameters.
        systems: numbers of each system.
        given: labelled frames from before, trained on like the systems'.
        replay: frames that are replayed beside them in every step.
        replay_weight: factor of the loss of these.
        age_weight: factor of a system's labels for every round of their age.
    """

    hyper: Hyper
    systems: tuple[SystemControls, ...]
    given: tuple[FrameStack, ...] = ()
    replay: tuple[FrameStack, ...] = ()
    replay_weight: float | Array = 1.0
    age_weight: float | Array = 1.0


@dataclasses.dataclass(frozen=True)
class Setup:
    """Constants of a run: the functions, and their static sizes.

    Attributes:
        potential: the student.
        systems: sizes of each system, at least one.
        config: of a round.
        optimizer, loss: of the training.
        plain: the potential without adapters, which is saved; ``None`` for the student itself.
        adapters: of the student, merged in what is saved.
        dispersion: added in MD; what is trained is without.
    """

    potential: Potential
    systems: tuple[SystemSetup, ...]
    config: RoundConfig
    optimizer: Optimizer
    loss: Loss
    plain: Potential | None = None
    adapters: Adapters | None = None
    dispersion: D3BJ | None = None

    def moving(self, own: SystemSetup) -> Potential:
        """The potential that moves the atoms of a system."""
        if self.dispersion is None:
            return self.potential
        return self.potential.replace(dispersion=self.dispersion.along(own.spec.pbc))

    def model(self, params: Params) -> Model:
        """The model that parameters of a run are: without adapters, which are merged."""
        merged = params if self.adapters is None else merge_adapters(params, self.adapters.scale)
        return Model(self.plain or self.potential, merged)

    @property
    def counts(self) -> np.ndarray:
        """(S, E) atoms of each of the potential's elements in each of S systems."""
        return np.array([[dict(own.composition).get(z, 0) for z in self.potential.species] for own in self.systems])

    @property
    def explained(self) -> np.ndarray:
        """(S, S) projection of energy differences of S systems on what a constant per element can explain.

        Systems of equal composition get their mean: the difference between a solid and its melt is no matter of zeros.
        """
        basis, sizes, _ = np.linalg.svd(self.counts.astype(np.float64), full_matrices=False)
        basis = basis[:, sizes > _RESOLUTION * sizes.max()]
        return basis @ basis.T

    def alone(self, own: SystemSetup) -> Setup:
        """The same run of one system."""
        return dataclasses.replace(self, systems=(own,))

    def with_spec(self, index: int, spec: VerletSpec) -> Setup:
        """The same run with other tables for one system."""
        systems = list(self.systems)
        systems[index] = dataclasses.replace(systems[index], spec=spec)
        return dataclasses.replace(self, systems=tuple(systems))


_RESOLUTION = 1e-3
"""Relative size below which compositions count as dependent (as in ``train.references``)."""


def _check_counts(record: Any, *names: str) -> None:
    for name in names:
        if (value := getattr(record, name)) < 1:
            raise ValueError(f"{name} must be at least 1, found {value}")
