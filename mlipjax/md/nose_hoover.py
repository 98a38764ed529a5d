"""Nose-Hoover ensembles: constant temperature, and constant temperature and isotropic pressure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp
from flax import struct

from mlipjax.md.dynamics import Barostat, Dynamics, drift, kick
from mlipjax.md.observables import degrees_of_freedom, kinetic_energy
from mlipjax.typing import Array, Float
from mlipjax.units import BAR, BOLTZMANN, FEMTOSECOND

if TYPE_CHECKING:
    from jax_md.simulate import NoseHooverChain

Scalar = Float[Array, ""] | float

CHAIN_STEPS = 2
"""Substeps of a chain per half step."""
SUZUKI_YOSHIDA = (0.828981543588751, -0.657963087177502, 0.828981543588751)
"""Lengths of the parts of a substep, fourth order (Yoshida, Phys. Lett. A 150, 262 (1990)); jax-md's default."""


@struct.dataclass
class NoseHoover:
    """Constant temperature by a Nose-Hoover chain (Martyna, Klein & Tuckerman, J. Chem. Phys. 97, 2635 (1992)).

    Deterministic; not ergodic for a few atoms or a nearly harmonic crystal, where Langevin or CSVR is the choice.

    Attributes:
        timestep_fs: fs.
        temperature_K: K.
        damping_fs: period of the chain, in fs.
        chain_length: number of thermostats in the chain, 2 or more.
    """

    timestep_fs: Scalar
    temperature_K: Scalar
    damping_fs: Scalar
    chain_length: int = struct.field(pytree_node=False, default=3)
    moves_cell: ClassVar[bool] = False

    def start(self, dynamics: Dynamics) -> Dynamics:
        """Attach a chain at rest."""
        dof = dynamics.degrees
        kinetic = kinetic_energy(dynamics.momentum, dynamics.mass)
        return dynamics.set(chain=_new_chain(self, self.damping_fs, dof, kinetic))

    def before(self, dynamics: Dynamics) -> Dynamics:
        """Thermostat half step, half kick, drift."""
        dt = self.timestep_fs * FEMTOSECOND
        return drift(kick(_couple_atoms(self, dynamics), dt / 2), dt)

    def after(self, dynamics: Dynamics) -> Dynamics:
        """Half kick, thermostat half step."""
        return _couple_atoms(self, kick(dynamics, self.timestep_fs * FEMTOSECOND / 2))


