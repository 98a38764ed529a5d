"""Settings of a periodic fine-tune, as one typed record: the command line's options and the Python call's arguments."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal, get_args

import tyro

from mlipjax.defaults import ATMOSPHERE_BAR, Precision


@dataclasses.dataclass(frozen=True)
class PeriodicSettings:
    """Everything that decides the numbers of a periodic fine-tune besides model, structure and oracle.

    A round is: MD by the model, labels for frames along it, a fine-tune on all labels so far.

    Attributes:
        rounds: rounds; every round's model drives the next one.
        labels_per_round: frames labelled in each, over all replicas.
        steps: MD steps between two labels.
        train_steps: optimiser steps of the fine-tune at the end of a round.
        replicas: trajectories side by side, with velocities and noise of their own.
        ensemble: constant energy, temperature, or temperature and isotropic pressure.
        temperature: K; for nve that of the first velocities.
        pressure: bar, for npt.
        timestep: fs; by default 0.5 with hydrogen, 1 with other light atoms, 2 otherwise.
        strategy: what is trained and how fast.
        learning_rate: peak learning rate; by default the strategy's; for the small embedded model 1e-3 is better.
        batch_size: frames per optimiser step.
        e0s: "estimate" takes the mean difference to the first labels off all energies, whatever zero the oracle has;
            "model" keeps the model's zero, for an oracle that shares it.
        on_alarm: read the charts of the labelled frames after every few steps of MD, and on an alarm: "ignore" (count
            it), "stop" (save the frame), "label" it at once and train, or "rollback" (label, train, and return to the
            last state in control). The last two end a round early, with fewer labels. "off" reads none.
        seed: of velocities, noise and the order of frames.
        dtype: precision of MD and training.
        precision: of the network's float32 products on GPUs and TPUs: in full, or faster with "high" (forces err by
            1 meV/Å rms on GPUs, 0.01 on TPUs) or "default" (1 and 6 meV/Å). On CPUs all three are the same.
    """

    rounds: int = 5
    labels_per_round: int = 5
    steps: int = 100
    train_steps: int = 100
    replicas: int = 1
    ensemble: Literal["nvt", "npt", "nve"] = "nvt"
    temperature: float = 300.0
    pressure: float = ATMOSPHERE_BAR
    timestep: float | None = None
    strategy: Literal["naive", "freeze", "llrd"] = "naive"
    learning_rate: Annotated[float | None, tyro.conf.arg(aliases=("--lr",))] = None
    batch_size: int = 5
    e0s: Literal["model", "estimate"] = "estimate"
    on_alarm: Literal["off", "ignore", "stop", "label", "rollback"] = "off"
    seed: int = 0
    dtype: Literal["float32", "float64"] = "float32"
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        for name in ("rounds", "labels_per_round", "steps", "train_steps", "replicas", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, found {value}.")
        for name in ("temperature", "timestep", "learning_rate"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < float("inf"):
                raise ValueError(f"{name} must be positive, found {value}.")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(allowed)}.")


_CHOICES = {
    "ensemble": ("nvt", "npt", "nve"),
    "strategy": ("naive", "freeze", "llrd"),
    "e0s": ("model", "estimate"),
    "on_alarm": ("off", "ignore", "stop", "label", "rollback"),
    "dtype": ("float32", "float64"),
    "precision": get_args(Precision),
}
