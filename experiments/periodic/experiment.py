"""What all arms of ``experiments.periodic`` share: start structure, universal model, oracle."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from rich.console import Console

from experiments.lab.paths import ELECTROLYTE
from experiments.periodic.config import Config
from mlipjax import md
from mlipjax.data import read_atoms
from mlipjax.models import load
from mlipjax.notices import notice
from mlipjax.oracles import Oracle, make_oracle
from mlipjax.potential import Model
from mlipjax.settings import PeriodicSettings
from mlipjax.system import System


class Arm(NamedTuple):
    """How labels are collected: replicas side by side, rounds one after the other."""

    name: str
    replicas: int
    rounds: int

    def settings(self, config: Config) -> PeriodicSettings:
        """Settings with the labels and optimiser steps that all arms have."""
        c = config
        return PeriodicSettings(
            rounds=self.rounds,
            labels_per_round=c.rounds * c.labels_per_round // self.rounds,
            steps=c.steps,
            train_steps=c.train_steps * (c.rounds // self.rounds),
            replicas=self.replicas,
            ensemble=c.ensemble,
            temperature=c.temperature,
            timestep=c.timestep,
            strategy=c.strategy,
            learning_rate=c.learning_rate,
            batch_size=c.batch_size,
            e0s="estimate" if c.e0s is None else c.e0s,
            on_alarm=c.on_alarm,
            seed=c.seed,
            dtype=c.dtype,
        )


class Seen(NamedTuple):
    """A model and the number of labels it has seen."""

    model: Model
    labels: int


@dataclasses.dataclass
class Experiment:
    """One run of the experiment."""

    config: Config
    console: Console
    system: System
    model: Model
    oracle: Oracle

    @classmethod
    def open(cls, config: Config, console: Console) -> Experiment:
        """Load model, oracle and structure."""
        model = load(config.model).cast(config.dtype)
        structure = config.structure or ELECTROLYTE
        atoms = read_atoms(structure)[0]
        if atoms.constraints:
            notice(f"{structure}: its constraints are not used, as the oracle's own trajectory has none.")
        system = System.from_ase(atoms)
        model.potential.check_elements(system.atomic_numbers.tolist())
        return cls(config, console, system, model, make_oracle(config.oracle))

    def ensemble(self) -> md.Ensemble:
        """Of all trajectories."""
        c = self.config
        return md.make_ensemble(c.ensemble, timestep_fs=c.timestep, temperature_K=c.temperature)
