"""Force constants in the file of phonopy (Togo et al., J. Phys.: Condens. Matter 35, 353001 (2023))."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlipjax.elements import symbols
from mlipjax.system import System


def phonopy_yaml(
    cell: System,
    masses: np.ndarray,
    basis: np.ndarray,
    repeat: Sequence[int],
    offset: np.ndarray,
    force_constants: np.ndarray,
) -> str:
    """A ``phonopy.yaml`` with compact force constants, in the cell of the lattice vectors that were repeated.

    Phonopy numbers the atoms of a supercell by itself: for each atom of the cell its images, the first lattice vector
    running fastest. Force constants are written in this order.

    Args:
        cell: (n) atoms of the crystal.
        masses: (n,) amu.
        basis: (3, 3) integers, lattice vectors that are repeated in those of the cell.
        repeat: how often.
        offset: (m, 3) cell of each atom of the supercell, whose atoms come cell by cell.
        force_constants: (n, 3, m, 3) eV/Å^2.
    """
    lattice = basis @ np.asarray(cell.cell, np.float64)
    scaled = np.asarray(cell.positions, np.float64) @ np.linalg.inv(lattice)
    inside = scaled % 1.0
    moved = np.round(inside - scaled).astype(int)  # lattice vectors by which an atom is taken into the cell
    within = np.round(offset @ np.linalg.inv(basis)).astype(int)  # in the vectors that are repeated
    n = len(scaled)
    rows = {(row % n, *where): row for row, where in enumerate((within % np.asarray(repeat)).tolist())}
    images = np.array([(x, y, z) for z in range(repeat[2]) for y in range(repeat[1]) for x in range(repeat[0])])
    lines = [
        "physical_unit:",
        '  atomic_mass: "AMU"',
        '  length: "angstrom"',
        '  force_constants: "eV/angstrom^2"',
        "primitive_matrix:",
        *_rows(np.eye(3)),
        "supercell_matrix:",
        *_rows(np.diag(repeat)),
        "unit_cell:",
        "  lattice:",
        *_rows(lattice, "  "),
        "  points:",
    ]
    for symbol, point, mass in zip(symbols(cell.atomic_numbers), inside, masses, strict=True):
        lines += [f"  - symbol: {symbol}", f"    coordinates: {_row(point)}", f"    mass: {mass:.6f}"]
    lines += ["force_constants:", '  format: "compact"', f"  shape: [{n}, {len(offset)}]", "  elements:"]
    for i in range(n):
        # seen from where i was taken from
        there = [
            (h, *cell) for h in range(n) for cell in ((images + moved[h] - moved[i]) % np.asarray(repeat)).tolist()
        ]
        for j, target in enumerate(there):
            lines += [f"  - # ({i + 1}, {j + 1})", *_rows(force_constants[i, :, rows[target], :], "    ")]
    return "\n".join(lines) + "\n"


def _rows(matrix: np.ndarray, indent: str = "") -> Iterable[str]:
    return (f"{indent}- {_row(row)}" for row in matrix)


def _row(values: np.ndarray) -> str:
    return "[" + ", ".join(f"{value:.15f}" if isinstance(value, float) else str(value) for value in values) + "]"
