"""Equation of state: energy against volume, and what a Birch-Murnaghan fit makes of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from mlipjax.probes.evaluator import Evaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.system import System
from mlipjax.units import GPA

_LARGEST_RESIDUAL = 0.02
"""Of the fit, as a part of the largest energy difference: above it the curve is no equation of state."""

_USUAL = (1.0, 10.0)
"""Pressure derivatives of the bulk modulus of known solids: mostly 3 to 6."""


@dataclasses.dataclass(frozen=True)
class EquationOfState(ProbeResult):
    """Energies of a crystal scaled isotropically, atoms at fixed fractional coordinates.

    Attributes:
        volumes: (m,) Å^3 of the cell.
        energies: (m,) eV.
        pressures_GPa: (m,) from the potential's stress, positive in compression; NaN where it gives none.
        volume: Å^3 where the fit is lowest.
        energy: eV there.
        bulk_modulus_GPa: there.
        bulk_modulus_derivative: dB/dp there, dimensionless.
        residual: eV, root mean square of the fit.
        n_atoms: in the cell.
        scale: length scale from the given cell to that volume.
    """

    volumes: np.ndarray
    energies: np.ndarray
    pressures_GPa: np.ndarray
    volume: float
    energy: float
    bulk_modulus_GPa: float
    bulk_modulus_derivative: float
    residual: float
    n_atoms: int
    scale: float

    @property
    def verdict(self) -> str:
        """Volume, bulk modulus and quality of the fit."""
        unusual = not _USUAL[0] < self.bulk_modulus_derivative < _USUAL[1]
        warning = (
            f"; WARNING: B' is {_USUAL[0]:g} to {_USUAL[1]:g} in known solids, the curve is uneven" if unusual else ""
        )
        return (
            f"equilibrium volume {self.volume / self.n_atoms:.3f} Å^3/atom (lengths x {self.scale:.4f}), bulk modulus "
            f"{self.bulk_modulus_GPa:.1f} GPa, B' {self.bulk_modulus_derivative:.2f}; fit residual "
            f"{1000.0 * self.residual / self.n_atoms:.2g} meV/atom{warning}"
        )

    def figure(self) -> Figure:
        """Energies and the fitted curve."""
        volumes = np.linspace(self.volumes[0], self.volumes[-1], 200)
        coefficients = _fit(self.volumes, self.energies)
        return probe_figures.equation_of_state(
            self.volumes / self.n_atoms,
            (self.energies - self.energy) / self.n_atoms,
            volumes / self.n_atoms,
            (np.polyval(coefficients, volumes ** (-2.0 / 3.0)) - self.energy) / self.n_atoms,
        )


def equation_of_state(
    evaluate: Evaluator, system: System, *, largest_strain: float = 0.06, n_points: int = 11
) -> EquationOfState:
    """Scale the volume of a crystal and fit the Birch-Murnaghan equation of third order.

    In ``x = V^(-2/3)`` the equation is a cubic polynomial (Birch, Phys. Rev. 71, 809 (1947)), so the fit is linear.

    Args:
        evaluate: the potential.
        system: a crystal near its equilibrium volume; ions are not relaxed at each volume.
        largest_strain: volumes go from ``1 - largest_strain`` to ``1 + largest_strain`` times the given one; if the
            minimum is in the outer half of them, once more around it.
        n_points: number of volumes, at least 5.

    Raises:
        ValueError: if the cell is not periodic along all axes, the minimum is not between the volumes tried, or the
            energies do not follow the equation.
    """
    if not all(system.pbc):
        raise ValueError(f"an equation of state needs a crystal periodic along all axes, found pbc={system.pbc}.")
    if n_points < 5 or not 0.0 < largest_strain < 0.5:
        raise ValueError(
            f"found {n_points=} and {largest_strain=}; expected at least 5 points and a strain in (0, 0.5)."
        )
    given = float(abs(np.linalg.det(system.cell)))
    parts = np.linspace(1.0 - largest_strain, 1.0 + largest_strain, n_points)
    volumes, energies, pressures = _curve(evaluate, system, given * parts)
    center = _minimum(volumes, energies)[0]
    if abs(center / given - 1.0) > 0.5 * largest_strain:  # a minimum near the end is badly conditioned
        volumes, energies, pressures = _curve(evaluate, system, center * parts)
    volume, energy, modulus, derivative = _minimum(volumes, energies)
    fitted = np.polyval(_fit(volumes, energies), volumes ** (-2.0 / 3.0))
    residual = float(np.sqrt(np.mean((fitted - energies) ** 2)))
    if residual > _LARGEST_RESIDUAL * np.ptp(energies):
        raise ValueError(
            f"the energies do not follow an equation of state: residual {1000.0 * residual:.3g} meV of a range of "
            f"{1000.0 * np.ptp(energies):.3g} meV. Look at the curve; a smaller strain may do."
        )
    return EquationOfState(
        volumes=volumes,
        energies=energies,
        pressures_GPa=pressures,
        volume=volume,
        energy=energy,
        bulk_modulus_GPa=modulus / GPA,
        bulk_modulus_derivative=derivative,
        residual=residual,
        n_atoms=system.n_atoms,
        scale=(volume / given) ** (1.0 / 3.0),
    )


def _curve(evaluate: Evaluator, system: System, volumes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Volumes, energies and pressures in GPa."""
    given = float(abs(np.linalg.det(system.cell)))
    results = evaluate([scaled(system, (volume / given) ** (1.0 / 3.0)) for volume in volumes])
    pressures = [np.nan if r.stress is None else -np.trace(r.stress) / 3.0 / GPA for r in results]
    return volumes, np.array([result.energy for result in results]), np.array(pressures)


def scaled(system: System, factor: float) -> System:
    """The structure with all lengths multiplied by ``factor``."""
    return dataclasses.replace(system, positions=system.positions * factor, cell=system.cell * factor)


def _fit(volumes: np.ndarray, energies: np.ndarray) -> np.ndarray:
    """Coefficients of the cubic in ``V^(-2/3)``, highest power first."""
    return np.polyfit(volumes ** (-2.0 / 3.0), energies, 3)


def _minimum(volumes: np.ndarray, energies: np.ndarray) -> tuple[float, float, float, float]:
    """Volume, energy, bulk modulus (eV/Å^3) and its pressure derivative at the minimum of the fit."""
    cubic = np.poly1d(_fit(volumes, energies))
    slope, curvature, third = cubic.deriv(1), cubic.deriv(2), cubic.deriv(3)
    roots = [root.real for root in slope.roots if abs(root.imag) < 1e-9 and root.real > 0 and curvature(root.real) > 0]
    inside = [root ** (-1.5) for root in roots if volumes[0] < root ** (-1.5) < volumes[-1]]
    if not inside:
        raise ValueError(
            f"no minimum of the energy between {volumes[0]:.2f} and {volumes[-1]:.2f} Å^3: the lowest of the volumes "
            f"tried is {volumes[np.argmin(energies)]:.2f}; relax the cell first."
        )
    volume = float(inside[0])
    x = volume ** (-2.0 / 3.0)
    # chain rule: dx/dV = -2/3 x/V; at the minimum dE/dx = 0
    second = 4.0 / 9.0 * x**2 / volume**2 * curvature(x)
    modulus = volume * second
    d3 = -(8.0 / 27.0 * x**3 / volume**3 * third(x) + 20.0 / 9.0 * x**2 / volume**3 * curvature(x))
    derivative = -1.0 - volume * d3 / second
    return volume, float(cubic(x)), float(modulus), float(derivative)
