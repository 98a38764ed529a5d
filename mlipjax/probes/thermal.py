"""Thermal properties of harmonic oscillators."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mlipjax.units import BOLTZMANN

PLANCK = 4.135667662e-3
"""eV/THz: the energy of a quantum of 1 THz (CODATA 2014, as in ASE)."""


class Thermal(NamedTuple):
    """Of the vibrations of one cell, without the energy of the atoms at rest.

    Attributes:
        temperatures_K: (t,).
        free_energy_eV: (t,) Helmholtz free energy, zero-point energy included.
        entropy_eV_per_K: (t,).
        heat_capacity_eV_per_K: (t,) at constant volume.
        n_left_out: modes without a thermal property: imaginary ones, and those that do not move against each other.
    """

    temperatures_K: np.ndarray
    free_energy_eV: np.ndarray
    entropy_eV_per_K: np.ndarray
    heat_capacity_eV_per_K: np.ndarray
    n_left_out: int


def thermal_properties(
    frequencies_THz: Float[np.ndarray, "q m"], temperatures_K: Float[np.ndarray, " t"], softest_THz: float = 1e-3
) -> Thermal:
    """Free energy, entropy and heat capacity of harmonic oscillators, per cell.

    With x = h nu / (k T), a mode has F = h nu / 2 + k T ln(1 - exp(-x)), S = k [x / (exp(x) - 1) - ln(1 - exp(-x))] and
    C = k x^2 exp(x) / (exp(x) - 1)^2 (Born and Huang, Dynamical Theory of Crystal Lattices, 1954, section 17).

    Args:
        frequencies_THz: at wave vectors that count alike.
        temperatures_K: zero and above.
        softest_THz: modes below it, and imaginary ones, are left out.
    """
    kept = frequencies_THz > softest_THz
    quanta = PLANCK * frequencies_THz[kept]
    kT = BOLTZMANN * np.maximum(np.asarray(temperatures_K, np.float64), 1e-3)[:, None]  # at 0 K exponentials vanish
    x = quanta / kT
    lost = np.log(-np.expm1(-x))  # ln(1 - exp(-x))
    occupied = np.exp(-x) / -np.expm1(-x)  # 1 / (exp(x) - 1)
    n = len(frequencies_THz)
    return Thermal(
        temperatures_K=np.asarray(temperatures_K, np.float64),
        free_energy_eV=(0.5 * quanta + kT * lost).sum(axis=1) / n,
        entropy_eV_per_K=BOLTZMANN * (x * occupied - lost).sum(axis=1) / n,
        heat_capacity_eV_per_K=BOLTZMANN * (x**2 * occupied * (1.0 + occupied)).sum(axis=1) / n,
        n_left_out=int((~kept).sum()),
    )
