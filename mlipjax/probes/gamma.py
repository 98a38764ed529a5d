"""Normal modes of any structure at Gamma, from exact second derivatives."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mlipjax.graph import batch_graphs
from mlipjax.hessian import second_derivatives
from mlipjax.md.observables import masses_of
from mlipjax.potential import Model
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.system import System
from mlipjax.units import FEMTOSECOND

THZ = 1000.0 * FEMTOSECOND / (2.0 * np.pi)
"""THz per unit of the root of an eigenvalue of the dynamical matrix, sqrt(eV/(amu Å^2))."""

WAVENUMBER_PER_THZ = 33.35640951981521
"""1/cm per THz: 1 / (100 c)."""

IMAGINARY_THZ = 0.1
"""Imaginary frequencies smaller than this are the numerical error of the acoustic modes."""


STATIONARY = 0.05
"""eV/Å: with larger forces left, curvatures are not those of a stationary point."""


@dataclasses.dataclass(frozen=True)
class Modes(ProbeResult):
    """Normal modes at Gamma. Imaginary frequencies are written as negative numbers.

    Attributes:
        frequencies_THz: (3 n,) ascending.
        n_rigid: number of modes that cost no energy by symmetry: translations, and rotations of a molecule.
        largest_force: eV/Å; modes belong to a stationary point, where this is zero.
    """

    frequencies_THz: np.ndarray
    n_rigid: int
    largest_force: float

    @property
    def wavenumbers(self) -> np.ndarray:
        """(3 n,) 1/cm."""
        return self.frequencies_THz * WAVENUMBER_PER_THZ

    @property
    def vibrations_THz(self) -> np.ndarray:
        """Frequencies without the ``n_rigid`` smallest ones."""
        order = np.argsort(np.abs(self.frequencies_THz))[self.n_rigid :]
        return np.sort(self.frequencies_THz[order])

    @property
    def n_imaginary(self) -> int:
        """Number of directions in which the energy falls."""
        return int(np.sum(self.vibrations_THz < -IMAGINARY_THZ))

    @property
    def verdict(self) -> str:
        """Highest frequency and whether this is a minimum."""
        kind = {0: "a minimum", 1: "a saddle point (one imaginary mode)"}.get(
            self.n_imaginary, f"not a minimum: {self.n_imaginary} imaginary modes"
        )
        if self.largest_force > STATIONARY:
            kind = "NOT a stationary point, relax it first: these are no normal modes"
        return (
            f"{kind}; highest frequency {self.frequencies_THz[-1]:.2f} THz ({self.wavenumbers[-1]:.0f} 1/cm), largest "
            f"force {1000.0 * self.largest_force:.2g} meV/Å"
        )

    def figure(self) -> Figure:
        """Frequencies as a ladder."""
        return probe_figures.frequencies(self.frequencies_THz)


def gamma_modes(model: Model, system: System, *, head: int = 0) -> Modes:
    """Normal modes from exact second derivatives: the forward derivative of the gradient along every coordinate.

    Args:
        model: of this package; computed with in float64.
        system: a stationary point: crystal (modes at Gamma of this cell), slab or molecule.
        head: index of the energy head.

    Raises:
        ValueError: for an element the potential does not know.
    """
    potential, params = model
    potential.check_elements(np.asarray(system.atomic_numbers).tolist())
    masses = np.repeat(masses_of(system), 3)
    with jax.enable_x64(True):
        graph = batch_graphs([system], potential.cutoff, n_atoms=system.n_atoms, heads=[head], dtype=np.float64)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        gradient, rows = jax.device_get(second_derivatives(potential, params, graph))
    matrix = 0.5 * (rows + rows.T) / np.sqrt(np.outer(masses, masses))
    return Modes(signed_root(np.linalg.eigvalsh(matrix)) * THZ, _n_rigid(system), float(np.abs(gradient).max()))


def signed_root(values: np.ndarray) -> np.ndarray:
    """Root of each value; of negative ones minus the root of their size."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _n_rigid(system: System) -> int:
    if any(system.pbc):
        return 3
    if system.n_atoms == 1:
        return 3
    centred = system.positions - system.positions.mean(axis=0)
    linear = np.linalg.matrix_rank(centred, tol=1e-3 * np.abs(centred).max()) < 2
    return 5 if linear else 6
