"""Programs that the package compiles, with small arguments in float32: traced, to be lowered for any platform."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ase.build import bulk
from tiny_mace import TINY
from tiny_nequip import SMALL, graph_of, molecule, random_params, skewed_crystal

import mlipjax.md as md
from mlipjax.hessian import second_derivatives
from mlipjax.losses import LossWeights, huber_loss
from mlipjax.md.advance import run_chunk
from mlipjax.models import mace, nequip
from mlipjax.monitoring import MonitorState, fit_charts, read_graph
from mlipjax.nn.readouts import PropertyHead
from mlipjax.optim import Hyper, Optimizer, make_strategy
from mlipjax.oracles import StillingerWeber
from mlipjax.potential import apply, property_values
from mlipjax.relaxation import batch as relaxation
from mlipjax.relaxation.cell import coordinates
from mlipjax.relaxation.run import start, step
from mlipjax.system import System
from mlipjax.train import Batch, TrainState, train_step

F32 = np.float32


@functools.cache
def model():
    """NequIP with a scalar and a vector head, and its parameters."""
    heads = PropertyHead("gap", hidden=(4,)), PropertyHead("noise", "vector", hidden=(4,))
    potential = nequip(SMALL).replace(properties=heads)
    return potential, random_params(potential, dtype=F32)


def graph():
    return graph_of(skewed_crystal(), molecule(), dtype=F32)


def forces(potential=None):
    own, params = model()
    return apply.trace(potential or own, params, graph())


def forces_of_mace():
    potential = mace(TINY)
    return apply.trace(potential, random_params(potential, dtype=F32), graph())


def properties():
    return property_values.trace(*model(), graph())


def training_step(name, **options):
    potential, params = model()
    potential = potential.replace(properties=())
    params = {name: group for name, group in params.items() if not name.startswith("property_")}
    strategy = make_strategy(name, params, **options)
    potential, params = strategy.attach(potential, params, jax.random.key(0))
    optimizer = Optimizer(strategy.optimizer_config(10))
    state = jax.eval_shape(lambda: TrainState.create(params, optimizer, jax.random.key(0)))
    labels = jax.eval_shape(lambda graph: StillingerWeber().label_graph(graph), graph())
    hyper = Hyper(F32(1e-3), F32(1.0), np.ones(len(strategy.rules), F32), LossWeights())
    return jax.jit(train_step(potential, optimizer, huber_loss())).trace(state, Batch(graph(), labels), hyper)


def dynamics(ensemble, n_replicas=2):
    """A chunk of two steps, and the search before it."""
    potential, params = model()
    system = skewed_crystal()
    spec = md.VerletSpec.for_systems([system], potential.cutoff)
    begin = functools.partial(md.init, model(), spec, md.Start(system), ensemble, n_replicas=n_replicas)
    state = jax.eval_shape(begin, jax.random.key(0))
    limits = md.Limits(temperature_K=1e4, contact_ratio=0.5)

    def run(params, state):
        return run_chunk(potential, spec, 2, 2, params, md.rebuild(spec, state), ensemble, limits)

    return jax.jit(run).trace(params, state)


def hessian():
    return second_derivatives.trace(*model(), graph())


def charts():
    """Features, charts fitted to them, and what the charts say of them."""
    potential, params = model()
    width = potential.module.feature_sizes[-1]

    @jax.jit
    def everything(params, graph):
        rows = jnp.zeros(graph.atomic_numbers.shape, jnp.int32)
        features = potential.node_energy(params, graph, graph.positions)[1][:, -width:]
        fitted: MonitorState = fit_charts(features, rows, graph.atom_mask.astype(F32), 1, 2)
        return read_graph(potential, params, fitted, rows, graph, "last")

    return everything.trace(params, graph())


def relaxation_step():
    """Energies and forces of a structure whose cell is free, and the move that they make."""
    potential, params = model()
    system = skewed_crystal()
    spec = md.VerletSpec.for_systems([system], potential.cutoff)
    batch, spec = relaxation.build_batch(spec, [system], 0, F32)
    free = coordinates([system], F32, cell="full")

    @jax.jit
    def move(params):
        state = start(free, system.positions[None])
        return step(free, F32(0.1), state, relaxation.evaluate(potential, spec, params, batch, free, state.x))

    return move.trace(params)


def labels():
    silicon = System.from_ase(bulk("Si", cubic=True))
    return jax.jit(StillingerWeber().label_graph).trace(graph_of(silicon, cutoff=3.8, dtype=F32))


PROGRAMS = {
    "forces": forces,
    "forces of MACE": forces_of_mace,
    "properties": properties,
    "training": lambda: training_step("naive"),
    "training of adapters": lambda: training_step("lora", lora_rank=2),
    "dynamics at constant volume": lambda: dynamics(md.Langevin(1.0, 300.0, 10.0)),
    "dynamics at constant pressure": lambda: dynamics(md.make_ensemble("npt", timestep_fs=1.0, temperature_K=300.0)),
    "hessian": hessian,
    "charts": charts,
    "relaxation": relaxation_step,
    "labels": labels,
}
