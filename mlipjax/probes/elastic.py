"""Elastic constants of a crystal: clamped ions, and relaxed ions by linear response."""

from __future__ import annotations

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from mlipjax.probes.evaluator import Evaluation, Evaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.system import System
from mlipjax.units import GPA

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))

_TRANSLATION = 1e-6
"""Eigenvalues of the force-constant matrix below this part of the largest belong to rigid translations."""


@dataclasses.dataclass(frozen=True)
class ElasticConstants(ProbeResult):
    """Second derivatives of the energy with respect to strain, in Voigt order xx, yy, zz, yz, xz, xy.

    Attributes:
        clamped_GPa: (6, 6) with fractional coordinates held fixed.
        relaxed_GPa: (6, 6) with ions free to follow; equal to ``clamped_GPa`` where symmetry holds them; NaN if not
            asked for.
        residual_stress_GPa: largest component of the stress of the given cell.
        asymmetry_GPa: largest difference of ``C_IJ`` and ``C_JI`` before they were averaged: the numerical error.
    """

    clamped_GPa: np.ndarray
    relaxed_GPa: np.ndarray
    residual_stress_GPa: float
    asymmetry_GPa: float

    @property
    def best_GPa(self) -> np.ndarray:
        """Relaxed constants where they were computed, else clamped ones, (6, 6)."""
        return self.relaxed_GPa if np.all(np.isfinite(self.relaxed_GPa)) else self.clamped_GPa

    @property
    def bulk_modulus_GPa(self) -> float:
        """Average of the bounds of Voigt and Reuss (Hill, Proc. Phys. Soc. A 65, 349 (1952))."""
        return _hill(self.best_GPa)[0]

    @property
    def shear_modulus_GPa(self) -> float:
        """Likewise."""
        return _hill(self.best_GPa)[1]

    @property
    def stable(self) -> bool:
        """Born's criterion: no strain lowers the energy."""
        return bool(np.linalg.eigvalsh(self.best_GPa).min() > 0.0)

    @property
    def verdict(self) -> str:
        """The three constants a cubic crystal has (means of each kind), moduli and stability."""
        c = self.best_GPa
        kind = "relaxed ions" if c is self.relaxed_GPa else "clamped ions"
        c11, c12 = np.mean(np.diag(c)[:3]), np.mean([c[0, 1], c[0, 2], c[1, 2]])
        return (
            f"C11 {c11:.1f}, C12 {c12:.1f}, C44 {np.mean(np.diag(c)[3:]):.1f} GPa (means over axes, {kind}), bulk "
            f"{self.bulk_modulus_GPa:.1f}, shear {self.shear_modulus_GPa:.1f} GPa; "
            + ("stable" if self.stable else "UNSTABLE: a strain lowers the energy")
        )

    def figure(self) -> Figure:
        """Both matrices as tables of colour."""
        return probe_figures.elastic_constants(self.clamped_GPa, self.relaxed_GPa)


_DISPLACEMENT = 5e-3
"""Å, of each atom, for the force constants."""

_NO_STIFFNESS_GPA = 1e-6
"""Largest constant of a cell whose atoms feel nothing of each other."""

_LARGEST_STRESS_GPA = 1.0
"""Constants of a cell under more stress would not be the crystal's."""


def elastic_constants(
    evaluate: Evaluator,
    system: System,
    *,
    relax_ions: bool = True,
    strain: float = 1e-3,
) -> ElasticConstants:
    """Differentiate stresses and forces numerically; all strained and displaced cells are evaluated together.

    With ``e`` the strain, ``u`` the displacements and ``H = d2E/du2``, ions that follow the strain lower the
    constants to ``C = (d2E/de2 - (d2E/de du) H^-1 (d2E/du de)) / V`` (Wu, Vanderbilt, Hamann, Phys. Rev. B 72, 035105
    (2005)); no relaxation is run. Central differences: the error is of second order in ``strain``.

    Args:
        evaluate: the potential; must give stresses.
        system: a crystal at its equilibrium (or use ``equation_of_state`` first).
        relax_ions: also compute the relaxed constants: 6 evaluations more per atom.
        strain: of each of the twelve deformed cells.

    Raises:
        ValueError: if the cell is not periodic, under stress, the potential gives no stress, or (with ``relax_ions``)
            the ions are not at a minimum, or nothing holds the atoms together.
    """
    if not all(system.pbc):
        raise ValueError(f"elastic constants need a crystal periodic along all axes, found pbc={system.pbc}.")
    strained = [deformed(system, sign * strain * _unit_strain(j)) for j in range(6) for sign in (1.0, -1.0)]
    moved = displaced(system, _DISPLACEMENT) if relax_ions else []
    rest, *results = evaluate([system, *strained, *moved])
    stress = _voigt_stress(rest)
    residual = float(np.abs(stress).max() / GPA)
    if residual > _LARGEST_STRESS_GPA:
        raise ValueError(
            f"the cell is under a stress of {residual:.2f} GPa (limit {_LARGEST_STRESS_GPA}); relax it first: "
            "constants of a stressed cell are not those of the crystal."
        )
    pairs = list(zip(results[:12:2], results[1:12:2], strict=True))
    # engineering shear is twice the tensor's, which _unit_strain accounts for: no factors of two below
    matrix = np.array([(_voigt_stress(up) - _voigt_stress(down)) / (2.0 * strain) for up, down in pairs]).T
    if not np.abs(matrix).max() > _NO_STIFFNESS_GPA * GPA:
        raise ValueError("no strain gives a stress: the atoms of this cell are too far apart to feel each other.")
    asymmetry = float(np.abs(matrix - matrix.T).max() / GPA)
    clamped = 0.5 * (matrix + matrix.T)
    relaxed = np.full((6, 6), np.nan)
    if relax_ions:
        internal = np.array([(up.forces - down.forces).ravel() / (2.0 * strain) for up, down in pairs])  # -d2E/(de du)
        volume = float(abs(np.linalg.det(system.cell)))
        relaxed = clamped - internal @ _inverse(hessian(results[12:], _DISPLACEMENT)) @ internal.T / volume
    return ElasticConstants(clamped / GPA, relaxed / GPA, residual, asymmetry)


