"""Start of a simulation: a structure with its masses, momenta, and what its constraints hold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.md.freedom import Freedom, settle, thermal_degrees
from mlipjax.md.observables import masses_of, temperature
from mlipjax.system import System

if TYPE_CHECKING:
    from ase import Atoms

_RESTS = 1e-5
"""Share of the momenta of a frame that single precision leaves to its centre of mass."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A structure ready to be simulated.

    Attributes:
        system: structure, with masses of its own if it has any.
        freedom: which coordinates may move; ``None`` for all.
        momenta: (N, 3) sqrt(amu eV) in float64 that every replica starts with; ``None`` draws them from the
            Maxwell-Boltzmann distribution. Those of fixed coordinates count as zero.
        exact_temperature: whether drawn velocities have exactly the ensemble's temperature.
        lost_momentum: the centre of mass moved, or fixed atoms did; ``momenta`` are without that.
    """

    system: System
    freedom: Freedom | None = None
    momenta: np.ndarray | None = None
    exact_temperature: bool = False
    lost_momentum: bool = False

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Start:
        """Read masses, constraints and momenta of a structure.

        Raises:
            ValueError: for masses or momenta that are no numbers, constraints of an unknown kind (by name), or
                constraints that leave nothing to move.
        """
        system, freedom = System.from_ase(atoms), Freedom.of_atoms(atoms)
        momenta = np.asarray(atoms.get_momenta(), np.float64)
        if not np.isfinite(momenta).all():
            atom = int(np.argmin(np.isfinite(momenta).all(axis=1)))
            raise ValueError(f"the momentum of atom {atom} is not finite.")
        kept = _settled(momenta, system, freedom)
        lost = bool(np.abs(kept - momenta).max() > _RESTS * np.abs(momenta).max())
        momenta = kept if lost else momenta
        return cls(system, freedom, momenta if momenta.any() else None, lost_momentum=lost)

    @property
    def degrees(self) -> int:
        """Thermal degrees of freedom."""
        return thermal_degrees(self.system.n_atoms, self.freedom)

    @property
    def n_fixed(self) -> int:
        """Atoms with a coordinate that may not move."""
        return 0 if self.freedom is None else int((~self.freedom.free).any(axis=1).sum())

    @property
    def temperature_K(self) -> float | None:
        """K of ``momenta``."""
        if self.momenta is None or self.degrees < 1:
            return None
        with jax.enable_x64(True):
            return float(
                temperature(jnp.asarray(self.momenta), jnp.asarray(masses_of(self.system))[:, None], self.degrees)
            )


def _settled(momenta: np.ndarray, system: System, freedom: Freedom | None) -> np.ndarray:
    if not momenta.any():
        return momenta
    with jax.enable_x64(True):
        return np.asarray(settle(jnp.asarray(momenta), jnp.asarray(masses_of(system))[:, None], freedom), np.float64)
