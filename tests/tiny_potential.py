"""A potential small enough to train to death in a test, and labelled structures that it can learn.

Features are Gaussians of distance, weighted by an embedding of the neighbour's element; one small network per
atom gives its energy. Not expressive, but rotation-invariant, smooth and quick to compile.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.data import Dataset, Example
from mlipjax.graph import batch_graphs
from mlipjax.potential import Potential
from mlipjax.system import Labels, System
from mlipjax.train import make_batch

CUTOFF = 3.5
SPECIES = (1, 6, 8)


@dataclasses.dataclass(frozen=True)
class TinyConfig:
    width: int = 8
    n_layers: int = 2


class TraceLog:
    """Sizes of the graphs the network was traced with (a plain list would be frozen by flax)."""

    def __init__(self):
        self.sizes = []


class Tiny(nn.Module):
    config: TinyConfig
    n_species: int
    log: TraceLog

    @property
    def feature_sizes(self):
        return (self.config.width,) * self.config.n_layers

    @nn.compact
    def __call__(self, graph, vectors, species):
        self.log.sizes.append(graph.sizes)
        distance = jnp.sqrt(jnp.where(graph.edge_mask, jnp.sum(vectors**2, axis=-1), 1.0))
        ramp = jnp.clip(1.0 - (distance / CUTOFF) ** 2, 0.0) ** 3
        centers = jnp.linspace(0.7, 3.0, self.config.width).astype(vectors.dtype)[None, None, :]
        basis = jnp.exp(-4.0 * (distance[..., None] - centers) ** 2) * (ramp * graph.edge_mask)[..., None]
        embedding = nn.Embed(self.n_species, self.config.width, param_dtype=vectors.dtype, name="embedding")
        density = jnp.sum(basis * embedding(species)[graph.neighbors], axis=1)
        hidden = jnp.concatenate([density, embedding(species)], axis=-1)
        features = []
        for layer in range(self.config.n_layers):
            hidden = jnp.tanh(nn.Dense(self.config.width, param_dtype=vectors.dtype, name=f"layer_{layer}")(hidden))
            features.append(hidden)
        energy = nn.Dense(1, use_bias=False, param_dtype=vectors.dtype, name="readout_energy")(hidden)
        return energy, jnp.concatenate(features, axis=-1)


def tiny_potential(width=8, n_layers=2, e0s=(-1.0, -30.0, -80.0)):
    """Return a potential; ``potential.module.log.sizes`` grows by one whenever the network is traced."""
    config = TinyConfig(width, n_layers)
    module = Tiny(config, len(SPECIES), TraceLog())
    return Potential(module, config, CUTOFF, SPECIES, ("energy",), np.array([e0s], np.float64))


def init_params(potential, seed=0, dtype=jnp.float64):
    """Random parameters from numpy: compiling JAX's generators would take most of a test's time."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(functools.partial(potential.init, dtype=dtype), jax.random.key(0))
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 2.0, dtype), shapes)


def random_system(rng, n_atoms, periodic=True):
    """Atoms on a jittered grid, so that none come close."""
    side = int(np.ceil(n_atoms ** (1 / 3)))
    grid = np.array(np.meshgrid(*[np.arange(side)] * 3)).reshape(3, -1).T[:n_atoms]
    return System(
        positions=1.6 * grid + rng.uniform(-0.3, 0.3, (n_atoms, 3)),
        atomic_numbers=rng.choice(np.array(SPECIES, np.int32), n_atoms),
        cell=1.6 * side * np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)) if periodic else np.zeros((3, 3)),
        pbc=(periodic,) * 3,
    )


@functools.cache
def _teacher():
    potential = tiny_potential()
    return potential, init_params(potential, seed=1000), jax.jit(potential.apply)


@functools.cache
def labelled_dataset(sizes, seed=0, periodic=True):
    """Structures of the given sizes (a tuple, at most 16 atoms), labelled by a tiny potential of its own."""
    rng = np.random.default_rng(seed)
    teacher, params, predict = _teacher()
    examples = []
    for index, size in enumerate(sizes):
        system = random_system(rng, size, periodic)
        batch = batch_graphs([system], CUTOFF, n_atoms=16, n_neighbors=64, dtype=np.float64)
        prediction = jax.device_get(predict(params, batch))
        energy = float(prediction.energy[0]) + teacher.reference_energy(system.atomic_numbers)
        stress = prediction.stress[0] if periodic else None
        labels = Labels.create(size, energy, prediction.forces[:size], stress)
        examples.append(Example(system, labels, {"run": index % 3}))
    return Dataset.from_examples(examples)


def tiny_batch(dataset, potential, dtype=np.float64, **sizes):
    """All structures of a data set as one padded batch."""
    return make_batch(potential, dataset.systems, dataset.labels, dtype=dtype, **sizes)
