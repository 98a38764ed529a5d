"""A vacancy jump in a Lennard-Jones crystal: a band whose barrier ASE can find as well."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from ase import Atoms
from ase.build import bulk

from mlipjax.potential import Model, Potential
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class PairModule:
    """``2 e ((s/r)^12 - (s/r)^6) (1 - (r/c)^2)^3`` for each directed edge; ``s`` and ``e`` are the parameters."""

    cutoff: float
    feature_sizes: ClassVar[tuple[int, ...]] = (1,)

    def apply(self, variables, graph, vectors, species):
        del species
        params, mask = variables["params"], graph.edge_mask
        r2 = jnp.where(mask, jnp.sum(vectors**2, axis=-1), self.cutoff**2)
        s6 = (params["sigma"] ** 2 / r2) ** 3
        ramp = (1.0 - jnp.clip(r2 / self.cutoff**2, 0.0, 1.0)) ** 3
        energy = jnp.sum(jnp.where(mask, 2.0 * params["epsilon"] * (s6**2 - s6) * ramp, 0.0), axis=1)[:, None]
        return energy, energy


@functools.cache
def pair(sigma=2.3, epsilon=0.4, cutoff=5.0, number=29):
    """A potential of one element; by default about as stiff as copper."""
    potential = Potential(PairModule(cutoff), None, cutoff, (number,), ("energy",), np.array([[-1.25]]))
    return Model(potential, {"sigma": np.float64(sigma), "epsilon": np.float64(epsilon)})


def vacancy_jump(repeat=2, lattice=3.6) -> tuple[System, System]:
    """Ends of the jump of an atom into a neighbouring vacancy; unrelaxed, wrapped, so that atoms cross the cell."""
    crystal = bulk("Cu", "fcc", a=lattice, cubic=True).repeat(repeat)
    hole = 1 + int(np.argmin(crystal.get_distances(0, range(1, len(crystal)), mic=True)))
    first = crystal.copy()
    del first[hole]
    last = first.copy()
    last.positions[0] = crystal.positions[hole]
    for atoms, seed in ((first, 1), (last, 2)):
        atoms.rattle(0.01, seed=seed)
        atoms.wrap()
    return System.from_ase(first), System.from_ase(last)


def bistable(distance=6.0) -> tuple[System, System]:
    """A free atom between two fixed ones, on either side: three atoms without a cell."""
    ends = []
    for place in (2.6, distance - 2.6):
        ends.append(System.from_ase(Atoms("Cu3", [[0, 0, 0], [distance, 0, 0], [place, 0.05, 0]])))
    return ends[0], ends[1]
