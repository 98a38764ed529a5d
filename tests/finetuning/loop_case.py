"""A periodic fine-tune small enough to compile in seconds: two water molecules, a one-layer student and teacher."""

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from mlipjax.finetuning import Controls, FineTuneState, RoundConfig, Setup, init
from mlipjax.graph import VerletSpec
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.md.gate import default_limits
from mlipjax.md.make import make_ensemble
from mlipjax.md.start import Start
from mlipjax.models import NequIPConfig, nequip
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.oracles import Teacher
from mlipjax.system import System

CONFIG = RoundConfig(labels_per_replica=2, chunks_per_label=1, steps_per_chunk=3, train_steps=3, batch_size=2)
CAPACITY = 8


def atoms() -> Atoms:
    water = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    far = [[x, y, z + 2.8] for x, y, z in water]
    structure = Atoms("OH2OH2", positions=water + far, cell=[6, 6.5, 7], pbc=True)
    structure.rattle(0.02, seed=0)
    return structure


def potential(n_layers: int = 1):
    return nequip(
        NequIPConfig(
            species=(1, 8),
            hidden_irreps="4x0e + 2x1o",
            lmax=1,
            n_layers=n_layers,
            cutoff=3.0,
            radial_hidden=(8,),
            avg_n_neighbors=3.0,
            scale=0.1,
        ),
        np.array([-13.6, -432.0]),
    )


def case(config: RoundConfig = CONFIG, n_layers: int = 1):
    """Return ``(setup, teacher, params, controls)``."""
    student = potential(n_layers)
    params = student.init(jax.random.key(0), jnp.float64)
    teacher = Teacher(student, student.init(jax.random.key(1), jnp.float64))
    strategy = make_strategy("llrd", params, layer_decay=0.8)
    optimizer = Optimizer(strategy.optimizer_config(config.train_steps))
    spec = VerletSpec.for_systems([System.from_ase(atoms())], student.cutoff, n_neighbors=12)
    controls = Controls(
        hyper=strategy.hyper(LossWeights()),
        ensemble=make_ensemble("nvt", timestep_fs=0.5, temperature_K=300.0),
        limits=default_limits(300.0, 6),
    )
    return Setup(student, spec, config, optimizer, huber_loss()), teacher, params, controls


def start(setup: Setup, params, controls: Controls, seed: int = 3, n_replicas: int = 2) -> FineTuneState:
    begin = Start(System.from_ase(atoms()))
    return init(setup, params, begin, controls, jax.random.key(seed), n_replicas=n_replicas, capacity=CAPACITY)
