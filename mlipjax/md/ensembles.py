"""Ensembles: integrators with exactly one force evaluation per step.

Every step is a pair of functions around the evaluation of the potential: ``before`` moves positions (and the cell)
forward, ``after`` finishes the momenta with the new forces. The potential is called between them, by the loop, so
no ensemble can call it twice.

jax-md supplies the pieces (momentum, position and Ornstein-Uhlenbeck updates, Nose-Hoover chains). Its ready-made
step functions are not used, because they keep only the forces of an evaluation, so that energy and pressure would
cost a second one; count ``3 N`` degrees of freedom although the centre of mass is at rest; draw the two noises of CSVR
from one key, so that they can be the same number; and evaluate the potential twice per NPT step.

The numbers of an ensemble are leaves of a pytree: they may be traced, differentiated and mapped over, and new values
do not recompile anything.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.md.dynamics import Dynamics, drift, kick
from mlipjax.md.freedom import settle
from mlipjax.md.observables import kinetic_energy
from mlipjax.typing import Array, Float
from mlipjax.units import BOLTZMANN, FEMTOSECOND

Scalar = Float[Array, ""] | float


class Ensemble(Protocol):
    """Protocol of an ensemble, as the loop uses it."""

    timestep_fs: Any
    temperature_K: Any
    moves_cell: ClassVar[bool]

    def start(self, dynamics: Dynamics) -> Dynamics:
        """Attach the variables of thermostat and barostat to a fresh replica."""
        ...

    def before(self, dynamics: Dynamics) -> Dynamics:
        """Advance up to the point where the forces at the new positions are needed."""
        ...

    def after(self, dynamics: Dynamics) -> Dynamics:
        """Finish the step with the new forces."""
        ...


@struct.dataclass
class _Verlet:
    """Velocity Verlet at a constant volume: what each ensemble without a cell changes."""

    timestep_fs: Scalar
    temperature_K: Scalar

    moves_cell: ClassVar[bool] = False

    def start(self, dynamics: Dynamics) -> Dynamics:
        """Nothing to attach."""
        return dynamics

    def before(self, dynamics: Dynamics) -> Dynamics:
        """Half kick, drift."""
        dt = self.timestep_fs * FEMTOSECOND
        return drift(kick(dynamics, dt / 2), dt)

    def after(self, dynamics: Dynamics) -> Dynamics:
        """Half kick."""
        return kick(dynamics, self.timestep_fs * FEMTOSECOND / 2)


@struct.dataclass
class NVE(_Verlet):
    """Constant energy by velocity Verlet; the error of the energy is of second order in the time step.

    Attributes:
        timestep_fs: fs.
        temperature_K: of the initial velocities, in K.
    """


@struct.dataclass
class Langevin(_Verlet):
    """Constant temperature by Langevin dynamics, in the splitting B A O A B.

    Leimkuhler & Matthews, J. Chem. Phys. 138, 174102 (2013): configurations are sampled to second order in the step.
    The noise moves no centre of mass, so the total momentum stays zero and ``3 N - 3`` degrees of freedom are thermal;
    with fixed atoms it does, and all free coordinates are.

    Attributes:
        timestep_fs: fs.
        temperature_K: K.
        friction_per_ps: 1/ps.
    """

    friction_per_ps: Scalar

    def before(self, dynamics: Dynamics) -> Dynamics:
        """Half kick, half drift, noise, half drift."""
        from jax_md import simulate

        dt = self.timestep_fs * FEMTOSECOND
        kT = BOLTZMANN * self.temperature_K
        gamma = self.friction_per_ps / (1000.0 * FEMTOSECOND)
        dynamics = drift(kick(dynamics, dt / 2), dt / 2)
        dynamics = simulate.stochastic_step(dynamics, dt, kT, gamma)
        dynamics = dynamics.set(momentum=settle(dynamics.momentum, dynamics.mass, dynamics.freedom))
        return drift(dynamics, dt / 2)


@struct.dataclass
class CSVR(_Verlet):
    """Constant temperature by stochastic velocity rescaling.

    Bussi, Donadio & Parrinello, J. Chem. Phys. 126, 014101 (2007).

    Attributes:
        timestep_fs: fs.
        temperature_K: K.
        damping_fs: relaxation time of the kinetic energy, in fs.
    """

    damping_fs: Scalar

    def after(self, dynamics: Dynamics) -> Dynamics:
        """Kick, then draw the kinetic energy ``K`` anew from its canonical relaxation, eq. A7.

        With ``c = exp(-dt / tau)``, ``K0 = N_f kT / 2`` and ``N_f`` normal numbers ``R_i``:
        ``K' / K = c + (1 - c) K0 / (N_f K) sum R_i^2 + 2 R_1 sqrt(c (1 - c) K0 / (N_f K))``.
        """
        dynamics = kick(dynamics, self.timestep_fs * FEMTOSECOND / 2)
        dof = dynamics.degrees
        key, noise_key = jax.random.split(dynamics.rng)
        noise = jax.random.normal(noise_key, (dof,), dynamics.momentum.dtype)
        c = jnp.exp(-self.timestep_fs / self.damping_fs)
        kinetic = kinetic_energy(dynamics.momentum, dynamics.mass)
        per_mode = (1.0 - c) * 0.5 * BOLTZMANN * self.temperature_K / kinetic
        ratio = c + per_mode * jnp.sum(noise**2) + 2.0 * noise[0] * jnp.sqrt(c * per_mode)
        return dynamics.set(momentum=dynamics.momentum * jnp.sqrt(ratio), rng=key)
