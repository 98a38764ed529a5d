"""A rough classical force field: it shakes structures into plausible shapes, it labels nothing.

Molecules keep their bonds and angles by harmonic springs between first and second neighbours; everything else
meets through Lennard-Jones walls and screened charges (damped shifted force: Fennell and Gezelter, J. Chem.
Phys. 124, 234104 (2006)). Sampling with it costs a thousandth of a quantum-mechanical trajectory, and its
errors do no harm, because every structure is labelled afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from scipy.special import erfc

COULOMB = 14.399645  # e^2 / (4 pi eps0) in eV Å

# Half the distance of the Lennard-Jones minimum, Å: close to van der Waals radii for atoms in molecules and to
# ionic radii for metals, which occur as cations.
RADIUS = {
    "H": 1.35, "Li": 0.85, "B": 1.80, "C": 1.85, "N": 1.75, "O": 1.70, "F": 1.60, "Na": 1.15, "Mg": 0.95,
    "Al": 0.80, "Si": 1.20, "P": 1.90, "S": 1.95, "Cl": 2.10, "K": 1.55, "Ca": 1.30, "Ti": 1.00, "Co": 1.00,
    "Ni": 0.95, "Cu": 1.00, "Zn": 1.00, "Br": 2.20,
}  # fmt: skip
POLAR_HYDROGEN_RADIUS = 0.45
WELL_DEPTH = 0.006  # eV
BOND_STIFFNESS, ANGLE_STIFFNESS = 25.0, 6.0  # eV/Å^2
DAMPING = 0.2  # 1/Å


@dataclass(frozen=True)
class Topology:
    """Knowledge that the force field needs of a structure: springs, charges, sizes and excluded pairs."""

    springs: np.ndarray  # (n_springs, 2) atom indices
    lengths: np.ndarray  # (n_springs,) Å
    stiffness: np.ndarray  # (n_springs,) eV/Å^2
    charges: np.ndarray  # (n,) e
    radii: np.ndarray  # (n,) Å
    excluded: np.ndarray  # (n, n) bool: pairs without non-bonded interaction

    @staticmethod
    def of_molecule(molecule: Atoms, charges: np.ndarray) -> Topology:
        """Springs between bonded atoms and between atoms bonded to a common one, at their present lengths."""
        n = len(molecule)
        bonded = bonds(molecule)
        second = (bonded.astype(int) @ bonded.astype(int) > 0) & ~bonded
        np.fill_diagonal(second, False)
        pairs = np.argwhere(np.triu(bonded | second))
        stiffness = np.where(bonded[pairs[:, 0], pairs[:, 1]], BOND_STIFFNESS, ANGLE_STIFFNESS)
        lengths = np.linalg.norm(molecule.positions[pairs[:, 0]] - molecule.positions[pairs[:, 1]], axis=1)
        symbols = np.array(molecule.get_chemical_symbols())
        radii = np.array([RADIUS[s] for s in symbols])
        polar = (symbols == "H") & (bonded @ np.isin(symbols, ["N", "O", "F"]))
        radii[polar] = POLAR_HYDROGEN_RADIUS
        excluded = bonded | second | np.eye(n, dtype=bool)
        return Topology(pairs, lengths, stiffness, np.asarray(charges, float), radii, excluded)

    @staticmethod
    def join(parts: list[Topology]) -> Topology:
        """Topology of molecules listed one after the other."""
        sizes = [len(part.charges) for part in parts]
        starts = np.cumsum([0, *sizes[:-1]])
        excluded = np.zeros((sum(sizes), sum(sizes)), bool)
        for start, size, part in zip(starts, sizes, parts, strict=True):
            excluded[start : start + size, start : start + size] = part.excluded
        return Topology(
            np.concatenate([part.springs + start for part, start in zip(parts, starts, strict=True)]),
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.stiffness for part in parts]),
            np.concatenate([part.charges for part in parts]),
            np.concatenate([part.radii for part in parts]),
            excluded,
        )


def bonds(molecule: Atoms) -> np.ndarray:
    """(n, n) bool: pairs closer than 1.15 times the sum of their covalent radii."""
    radii = natural_cutoffs(molecule, mult=1.15)  # pyright: ignore[reportArgumentType]
    neighbors = build_neighbor_list(molecule, radii, self_interaction=False)
    bonded = np.asarray(neighbors.get_connectivity_matrix(sparse=False), dtype=bool)
    return bonded | bonded.T


class ForceField(Calculator):
    """ASE calculator (energy, forces) with the minimum image of an orthorhombic cell, or none for clusters."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, topology: Topology):
        super().__init__()
        self.topology = topology

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        """Fill ``results``; see :class:`ForceField`."""
        super().calculate(atoms, properties, system_changes)
        structure: Any = self.atoms
        top, positions = self.topology, structure.positions
        box = np.diag(structure.cell.array) if structure.pbc.all() else None
        cutoff = 9.0 if box is None else min(0.5 * box.min(), 9.0)
        delta = _minimum_image(positions[None] - positions[:, None], box)  # from row to column
        distance = np.sqrt((delta**2).sum(-1))
        energy, slope = _nonbonded(np.where(top.excluded, cutoff, distance), top, cutoff)
        slope[top.excluded] = 0.0
        pull = (slope / np.where(top.excluded, 1.0, distance))[..., None] * delta
        forces = pull.sum(axis=1)
        energy = 0.5 * energy[~top.excluded].sum()

        i, j = top.springs.T
        spring = _minimum_image(positions[j] - positions[i], box)
        length = np.sqrt((spring**2).sum(-1))
        stretch = length - top.lengths
        energy += 0.5 * (top.stiffness * stretch**2).sum()
        pull = (top.stiffness * stretch / length)[:, None] * spring
        np.add.at(forces, i, pull)
        np.add.at(forces, j, -pull)
        self.results = {"energy": energy, "forces": forces}


def _minimum_image(delta: np.ndarray, box: np.ndarray | None) -> np.ndarray:
    return delta if box is None else delta - box * np.round(delta / box)


def _nonbonded(distance: np.ndarray, top: Topology, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair energies and their slopes dE/dr, both (n, n); zero beyond the cutoff."""
    r = np.clip(distance, 0.4, None)
    ratio6 = ((top.radii[:, None] + top.radii) / r) ** 6
    energy = WELL_DEPTH * (ratio6**2 - 2 * ratio6)
    slope = -12 * WELL_DEPTH * (ratio6**2 - ratio6) / r

    def screened(x):
        gauss = 2 * DAMPING / np.sqrt(np.pi) * np.exp(-((DAMPING * x) ** 2))
        return erfc(DAMPING * x) / x, -erfc(DAMPING * x) / x**2 - gauss / x

    value, first = screened(r)
    value_c, first_c = screened(cutoff)
    charge = COULOMB * top.charges[:, None] * top.charges
    energy = energy + charge * (value - value_c - first_c * (r - cutoff))
    slope = slope + charge * (first - first_c)
    inside = distance < cutoff
    return np.where(inside, energy, 0.0), np.where(inside, slope, 0.0)
