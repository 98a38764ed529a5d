"""Supercells for finite displacements, wide enough for the range of the forces."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import numpy as np

from mlipjax.lattice import reduced, shortest_period
from mlipjax.md.observables import masses_of
from mlipjax.probes.evaluator import Evaluator, NativeEvaluator
from mlipjax.system import System

USUAL_RANGE = 6.0
"""Å, taken for potentials that do not say how far their forces reach: the cutoff of most universal ones."""

MOST_ATOMS = 400
"""In a supercell that is chosen here; larger ones are a decision of the user's."""


def force_range(evaluate: Evaluator) -> float | None:
    """Cutoff of a potential in Å; ``None`` for foreign ones, which do not say."""
    return float(evaluate.model.potential.cutoff) if isinstance(evaluate, NativeEvaluator) else None


def primitive(system: System) -> System:
    """Smallest cell of a crystal, as it is turned and with its distortions; the system itself where there is none.

    By the symmetry of lattice and atoms (spglib), to 0.001 Å. Isotopes are different atoms.
    """
    import spglib

    atoms = np.stack([np.asarray(system.atomic_numbers, float), masses_of(system)], axis=1)
    kinds, kind = np.unique(atoms, axis=0, return_inverse=True)
    cell = (system.cell, system.positions @ np.linalg.inv(system.cell), (kind.ravel() + 1).tolist())
    with warnings.catch_warnings():
        # spglib announces that a failed search will raise one day, instead of returning None as it does now
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.standardize_cell(cell, to_primitive=True, no_idealize=True, symprec=1e-3)
    if found is None or len(found[2]) >= system.n_atoms:
        return system
    lattice, scaled, kept = found
    numbers, masses = kinds[np.asarray(kept) - 1].T
    own = None if system.masses is None else masses
    return System(np.asarray(scaled) @ np.asarray(lattice), numbers.astype(int), np.asarray(lattice), system.pbc, own)


def chosen(system: System, reach: float | None) -> tuple[tuple[int, int, int], np.ndarray]:
    """Smallest supercell in which images are twice ``reach`` (Å) apart or more, within ``MOST_ATOMS``.

    Then no pair of atoms within ``reach`` of each other is as near in another image.

    It repeats the shortest lattice vectors of the crystal, whatever the given ones are: a cell that is long and thin
    would need many times the atoms.

    Returns:
        how often each of the shortest lattice vectors is repeated, and these (3, 3) in the given ones, as integers.
    """
    wanted = 2.0 * (USUAL_RANGE if reach is None else reach)
    basis, operation = reduced(system.cell)
    lengths = np.linalg.norm(basis, axis=1)
    repeat = np.ones(3, int)
    # twice the range to the last digit is enough
    while shortest_period(repeat[:, None] * basis, system.pbc) < wanted * (1.0 - 1e-9):
        grown = repeat + np.eye(3, dtype=int)[np.argmin(repeat * lengths)]
        if system.n_atoms * grown.prod() > max(MOST_ATOMS, system.n_atoms):
            break
        repeat = grown
    a, b, c = repeat.tolist()
    return (a, b, c), operation


def check_repeat(repeat: Sequence[int]) -> Sequence[int]:
    """Return three numbers of repeats, or raise ``ValueError`` if they are none."""
    if len(repeat) != 3 or any(int(count) != count or count < 1 for count in repeat):
        raise ValueError(f"found repeat={tuple(repeat)}; expected three whole numbers, 1 or more.")
    return repeat


def repeated(system: System, repeat: Sequence[int], operation: np.ndarray) -> tuple[System, np.ndarray, np.ndarray]:
    """Supercell ``diag(repeat) @ operation @ cell``, whose first atoms are the cell's.

    Returns:
        the supercell; home atom (m,) and offset (m, 3), in lattice vectors of the system, of each of its atoms.
    """
    offsets = np.array(list(itertools.product(*(range(count) for count in repeat)))) @ operation
    positions = (offsets @ system.cell)[:, None, :] + system.positions
    numbers = np.tile(system.atomic_numbers, len(offsets))
    cell = np.asarray(repeat)[:, None] * (operation @ system.cell)
    supercell = System(positions.reshape(-1, 3), numbers, cell, system.pbc)
    return supercell, np.tile(np.arange(system.n_atoms), len(offsets)), np.repeat(offsets, system.n_atoms, axis=0)
