"""Potentials of every architecture, structures, and a posterior fitted to them: small enough for seconds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from tiny_mace import TINY
from tiny_nequip import LIKE_SEVENNET, SMALLEST, graph_of, molecule, random_params, skewed_crystal, slab

from mlipjax import uncertainty
from mlipjax.models import mace, nequip
from mlipjax.potential import Model
from mlipjax.system import System

POTENTIALS = {
    "nequip": lambda: nequip(SMALLEST),
    "sevennet": lambda: nequip(LIKE_SEVENNET),
    "mace": lambda: mace(TINY),
}


@functools.cache
def model(name="nequip"):
    potential = POTENTIALS[name]()
    return Model(potential, jax.tree.map(jnp.asarray, random_params(potential)))


def rattled(system, amount, seed):
    moved = np.random.default_rng(seed).normal(size=(system.n_atoms, 3)) * amount
    return System(np.asarray(system.positions) + moved, system.atomic_numbers, system.cell, system.pbc)


def graph(name="nequip", systems=None):
    systems = systems or [skewed_crystal(), slab(), molecule()]
    return graph_of(*systems, cutoff=model(name).potential.cutoff, n_neighbors=48)


@functools.partial(jax.jit, static_argnums=0)
def applied(potential, params, batch):
    return potential.apply(params, batch)


@functools.partial(jax.jit, static_argnums=(0, 4))
def atom_features(potential, params, batch, positions, own):
    return uncertainty.atom_features(potential, params, batch, positions, own)


@functools.partial(jax.jit, static_argnums=(0, 3))
def force_features(potential, params, batch, own, directions):
    return uncertainty.force_features(potential, params, batch, own, directions)


@functools.partial(jax.jit, static_argnums=(0, 3))
def force_sketch(potential, params, batch, own, moves):
    return uncertainty.force_sketch(potential, params, batch, own, moves)


def paths(name="nequip"):
    potential, params = model(name)
    return uncertainty.last_layer_paths(params, potential.heads[0])


HOW = uncertainty.Computed(dtype="float64", batch_size=4)


@functools.cache
def errors_and_systems(n=6, seed=0):
    rng = np.random.default_rng(seed)
    systems = [rattled(molecule(), 0.1, 100 + i) for i in range(n)]
    energy = rng.normal(size=n)
    forces = [rng.normal(size=(system.n_atoms, 3)) for system in systems]
    return uncertainty.Errors(energy, forces, [i // 2 for i in range(n)]), systems


@functools.cache
def posterior(name="nequip"):
    errors, held_out = errors_and_systems()
    train = [rattled(molecule(), 0.1, seed) for seed in range(8)]
    return uncertainty.fit_rigidity(model(name), train, held_out, errors, how=HOW)
