"""Coordinates of a simulation that may move, the degrees of freedom they leave, and momenta that obey.

A coordinate that is fixed has no momentum, so it is never touched: fixed atoms stay where they are bit for bit. Along
an axis on which every atom is free the total momentum is conserved and zero, which takes one degree of freedom; once
an atom is held along an axis, momentum flows into what holds it, and nothing is taken off there.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from mlipjax.data.constraints import free_coordinates
from mlipjax.md.observables import center_momentum, degrees_of_freedom
from mlipjax.typing import Array, Float

if TYPE_CHECKING:
    from ase import Atoms


@dataclasses.dataclass(frozen=True)
class Freedom:
    """Free coordinates of N atoms; hashable, so that a simulation without constraints compiles without a trace of it.

    Attributes:
        mask: one byte for each of the 3 N coordinates, 1 where it may move.
    """

    mask: bytes

    @classmethod
    def of(cls, free: np.ndarray | None) -> Freedom | None:
        """From (n, 3) booleans, or (n,) for whole atoms; ``None`` if everything is free.

        Raises:
            ValueError: if nothing may move, or the array has another shape.
        """
        if free is None or np.all(free):
            return None
        free = np.asarray(free, bool)
        free = np.repeat(free[:, None], 3, axis=1) if free.ndim == 1 else free
        if free.ndim != 2 or free.shape[1] != 3:
            raise ValueError(f"free coordinates have shape {free.shape}; expected (n,) or (n, 3).")
        made = cls(np.ascontiguousarray(free).tobytes())
        if made.degrees < 1:
            raise ValueError("the constraints leave nothing that could move; free some atoms.")
        return made

    @classmethod
    def of_atoms(cls, atoms: Atoms) -> Freedom | None:
        """From the constraints of a structure; errors as ``of`` and ``data.free_coordinates``."""
        return cls.of(free_coordinates(atoms))

    @property
    def free(self) -> np.ndarray:
        """(n, 3) true for coordinates that may move."""
        return np.frombuffer(self.mask, bool).reshape(-1, 3)

    @property
    def degrees(self) -> int:
        """Thermal degrees of freedom: free coordinates, less one along each axis on which every atom is free."""
        return int(self.free.sum() - self.free.all(axis=0).sum())


def thermal_degrees(n_atoms: int, freedom: Freedom | None) -> int:
    """Degrees of freedom that a thermostat couples to and the temperature counts."""
    return degrees_of_freedom(n_atoms) if freedom is None else freedom.degrees


def hold(momentum: Float[Array, "N 3"], freedom: Freedom | None) -> Float[Array, "N 3"]:
    """Momenta without those of fixed coordinates."""
    return momentum if freedom is None else jnp.where(freedom.free, momentum, 0.0)


def settle(momentum: Float[Array, "N 3"], mass: Float[Array, "N 1"], freedom: Freedom | None) -> Float[Array, "N 3"]:
    """Momenta without those of fixed coordinates, and with the centre of mass at rest where nothing holds it."""
    if freedom is None:
        return center_momentum(momentum, mass)
    return hold(jnp.where(freedom.free.all(axis=0), center_momentum(momentum, mass), momentum), freedom)
