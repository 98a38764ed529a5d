"""Measurements of one child process of ``experiments.benchmark``: ``python -m experiments.benchmark.cases TASK ...``.

Prints one line of JSON. Every case warms up once (that is ``first``: compilation included) and is then timed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import mlipjax
from experiments.benchmark.peers.timing import measure, moving
from mlipjax import md
from mlipjax.data import read_atoms
from mlipjax.graph import batch_graphs
from mlipjax.losses import LossWeights, mse_loss
from mlipjax.md.schedule import default_chunk_steps
from mlipjax.optim import Optimizer, make_strategy
from mlipjax.train import TrainState, make_batch, train_step


def main() -> None:
    """Run the case named by the arguments: TASK MODEL STRUCTURE ROUNDS."""
    task, model, structure, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    cases: dict[str, Any] = {
        "calculator": calculator,
        "force": force,
        "force_md": force_with_md_table,
        "gradient": gradient,
        "step": step,
    }
    if task not in cases:
        result = molecular_dynamics(model, structure, rounds, int(task.removeprefix("md")))
    else:
        result = measure(cases[task](model, structure), rounds)
    print(json.dumps(result))


def calculator(model: str, structure: str) -> Callable[[], Any]:
    """Energy, forces and stress through the ASE calculator, float32; the neighbour list is part of it."""
    atoms = read_atoms(structure)[0]
    atoms.calc = mlipjax.Calculator(*mlipjax.load(model), dtype="float32")
    return moving(atoms, atoms.get_potential_energy)


def force(model: str, structure: str, slots: Callable[..., int] | None = None) -> Callable[[], Any]:
    """The compiled program alone: energy, forces and stress of the first frame."""
    potential, params, graph = _prepared(model, structure, slots)
    apply = jax.jit(potential.apply)
    return lambda: jax.block_until_ready(apply(params, graph))


def force_with_md_table(model: str, structure: str) -> Callable[[], Any]:
    """As ``force``, with as many neighbour slots as MD reserves for what thermal motion brings in."""
    return force(model, structure, lambda system, cutoff: md.VerletSpec.for_systems([system], cutoff).n_neighbors)


def gradient(model: str, structure: str) -> Callable[[], Any]:
    """Gradient of an energy, force and stress loss with respect to all parameters, the first frame."""
    potential, params, graph = _prepared(model, structure)

    @jax.jit
    def run(params: Any) -> Any:
        def loss(params: Any) -> jax.Array:
            p = potential.apply(params, graph)
            return jnp.sum(p.energy**2) + jnp.sum(p.forces**2) + jnp.sum(p.stress**2)

        return jax.grad(loss)(params)

    return lambda: jax.block_until_ready(run(params))


def step(model: str, structure: str) -> Callable[[], Any]:
    """One step of the trainer on all frames of a file: loss, gradient, clip, Adam, average."""
    potential, params = mlipjax.load(model)
    systems = [mlipjax.System.from_ase(atoms) for atoms in read_atoms(structure)]
    # any labels cost the same
    labels = [mlipjax.Labels.create(s.n_atoms, 0.0, np.zeros((s.n_atoms, 3)), np.zeros((3, 3))) for s in systems]
    batch = jax.tree.map(jnp.asarray, make_batch(potential, systems, labels))
    strategy = make_strategy("naive", params)
    optimizer = Optimizer(strategy.optimizer_config(100))
    hyper = strategy.hyper(LossWeights())
    run = jax.jit(train_step(potential, optimizer, mse_loss()))
    state = TrainState.create(params, optimizer, jax.random.key(0))

    def advance() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(run(state, batch, hyper))

    return advance


def molecular_dynamics(model: str, structure: str, rounds: int, n_replicas: int) -> dict[str, Any]:
    """Langevin dynamics in chunks of the default length; times are per step and replica, searches included."""
    atoms = read_atoms(structure)[0]
    system = mlipjax.System.from_ase(atoms)
    potential, params = loaded = mlipjax.load(model)
    ensemble = md.make_ensemble("nvt", timestep_fs=0.5, temperature_K=300.0)
    limits = md.default_limits(300.0, len(atoms))
    spec = md.VerletSpec.for_systems([system], potential.cutoff)
    state = md.init(loaded, spec, md.Start(system), ensemble, jax.random.key(0), n_replicas)
    steps = default_chunk_steps(atoms.numbers, 300.0, 0.5, spec.skin)
    advance = jax.jit(md.chunk(potential, spec, steps))
    find = jax.jit(md.rebuild, static_argnums=0)

    def run() -> None:
        nonlocal state
        state, info = jax.block_until_ready(advance(params, find(spec, state), ensemble, limits))
        if not bool(np.all(info.valid & info.good)):
            raise RuntimeError("the simulation left its tables or limits; its time means nothing")

    result = measure(run, rounds)
    per_step = 1.0 / (steps * n_replicas)
    return {**result, "wall": [t * per_step for t in result["wall"]], "cpu": [t * per_step for t in result["cpu"]]}


def _prepared(model: str, structure: str, slots: Callable[..., int] | None = None) -> tuple[Any, Any, Any]:
    """Potential, parameters, and the graph of the first frame with as many slots as it needs, or ``slots`` gives."""
    system = mlipjax.System.from_ase(read_atoms(structure)[0])
    potential, params = mlipjax.load(model)
    width: dict[str, Any] = (
        {} if slots is None else {"n_atoms": system.n_atoms, "n_neighbors": slots(system, potential.cutoff)}
    )
    return potential, params, jax.tree.map(jnp.asarray, batch_graphs([system], potential.cutoff, **width))


def _frames(structure: str) -> list[Any]:

    return read_atoms(structure)


if __name__ == "__main__":
    main()
