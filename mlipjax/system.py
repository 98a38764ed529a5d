"""One atomic structure and its labels, and the conversion from and to ASE at the edge of the program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from flax import struct

if TYPE_CHECKING:
    from ase import Atoms


@struct.dataclass
class System:
    """An atomic structure; arrays are numpy on the host, JAX inside compiled programs.

    Attributes:
        positions: (n, 3) Å.
        atomic_numbers: (n,) integers.
        cell: (3, 3) Å, lattice vectors as rows; all zero for a molecule without a cell.
        pbc: periodicity along the three lattice vectors (static).
        masses: (n,) amu where they are not the standard atomic weights (isotopes), otherwise ``None``.
    """

    positions: Any
    atomic_numbers: Any
    cell: Any
    pbc: tuple[bool, bool, bool] = struct.field(pytree_node=False, default=(True, True, True))
    masses: Any = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return self.positions.shape[-2]

    @property
    def volume(self) -> float:
        """Volume of the cell in Å^3 (on the host); 0 without one."""
        return abs(float(np.linalg.det(np.asarray(self.cell, np.float64))))

    @classmethod
    def from_ase(cls, atoms: Atoms) -> System:
        """Copy structure and masses (not labels) from an ``ase.Atoms``, in float64 on the host."""
        return cls(
            positions=np.array(atoms.positions, dtype=np.float64),
            atomic_numbers=np.array(atoms.numbers, dtype=np.int32),
            cell=np.array(atoms.cell.array, dtype=np.float64),
            pbc=(bool(atoms.pbc[0]), bool(atoms.pbc[1]), bool(atoms.pbc[2])),
            masses=_own_masses(atoms),
        )

    def to_ase(self) -> Atoms:
        """Return the structure as an ``ase.Atoms`` (float64, no calculator)."""
        from ase import Atoms

        return Atoms(
            numbers=np.asarray(self.atomic_numbers),
            positions=np.asarray(self.positions, dtype=np.float64),
            cell=np.asarray(self.cell, dtype=np.float64),
            pbc=self.pbc,
            masses=None if self.masses is None else np.asarray(self.masses, dtype=np.float64),
        )


@struct.dataclass
class Labels:
    """Reference energy, forces and stress of one structure (or, batched, of ``G`` structures).

    A missing label has weight 0 and value 0; it is never an invented number.

    Attributes:
        energy: () or (G,) eV.
        forces: (n, 3) or (N, 3) eV/Å.
        stress: (3, 3) or (G, 3, 3) eV/Å^3, tension positive.
        energy_weight, forces_weight, stress_weight: () or (G,), 0 where the label is missing.
        properties: further labels by name, the same ones for every structure of a data set: a number of each, () or
            (G,), or a vector of each atom, (n, 3) or (N, 3).
    """

    energy: Any
    forces: Any
    stress: Any
    energy_weight: Any
    forces_weight: Any
    stress_weight: Any
    properties: Mapping[str, Any] = struct.field(default_factory=dict)

    @classmethod
    def create(
        cls,
        n_atoms: int,
        energy: float | None = None,
        forces: Any = None,
        stress: Any = None,
        weight: float = 1.0,
        properties: Mapping[str, Any] | None = None,
    ) -> Labels:
        """Labels of one structure with ``n_atoms`` atoms; whatever is ``None`` gets weight 0.

        Raises:
            ValueError: one of them is not made of real numbers (numpy would drop imaginary parts, and parse text).
        """

        def known(value):
            return np.float64(0.0 if value is None else weight)

        return cls(
            energy=np.float64(0.0) if energy is None else _real("energy", energy)[()],
            forces=np.zeros((n_atoms, 3)) if forces is None else _real("forces", forces),
            stress=np.zeros((3, 3)) if stress is None else _real("stress", stress),
            energy_weight=known(energy),
            forces_weight=known(forces),
            stress_weight=known(stress),
            properties={} if properties is None else properties,
        )

    @classmethod
    def from_ase(cls, atoms: Atoms) -> Labels:
        """Read the labels stored in ``atoms.calc`` (as ASE's extxyz reader leaves them); absent ones get weight 0."""
        results = atoms.calc.results if atoms.calc is not None else {}
        stress = None if results.get("stress") is None else stress_matrix(np.asarray(results["stress"], np.float64))
        return cls.create(len(atoms), results.get("energy"), results.get("forces"), stress)


def with_results(atoms: Atoms, **results: Any) -> Atoms:
    """Give a structure results of a calculation, in place of whatever calculator it had, and return it."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def _own_masses(atoms: Atoms) -> np.ndarray | None:
    """Masses (n,) that a structure was given, unless all are the standard ones."""
    from ase.data import atomic_masses

    if not atoms.has("masses"):
        return None
    masses = np.array(atoms.get_masses(), dtype=np.float64)
    return None if np.array_equal(masses, atomic_masses[atoms.numbers]) else masses


def _real(name: str, value: Any) -> Any:
    """Numbers as float64, the same array if they are."""
    array = np.asarray(value)
    if array.dtype.kind in "cSUO":
        raise ValueError(f"{name} must be real numbers, found {array.dtype}")
    return array.astype(np.float64, copy=False)


_VOIGT = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
"""Place of each component of a symmetric matrix in Voigt order xx, yy, zz, yz, xz, xy."""


def voigt_to_full(voigt: np.ndarray) -> np.ndarray:
    """(..., 3, 3) symmetric tensors of their components (..., 6) in Voigt order xx, yy, zz, yz, xz, xy."""
    return np.asarray(voigt)[..., _VOIGT]


def full_to_voigt(full: np.ndarray) -> np.ndarray:
    """(..., 6) components in Voigt order xx, yy, zz, yz, xz, xy of symmetric tensors (..., 3, 3)."""
    return np.asarray(full)[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]


def stress_matrix(stress: np.ndarray) -> np.ndarray:
    """(3, 3) stress of six Voigt components, of nine, or of a matrix."""
    stress = np.asarray(stress)
    return voigt_to_full(stress) if stress.shape == (6,) else stress.reshape(3, 3)
