"""A periodic fine-tune small enough to compile in seconds: two water molecules, a one-layer student and teacher."""

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms

from mlipjax.finetuning import (
    Controls,
    FineTuneState,
    RoundConfig,
    Setup,
    SystemControls,
    SystemSetup,
    SystemStart,
    init,
)
from mlipjax.graph import VerletSpec
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.md.gate import default_limits
from mlipjax.md.make import make_ensemble
from mlipjax.md.start import Start
from mlipjax.models import NequIPConfig, nequip
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.oracles import Teacher
from mlipjax.system import System

CONFIG = RoundConfig(train_steps=3)
SIZES = {"labels_per_replica": 2, "chunks_per_frame": 1, "steps_per_chunk": 3, "batch_size": 2}
CAPACITY = 8


def atoms() -> Atoms:
    water = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    far = [[x, y, z + 2.8] for x, y, z in water]
    structure = Atoms("OH2OH2", positions=water + far, cell=[6, 6.5, 7], pbc=True)
    structure.rattle(0.02, seed=0)
    return structure


def molecule() -> Atoms:
    """A system of another size, composition and periodicity."""
    return Atoms("OH2O", positions=[[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0.1], [1.3, 0.3, 1.0]])


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


def case(config: RoundConfig = CONFIG, n_layers: int = 1, structures=None):
    """Return ``(setup, teacher, params, controls)``; by default of one system."""
    student = potential(n_layers)
    params = student.init(jax.random.key(0), jnp.float64)
    teacher = Teacher(student, student.init(jax.random.key(1), jnp.float64))
    strategy = make_strategy("llrd", params, layer_decay=0.8)
    optimizer = Optimizer(strategy.optimizer_config(config.train_steps))
    structures = [atoms()] if structures is None else structures
    controls = Controls(
        hyper=strategy.hyper(LossWeights()),
        systems=tuple(
            SystemControls(
                ensemble=make_ensemble("nvt", timestep_fs=0.5, temperature_K=300.0),
                limits=default_limits(300.0, len(structure)),
            )
            for structure in structures
        ),
    )
    systems = tuple(sizes(student, structure) for structure in structures)
    return Setup(student, systems, config, optimizer, huber_loss()), teacher, params, controls


def sizes(student, structure: Atoms) -> SystemSetup:
    spec = VerletSpec.for_systems(
        [System.from_ase(structure)], student.cutoff, n_neighbors=12 if all(structure.pbc) else 0
    )
    numbers = structure.numbers.tolist()
    return SystemSetup(spec, tuple((z, numbers.count(z)) for z in sorted(set(numbers))), **SIZES)


def start(
    setup: Setup, params, controls: Controls, seed: int = 3, n_replicas: int = 2, structures=None
) -> FineTuneState:
    starts = [
        SystemStart(Start(System.from_ase(structure)), n_replicas, CAPACITY)
        for structure in ([atoms()] if structures is None else structures)
    ]
    return init(setup, params, starts, controls, jax.random.key(seed))
