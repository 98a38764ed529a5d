"""What all arms of ``experiments.periodic`` share: start structure, universal model, oracle."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from rich.console import Console

from experiments.lab.paths import ELECTROLYTE
from experiments.periodic.config import Config
from mlipjax import md, tree
from mlipjax.data import read_atoms
from mlipjax.finetuning import Controls
from mlipjax.losses import LossWeights
from mlipjax.models import load
from mlipjax.optim import make_strategy
from mlipjax.oracles import Oracle, make_oracle
from mlipjax.potential import Potential
from mlipjax.system import System
from mlipjax.typing import Params


class Arm(NamedTuple):
    """How labels are collected: replicas side by side, rounds one after the other."""

    name: str
    replicas: int
    rounds: int


class Model(NamedTuple):
    """A potential with its parameters and the number of labels it has seen."""

    potential: Potential
    params: Params
    labels: int


@dataclasses.dataclass
class Experiment:
    """One run of the experiment."""

    config: Config
    console: Console
    system: System
    potential: Potential
    params: Params
    oracle: Oracle

    @classmethod
    def open(cls, config: Config, console: Console) -> Experiment:
        """Load model, oracle and structure."""
        potential, params = load(config.model)
        structure = config.structure or ELECTROLYTE
        system = System.from_ase(read_atoms(structure)[0])
        potential.check_elements(system.atomic_numbers.tolist())
        return cls(config, console, system, potential, tree.cast(params, config.dtype), make_oracle(config.oracle))

    def controls(self) -> Controls:
        """Numbers shared by all arms."""
        c = self.config
        strategy = make_strategy(c.strategy, self.params).override(learning_rate=c.learning_rate)
        return Controls(
            hyper=strategy.hyper(LossWeights()),
            ensemble=md.make_ensemble(c.ensemble, timestep_fs=c.timestep, temperature_K=c.temperature),
            limits=md.default_limits(c.temperature, self.system.n_atoms),
        )