@struct.dataclass
class IsotropicNPT:
    """Constant temperature and pressure: isotropic Martyna-Tobias-Klein equations with Nose-Hoover chains.

    Measure-preserving splitting of Tuckerman et al., J. Phys. A 39, 5629 (2006). With ``v_e = p_e / W``:

        dr/dt = p / m + v_e r            dp/dt = F - (1 + 3 / N_f) v_e p
        dV/dt = 3 V v_e                  dp_e/dt = (1 + 3 / N_f) sum p^2 / m - V tr(stress) - 3 P V

    The stress of the positions reached is kept in the state, so forces and virial are evaluated once per step
    (jax-md's ``npt_nose_hoover`` evaluates the potential twice: the virial of the start of the step again).

    Attributes:
        timestep_fs: fs.
        temperature_K: K.
        pressure_bar: bar.
        damping_fs: period of the chain on the atoms, in fs.
        barostat_damping_fs: period of the cell and its chain, in fs.
        chain_length: number of thermostats in each chain, 2 or more.
    """

    timestep_fs: Scalar
    temperature_K: Scalar
    pressure_bar: Scalar
    damping_fs: Scalar
    barostat_damping_fs: Scalar
    chain_length: int = struct.field(pytree_node=False, default=3)
    moves_cell: ClassVar[bool] = True

    def start(self, dynamics: Dynamics) -> Dynamics:
        """Attach a cell at rest and the two chains, at rest."""
        dof = degrees_of_freedom(dynamics.mass.shape[0])
        zero = jnp.zeros_like(dynamics.energy)
        barostat = Barostat(
            log_scale=zero,
            momentum=zero,
            reference_cell=dynamics.cell,
            chain=_new_chain(self, self.barostat_damping_fs, 1, zero),
        )
        kinetic = kinetic_energy(dynamics.momentum, dynamics.mass)
        return dynamics.set(chain=_new_chain(self, self.damping_fs, dof, kinetic), barostat=barostat)

    def before(self, dynamics: Dynamics) -> Dynamics:
        """Thermostat half step, half kick of cell and atoms, drift of cell and atoms."""
        dynamics = _couple_cell(self, _couple_atoms(self, dynamics))
        dynamics = self._kick_cell(dynamics)
        return self._drift(self._kick_atoms(dynamics))

    def after(self, dynamics: Dynamics) -> Dynamics:
        """Half kick of atoms and cell, thermostat half step."""
        dynamics = self._kick_cell(self._kick_atoms(dynamics))
        return _couple_cell(self, _couple_atoms(self, dynamics))

    def cell_mass(self, n_atoms: int) -> Scalar:
        """``W = (N_f + 3) kT tau^2`` with the barostat's period ``tau``, in amu Å^2."""
        tau = self.barostat_damping_fs * FEMTOSECOND
        return BOLTZMANN * self.temperature_K * tau**2 * (degrees_of_freedom(n_atoms) + 3)

    def _kick_cell(self, dynamics: Dynamics) -> Dynamics:
        n_atoms = dynamics.mass.shape[0]
        volume = jnp.abs(jnp.linalg.det(dynamics.cell))
        expansion = 2.0 * _alpha(n_atoms) * kinetic_energy(dynamics.momentum, dynamics.mass)
        force = expansion - volume * (jnp.trace(dynamics.stress) + 3.0 * self.pressure_bar * BAR)
        barostat = _barostat(dynamics)
        momentum = barostat.momentum + 0.5 * self.timestep_fs * FEMTOSECOND * force
        return dynamics.set(barostat=replace(barostat, momentum=momentum))

    def _kick_atoms(self, dynamics: Dynamics) -> Dynamics:
        n_atoms = dynamics.mass.shape[0]
        half = 0.5 * self.timestep_fs * FEMTOSECOND
        x = _alpha(n_atoms) * _barostat(dynamics).momentum / self.cell_mass(n_atoms) * half
        momentum = dynamics.momentum * jnp.exp(-x) + half * dynamics.force * jnp.exp(-0.5 * x) * _sinhc(0.5 * x)
        return dynamics.set(momentum=momentum)

    def _drift(self, dynamics: Dynamics) -> Dynamics:
        dt = self.timestep_fs * FEMTOSECOND
        barostat = _barostat(dynamics)
        x = barostat.momentum / self.cell_mass(dynamics.mass.shape[0]) * dt
        velocity = dynamics.momentum / dynamics.mass
        log_scale = barostat.log_scale + x
        return dynamics.set(
            position=dynamics.position * jnp.exp(x) + dt * velocity * jnp.exp(0.5 * x) * _sinhc(0.5 * x),
            cell=barostat.reference_cell * jnp.exp(log_scale),
            barostat=replace(barostat, log_scale=log_scale),
        )


def _couple_atoms(ensemble: NoseHoover | IsotropicNPT, dynamics: Dynamics) -> Dynamics:
    kinetic = kinetic_energy(dynamics.momentum, dynamics.mass)
    momentum, chain = _half_step(ensemble, ensemble.damping_fs, dynamics.momentum, dynamics.chain, kinetic)
    return dynamics.set(momentum=momentum, chain=chain)


def _couple_cell(ensemble: IsotropicNPT, dynamics: Dynamics) -> Dynamics:
    barostat = _barostat(dynamics)
    kinetic = 0.5 * barostat.momentum**2 / ensemble.cell_mass(dynamics.mass.shape[0])
    momentum, chain = _half_step(ensemble, ensemble.barostat_damping_fs, barostat.momentum, barostat.chain, kinetic)
    return dynamics.set(barostat=replace(barostat, momentum=momentum, chain=chain))


