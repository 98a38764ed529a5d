"""A Lennard-Jones potential behind the interface of ``Potential``: a fast model whose physics is known."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.build import bulk

from mlipjax.md import VerletSpec
from mlipjax.potential import Model, Potential
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class LennardJones:
    """Half of ``4 e ((s/r)^12 - (s/r)^6) w(r)`` for each edge; ``w`` ends smoothly at the cutoff."""

    cutoff: float = 6.5
    feature_sizes: tuple[int, ...] = (1,)

    def init(self, key, graph, vectors, species):
        del key, graph, species
        dtype = vectors.dtype
        return {"params": {"epsilon": jnp.asarray(0.0103, dtype), "sigma": jnp.asarray(3.4, dtype)}}

    def apply(self, variables, graph, vectors, species):
        del species
        params = variables["params"]
        mask = graph.edge_mask
        r2 = jnp.where(mask, jnp.sum(vectors**2, axis=-1), self.cutoff**2)
        s6 = (params["sigma"] ** 2 / r2) ** 3
        x = jnp.clip(r2 / self.cutoff**2, 0.0, 1.0)
        pair = jnp.where(mask, 2.0 * params["epsilon"] * (s6**2 - s6) * (1.0 - x) ** 3, 0.0)
        energy = jnp.sum(pair, axis=1)[:, None]
        return energy, energy


@functools.cache
def pair_potential(dtype="float64"):
    """A potential for neon and argon and its parameters; the same object each time, so that programs compile once."""
    e0s = np.array([[-1.5, -2.5]])
    potential = Potential(LennardJones(), None, 6.5, species=(10, 18), heads=("energy",), e0s=e0s)
    return Model(potential, potential.init(jax.random.key(0), jnp.dtype(dtype)))


@functools.cache
def argon(lattice: float = 5.3) -> System:
    """A rattled fcc crystal of 32 argon atoms."""
    atoms = bulk("Ar", "fcc", a=lattice, cubic=True).repeat(2)
    atoms.rattle(0.05, seed=1)
    return System.from_ase(atoms)


@functools.cache
def argon_spec() -> VerletSpec:
    """Sizes that hold ``argon`` at every lattice constant used in the tests."""
    systems = [argon(lattice) for lattice in (5.1, 5.8)]
    return VerletSpec.for_systems(systems, 6.5, skin=1.4)


def cluster() -> System:
    """Five atoms, two of them neon, without a cell."""
    positions = [[0, 0, 0], [3.9, 0, 0], [1.9, 3.2, 0.2], [1.8, 1.2, 3.1], [5.4, 3.1, 1.2]]
    return System.from_ase(Atoms("Ar2NeArNe", positions))
