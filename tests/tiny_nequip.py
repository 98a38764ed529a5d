"""NequIP potentials small enough to compile in seconds, and structures that cover what a cell can be."""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from mlipjax.graph import batch_graphs
from mlipjax.models import NequIPConfig, nequip
from mlipjax.system import System

SPECIES = (1, 6, 8)
SIZES = {"n_atoms": 16, "n_neighbors": 32, "n_graphs": 3}
"""Padded sizes that all test structures share, so that a potential is compiled once."""

SMALL = NequIPConfig(
    species=SPECIES,
    cutoff=4.0,
    hidden_irreps="8x0e + 4x1o + 4x2e",
    n_layers=2,
    radial_hidden=(8,),
    avg_n_neighbors=9.0,
    scale=0.8,
    shift=-0.3,
)
"""All that the published universal models have, with fewer layers and channels."""

SMALLEST = dataclasses.replace(SMALL, hidden_irreps="4x0e + 3x1o", lmax=1)
"""Two vector-valued layers: third derivatives still compile in seconds."""

LIKE_SEVENNET = NequIPConfig(
    species=SPECIES,
    cutoff=4.0,
    hidden_irreps="4x0e + 3x1e",
    lmax=1,
    n_layers=3,
    radial_basis_size=4,
    radial_hidden=(8,),
    layer_norm=False,
    avg_n_neighbors=9.0,
    scale=(0.8, 1.0, 1.2),
    heads=("pbe", "scan"),
    trainable_frequencies=True,
    envelope_onset=3.3,
    parity=False,
    activation_gain=1.68,
    embedding=4,
    readout_channels=2,
    n_labels=2,
)
"""All that the published SevenNets have, and enough layers for products that parity would forbid."""


def random_params(potential, seed=0, dtype=np.float64):
    """Parameters around their initial values, from numpy: nothing to compile."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape)
        if path[-1].key.startswith("scale"):
            values = 1.0 + 0.2 * values
        elif path[-1].key == "frequencies":
            values = 0.8 * (np.arange(len(values)) + 1.0) + 0.1 * values
        elif path[-1].key.startswith("kernel_"):
            values *= (2.0 / leaf.shape[0]) ** 0.5
        elif not leaf.shape:
            # what something is divided by
            values = 1.5 + 0.2 * values
        return np.asarray(values, dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def small_potential():
    """(potential, params, jitted apply) of ``SMALL``, compiled once per session."""
    potential = nequip(SMALL)
    return potential, random_params(potential), jax.jit(potential.apply, static_argnames="stress")


def skewed_crystal(seed=0):
    """Five atoms in a strongly skewed cell that is shorter than the cutoff."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.6, 0.4, 0.0], [1.3, 3.9, -0.3], [-0.5, 0.8, 4.2]])
    sites = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.1], [0.1, 0.5, 0.55], [0.5, 0.05, 0.5], [0.3, 0.8, 0.8]])
    return System(
        positions=sites @ cell + rng.uniform(-0.1, 0.1, (5, 3)),
        atomic_numbers=np.array([8, 6, 1, 8, 1], np.int32),
        cell=cell,
        pbc=(True, True, True),
    )


def molecule(seed=0):
    """Methanol without a cell."""
    from ase.build import molecule as ase_molecule

    atoms = ase_molecule("CH3OH")
    atoms.rattle(0.05, seed=seed)
    return System.from_ase(atoms)


def slab(seed=0):
    """Four atoms, periodic in two directions, third lattice vector zero."""
    rng = np.random.default_rng(seed)
    cell = np.array([[3.1, 0.2, 0.0], [0.3, 3.4, 0.1], [0.0, 0.0, 0.0]])
    sites = np.array([[0.2, 0.2, 0.0], [1.7, 1.8, 0.3], [0.3, 1.7, 1.5], [1.6, 0.2, 2.1]])
    return System(
        positions=sites + rng.uniform(-0.1, 0.1, (4, 3)),
        atomic_numbers=np.array([6, 6, 8, 1], np.int32),
        cell=cell,
        pbc=(True, True, False),
    )


def graph_of(*systems, cutoff=SMALL.cutoff, dtype=np.float64, **sizes):
    """Structures as one batch, padded to ``SIZES`` unless told otherwise."""
    return batch_graphs(systems, cutoff, dtype=dtype, **(SIZES | sizes))


def predict(*systems):
    """Prediction of ``small_potential`` for structures that together fit ``SIZES``, as numpy arrays."""
    _, params, apply = small_potential()
    return jax.device_get(apply(params, graph_of(*systems)))
