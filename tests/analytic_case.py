"""Analytic potentials behind the interface of ``Potential``, and crystals whose properties are known."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from ase.build import bulk

from mlipjax.oracles import LennardJones, StillingerWeber
from mlipjax.potential import Model, Potential
from mlipjax.probes.evaluator import NativeEvaluator
from mlipjax.probes.softening import force_slope
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class FromOracle:
    """The energies of an analytic oracle times a parameter that is 1 by default."""

    oracle: Any
    feature_sizes: tuple[int, ...] = (1,)

    def init(self, key, graph, vectors, species):
        del key, graph, species
        return {"params": {"strength": jnp.ones((), vectors.dtype)}}

    def apply(self, variables, graph, vectors, species):
        del species
        energy = variables["params"]["strength"] * self.oracle.node_energy(vectors, graph.edge_mask)[:, None]
        return energy, energy


@functools.cache
def potential_of(name):
    """Stillinger-Weber silicon (``"sw"``), Lennard-Jones argon (``"lj"``) or silicon (``"lj_of_si"``)."""
    oracle, number = {
        "sw": (StillingerWeber(), 14),
        "lj": (LennardJones(), 18),
        "lj_of_si": (LennardJones(sigma=2.0), 14),
    }[name]
    return Potential(FromOracle(oracle), None, oracle.cutoff, (number,), ("energy",), np.array([[-0.5]]))


PARAMS = {"strength": np.float64(1.0)}


@functools.cache
def evaluator(name):
    return NativeEvaluator(Model(potential_of(name), PARAMS))


def softening_against(evaluate, reference, systems):
    """Slope of one potential's forces on another's."""
    pairs = zip(reference(systems), evaluate(systems), strict=True)
    return force_slope([(theirs.forces, ours.forces) for theirs, ours in pairs])


@functools.cache
def silicon(a=5.431, repeat=1):
    return System.from_ase(bulk("Si", "diamond", a=a, cubic=True).repeat(repeat))


def known_a0():
    """Lattice constant at which the bonds of a Stillinger-Weber crystal are those of its dimer."""
    return 2.0 ** (1.0 / 6.0) * 2.0951 * 4.0 / np.sqrt(3.0)