def deformed(system: System, strain: np.ndarray) -> System:
    """The structure under a symmetric strain (3, 3), fractional coordinates fixed."""
    map_ = np.eye(3) + strain
    return dataclasses.replace(system, positions=system.positions @ map_, cell=system.cell @ map_)


def displaced(system: System, displacement: float, n: int | None = None) -> list[System]:
    """Each atom (each of the first ``n``) moved along each axis, forth and back: 6 n structures."""
    rows = 3 * (system.n_atoms if n is None else n)
    moves = displacement * np.eye(rows, 3 * system.n_atoms).reshape(rows, system.n_atoms, 3)
    return [
        dataclasses.replace(system, positions=system.positions + sign * move) for move in moves for sign in (1.0, -1.0)
    ]


def hessian(results: list[Evaluation], displacement: float) -> np.ndarray:
    """Force constants d2E/du2 (3 n, 3 n) in eV/Å^2, from evaluations of ``displaced`` structures."""
    forces = np.array([result.forces.ravel() for result in results])
    matrix = -(forces[0::2] - forces[1::2]) / (2.0 * displacement)
    return 0.5 * (matrix + matrix.T)


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Inverse of force constants on all displacements but rigid translations."""
    values, vectors = np.linalg.eigh(matrix)
    n_atoms = len(matrix) // 3
    translations = np.tile(np.eye(3), n_atoms).T / np.sqrt(n_atoms)
    rigid = np.sum((translations.T @ vectors) ** 2, axis=0) > 0.5
    if values[~rigid].min(initial=np.inf) < _TRANSLATION * max(values.max(), 1.0):
        raise ValueError(
            f"the ions are not at a minimum: a displacement has the force constant {values[~rigid].min():.3g} eV/Å^2. "
            "Relax them first, or ask for clamped ions."
        )
    vectors, values = vectors[:, ~rigid], values[~rigid]
    return (vectors / values) @ vectors.T


def _unit_strain(component: int) -> np.ndarray:
    """Tensor of a Voigt component's unit: half of the engineering shear on either side of the diagonal."""
    i, j = VOIGT[component]
    tensor = np.zeros((3, 3))
    tensor[i, j] += 0.5
    tensor[j, i] += 0.5
    return tensor


def _voigt_stress(result: Evaluation) -> np.ndarray:
    if result.stress is None:
        raise ValueError("this potential gives no stress; elastic constants need one.")
    return np.array([result.stress[index] for index in VOIGT])


def _hill(c: np.ndarray) -> tuple[float, float]:
    s = np.linalg.pinv(c)

    def sums(m: np.ndarray) -> tuple[float, float, float]:
        return np.trace(m[:3, :3]), m[0, 1] + m[0, 2] + m[1, 2], np.trace(m[3:, 3:])

    diagonal, mixed, shear = sums(c)
    bulk_voigt, shear_voigt = (diagonal + 2 * mixed) / 9, (diagonal - mixed + 3 * shear) / 15
    diagonal, mixed, shear = sums(s)
    bulk_reuss, shear_reuss = 1 / (diagonal + 2 * mixed), 15 / (4 * diagonal - 4 * mixed + 3 * shear)
    return float(0.5 * (bulk_voigt + bulk_reuss)), float(0.5 * (shear_voigt + shear_reuss))
