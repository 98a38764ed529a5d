"""Kinetic energy, temperature, pressure and distances of one replica, and masses and time steps of elements.

The centre of mass is at rest in every ensemble of this package, so ``N`` free atoms have ``3 N - 3`` thermal degrees
of freedom; a molecule's rotation is kept and counts. With fixed coordinates see ``freedom``.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mlipjax.elements import atomic_masses
from mlipjax.graph import GraphBatch, edge_vectors
from mlipjax.system import System
from mlipjax.typing import Array, Cell, Float
from mlipjax.units import BOLTZMANN


def degrees_of_freedom(n_atoms: int) -> int:
    """Thermal degrees of freedom of ``n_atoms`` atoms whose centre of mass is at rest: ``3 N - 3``."""
    return 3 * n_atoms - 3


def kinetic_energy(momentum: Float[Array, "N 3"], mass: Float[Array, "N 1"]) -> Float[Array, ""]:
    """Kinetic energy ``sum p^2 / 2 m`` in eV, from momenta in sqrt(amu eV) and masses in amu."""
    return 0.5 * jnp.sum(momentum**2 / mass)


def temperature(
    momentum: Float[Array, "N 3"], mass: Float[Array, "N 1"], degrees: int | None = None
) -> Float[Array, ""]:
    """Instantaneous temperature ``2 K / (N_f k_B)`` in K, with ``3 N - 3`` degrees of freedom unless given.

    Args:
        momentum: (N, 3) sqrt(amu eV).
        mass: (N, 1) amu.
        degrees: thermal degrees of freedom ``N_f``.
    """
    dof = degrees_of_freedom(momentum.shape[0]) if degrees is None else degrees
    return 2.0 * kinetic_energy(momentum, mass) / (dof * BOLTZMANN)


def pressure(
    momentum: Float[Array, "N 3"], mass: Float[Array, "N 1"], stress: Float[Array, "3 3"], cell: Cell
) -> Float[Array, ""]:
    """Instantaneous pressure ``sum p^2 / (3 m V) - tr(stress) / 3`` in eV/Å^3, positive in compression.

    ASE's definition; its average in ``IsotropicNPT`` is the pressure asked for, at any number of atoms. Zero for a
    structure without a volume.

    Args:
        momentum: (N, 3) sqrt(amu eV).
        mass: (N, 1) amu.
        stress: (3, 3) eV/Å^3, tension positive.
        cell: (3, 3) Å.
    """
    volume = jnp.abs(jnp.linalg.det(cell))
    has_volume = volume > 0.0
    kinetic = 2.0 * kinetic_energy(momentum, mass) / (3.0 * jnp.where(has_volume, volume, 1.0))
    return jnp.where(has_volume, kinetic - jnp.trace(stress) / 3.0, 0.0)


def center_momentum(momentum: Float[Array, "N 3"], mass: Float[Array, "N 1"]) -> Float[Array, "N 3"]:
    """Momenta with the centre of mass brought to rest: every atom loses the same velocity.

    In the coordinates ``p / sqrt(m)``, in which the Maxwell-Boltzmann distribution is isotropic, this is the orthogonal
    projection, so it turns that distribution into the same distribution conditioned on zero total momentum. (Taking
    the mean *momentum* off every atom would heat light atoms.)
    """
    return momentum - mass * (jnp.sum(momentum, axis=0, keepdims=True) / jnp.sum(mass))


def closest_contact(graph: GraphBatch, radii: Float[Array, " N"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Shortest distance in Å, and the smallest ratio of a distance to the sum of the two atoms' radii.

    Both are infinite if no two atoms are neighbours. The edges of ``graph`` hold every pair closer than its cutoff.
    """
    vectors = edge_vectors(graph, graph.positions, graph.cells)
    mask = graph.edge_mask
    distance = jnp.sqrt(jnp.where(mask, jnp.sum(vectors**2, axis=-1), 1.0))
    ratio = distance / (radii[:, None] + radii[graph.neighbors])
    return jnp.min(jnp.where(mask, distance, jnp.inf)), jnp.min(jnp.where(mask, ratio, jnp.inf))


def masses_of(system: System) -> np.ndarray:
    """Masses of a structure's atoms in amu (n,), float64: its own, or the standard atomic weights.

    Raises:
        ValueError: for a mass that is not positive and finite, or an element without a known mass.
    """
    if system.masses is None:
        return atomic_masses(system.atomic_numbers)
    masses = np.asarray(system.masses, dtype=np.float64)
    wrong = ~(np.isfinite(masses) & (masses > 0.0))
    if wrong.any():
        atom = int(np.argmax(wrong))
        raise ValueError(f"atom {atom} has a mass of {masses[atom]:g} amu; masses must be positive and finite.")
    return masses


def default_timestep(atomic_numbers: Sequence[int] | np.ndarray, masses: np.ndarray | None = None) -> float:
    """Time step in fs that resolves a structure's fastest vibration with about 15 steps or more.

    0.5 fs with hydrogen (X-H stretches, up to 4000 1/cm: a period of 8 fs); 1 fs if the lightest atom is lighter than
    20 amu (C-O, C-N and N-N stretches, up to 2300 1/cm: 14 fs); 2 fs otherwise (below 1000 1/cm: over 33 fs).
    ``masses`` (n,) in amu replace the standard atomic weights, for isotopes.
    """
    lightest = float(np.min(atomic_masses(atomic_numbers) if masses is None else masses))
    if lightest < 3.0:
        return 0.5
    return 1.0 if lightest < 20.0 else 2.0
