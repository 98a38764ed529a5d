"""Limits that a replica must keep; a replica that breaks them is held at the offending frame."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from scipy.stats import chi2

from mlipjax.md.dynamics import Dynamics
from mlipjax.md.freedom import Freedom, thermal_degrees
from mlipjax.md.observables import temperature
from mlipjax.typing import Array, Bool, Float

CLOSEST_RATIO = 0.5
"""Smallest distance tolerated, relative to the sum of the two covalent radii.

The shortest bonds sit near 0.77 (N2, CO); the smallest ratio among 990 MPtrj structures is 0.59, in reactive frames on
copper 0.64. Only alkali metals at hundreds of GPa come below one half (0.44): simulate those with a smaller limit.
"""

HOTTEST_FACTOR = 5.0
"""Largest instantaneous temperature tolerated, relative to the thermostat's."""

COLDEST_REFERENCE_K = 300.0
"""Targets below 300 K count as 300 K: relaxing a strained structure may heat a cold one by as much."""

_RARE = 1e-12


@struct.dataclass
class Limits:
    """Bounds beyond which a replica is held.

    Attributes:
        temperature_K: largest instantaneous temperature.
        contact_ratio: smallest distance over the sum of covalent radii.
    """

    temperature_K: Float[Array, ""] | float
    contact_ratio: Float[Array, ""] | float


def default_limits(
    temperature_K: float,
    n_atoms: int,
    hottest_factor: float = HOTTEST_FACTOR,
    closest_ratio: float = CLOSEST_RATIO,
    freedom: Freedom | None = None,
) -> Limits:
    """Limits around a target temperature, wide enough for the fluctuations of few atoms.

    Args:
        temperature_K: K, of the thermostat.
        n_atoms: number of atoms; the limit is never reached by canonical fluctuations (probability 1e-12 a sample).
        hottest_factor: largest temperature over target.
        closest_ratio: smallest distance over the sum of covalent radii.
        freedom: which coordinates may move; ``None`` for all.
    """
    # a single atom is refused elsewhere, with a message
    dof = max(thermal_degrees(n_atoms, freedom), 1)
    fluctuation = float(chi2.isf(_RARE, dof)) / dof
    factor = max(hottest_factor, fluctuation)
    return Limits(temperature_K=factor * max(temperature_K, COLDEST_REFERENCE_K), contact_ratio=closest_ratio)


def keeps_limits(limits: Limits, dynamics: Dynamics, contact_ratio: Float[Array, ""]) -> Bool[Array, ""]:
    """Return whether a replica is finite, not too hot, and no two of its atoms are too close."""
    finite = jnp.isfinite(dynamics.energy) & jnp.all(jnp.isfinite(dynamics.force))
    finite = finite & jnp.all(jnp.isfinite(dynamics.position))
    # comparisons with NaN are false
    cool = temperature(dynamics.momentum, dynamics.mass, dynamics.degrees) <= limits.temperature_K
    return finite & cool & (contact_ratio >= limits.contact_ratio)
