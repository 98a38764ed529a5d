"""State that a molecular-dynamics step reads and writes, for one replica, and initial velocities."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.md.freedom import Freedom, hold, settle, thermal_degrees
from mlipjax.md.observables import temperature
from mlipjax.typing import Array, Cell, Float, Forces, Key, Positions
from mlipjax.units import BOLTZMANN

if TYPE_CHECKING:
    # jax-md is imported where it is used: that takes seconds, and most commands simulate nothing
    from jax_md.simulate import NoseHooverChain


@struct.dataclass
class Barostat:
    """The cell as a degree of freedom: ``cell = exp(log_scale) * reference_cell``.

    Attributes:
        log_scale: () a third of the logarithm of the volume over the reference volume.
        momentum: () conjugate to ``log_scale``, Å sqrt(amu eV).
        reference_cell: (3, 3) Å, rows.
        chain: the thermostat of the cell.
    """

    log_scale: Float[Array, ""]
    momentum: Float[Array, ""]
    reference_cell: Cell
    chain: NoseHooverChain


@struct.dataclass
class Dynamics:
    """Phase space of one replica and what the potential says of it; jax-md's primitives act on it.

    Between two searches for neighbours displacements are differences of positions; a search brings atoms that left the
    cell back (``SimState.images`` counts by how many cells).

    Attributes:
        position: (N, 3) Å.
        momentum: (N, 3) sqrt(amu eV); their sum is zero, unless atoms are fixed.
        mass: (N, 1) amu.
        cell: (3, 3) Å, rows; zero for a molecule.
        force: (N, 3) eV/Å at ``position``.
        energy: () interaction energy in eV.
        stress: (3, 3) eV/Å^3, tension positive, without the kinetic part.
        rng: key of the thermostat's noise.
        chain: Nose-Hoover chain on the atoms, where the ensemble has one.
        barostat: the moving cell, where the ensemble has one.
        freedom: which coordinates may move; ``None`` for all (static).
    """

    position: Positions
    momentum: Float[Array, "N 3"]
    mass: Float[Array, "N 1"]
    cell: Cell
    force: Forces
    energy: Float[Array, ""]
    stress: Float[Array, "3 3"]
    rng: Key
    chain: NoseHooverChain | None = None
    barostat: Barostat | None = None
    freedom: Freedom | None = struct.field(pytree_node=False, default=None)

    @property
    def degrees(self) -> int:
        """Thermal degrees of freedom."""
        return thermal_degrees(self.mass.shape[-2], self.freedom)

    def set(self, **changes: Any) -> Dynamics:
        """Copy with some fields replaced: the name under which jax-md's primitives call it."""
        return replace(self, **changes)


def maxwell_boltzmann(
    key: Key,
    mass: Float[Array, "N 1"],
    temperature_K: Float[Array, ""] | float,
    *,
    exact: bool = False,
    freedom: Freedom | None = None,
) -> Float[Array, "N 3"]:
    """Draw momenta from the Maxwell-Boltzmann distribution with the centre of mass at rest.

    Args:
        key: random key.
        mass: (N, 1) amu.
        temperature_K: K.
        exact: scale the momenta so that their temperature is ``temperature_K`` rather than distributed around it.
        freedom: which coordinates may move; the centre of mass rests only where nothing is fixed.

    Returns:
        (N, 3) momenta in sqrt(amu eV), in the dtype of ``mass``.
    """
    kT = jnp.asarray(BOLTZMANN * temperature_K, mass.dtype)
    noise = jax.random.normal(key, (mass.shape[0], 3), mass.dtype)
    momentum = settle(jnp.sqrt(mass * kT) * noise, mass, freedom)
    if exact:
        degrees = thermal_degrees(mass.shape[0], freedom)
        momentum = momentum * jnp.sqrt(kT / (BOLTZMANN * temperature(momentum, mass, degrees)))
    return momentum


def kick(dynamics: Dynamics, dt: Float[Array, ""] | float) -> Dynamics:
    """Add ``dt`` times the forces to the momenta of what may move (``dt`` in internal units)."""
    from jax_md import simulate

    kicked = simulate.momentum_step(dynamics, dt)
    return kicked if dynamics.freedom is None else kicked.set(momentum=hold(kicked.momentum, dynamics.freedom))


def drift(dynamics: Dynamics, dt: Float[Array, ""] | float) -> Dynamics:
    """Move the atoms with their velocities for a time ``dt`` (internal units)."""
    from jax_md import simulate

    return simulate.position_step(dynamics, jnp.add, dt)