def _half_step(
    ensemble: NoseHoover | IsotropicNPT,
    damping_fs: Scalar,
    momentum: Array,
    chain: NoseHooverChain | None,
    kinetic: Array,
) -> tuple[Array, NoseHooverChain]:
    """Advance a chain and what it is coupled to by half a step, with chain masses of the present temperature."""
    if chain is None:
        raise ValueError("this state has no Nose-Hoover chain; start it with `init` and the same kind of ensemble.")
    kT, tau = BOLTZMANN * ensemble.temperature_K, damping_fs * FEMTOSECOND
    last, degrees = ensemble.chain_length - 1, chain.degrees_of_freedom
    q = _chain_masses(ensemble, tau, degrees)
    x, p = list(chain.position), list(chain.momentum)
    scale = jnp.ones_like(kinetic)

    def drag(m: int, delta: Any) -> Any:
        return jnp.exp(-delta / 8.0 * p[m + 1] / q[m + 1]) if m < last else 1.0

    def pull(m: int) -> Any:
        return p[m - 1] ** 2 / q[m - 1] - kT if m else 2.0 * kinetic * scale**2 - degrees * kT

    # scalars in one straight line: a loop would launch kernels for each of its operations
    for weight in SUZUKI_YOSHIDA * CHAIN_STEPS:
        delta = ensemble.timestep_fs * FEMTOSECOND * (weight / CHAIN_STEPS)
        for m in reversed(range(last + 1)):
            p[m] = drag(m, delta) * (drag(m, delta) * p[m] + delta / 4.0 * pull(m))
        scale = scale * jnp.exp(-delta / 2.0 * p[0] / q[0])
        x = [x[m] + delta / 2.0 * p[m] / q[m] for m in range(last + 1)]
        for m in range(last + 1):
            p[m] = drag(m, delta) * (drag(m, delta) * p[m] + delta / 4.0 * pull(m))
    return momentum * scale, _chain(x, p, q, tau, kinetic * scale**2, degrees)


def _new_chain(
    ensemble: NoseHoover | IsotropicNPT, damping_fs: Scalar, degrees: int, kinetic: Array
) -> NoseHooverChain:
    tau, rest = damping_fs * FEMTOSECOND, [0.0] * ensemble.chain_length
    return _chain(rest, rest, _chain_masses(ensemble, tau, degrees), tau, kinetic, degrees)


def _chain(position: Any, momentum: Any, mass: Any, tau: Any, kinetic: Array, degrees: int) -> NoseHooverChain:
    from jax_md import simulate

    make: Any = simulate.NoseHooverChain
    return make(*(jnp.asarray(values, kinetic.dtype) for values in (position, momentum, mass, tau)), kinetic, degrees)


def _chain_masses(ensemble: NoseHoover | IsotropicNPT, tau: Scalar, degrees: int) -> list[Scalar]:
    thermal = BOLTZMANN * ensemble.temperature_K * tau**2
    return [thermal * (1 if m else degrees) for m in range(ensemble.chain_length)]


def _alpha(n_atoms: int) -> float:
    return 1.0 + 3.0 / degrees_of_freedom(n_atoms)


def _barostat(dynamics: Dynamics) -> Barostat:
    if dynamics.barostat is None:
        raise ValueError("this state has no barostat; start it with `init` and an NPT ensemble.")
    return dynamics.barostat


def _sinhc(x: Array) -> Array:
    """``sinh(x) / x`` by its Taylor series, accurate to rounding for ``|x| < 0.1``."""
    x2 = x * x
    return 1.0 + x2 / 6.0 * (1.0 + x2 / 20.0 * (1.0 + x2 / 42.0 * (1.0 + x2 / 72.0)))
