"""Two atoms from beyond their bond into the wall."""

from __future__ import annotations

from collections.abc import Generator

import jax
import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from experiments.pretrain.compositions import ELEMENTS, anion, cation
from mlipjax.elements import covalent_radii
from mlipjax.nn.pair_repulsion import screened_coulomb
from mlipjax.probes.evaluator import Evaluation

REACH = np.array([2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.7, 0.6])
"""Distances of a pair, in units of the sum of its covalent radii, from outside to inside."""
MOST_WALL = 60.0  # eV/Å
_ENOUGH = 12.0
"""eV/Å: a teacher that repels so much is not asked further in."""


def dimers(rng: np.random.Generator) -> Generator[Atoms, Evaluation, None]:
    """Two atoms from beyond their bond into the wall.

    The teacher knows few isolated pairs. Its labels are taken as long as, from outside inwards, its force turns to
    repulsion and then grows. Where that ends, at ``r``, the wall goes on as the screened nuclear repulsion Z (Ziegler,
    Biersack, Littmark) does, without a step in energy or force::

        F(s) = F(r) + F_Z(s) - F_Z(r),    E(s) = E(r) + E_Z(s) - E_Z(r) - (F(r) - F_Z(r)) (s - r)    for s < r
    """
    numbers = np.array([cation(rng) if rng.random() < 0.7 else anion(rng), int(rng.choice(ELEMENTS))])
    bond = float(covalent_radii(numbers).sum())
    energies, forces = [], []
    for distance in bond * REACH:
        found = yield pair(numbers, distance)
        energies.append(found.energy)
        forces.append(float(found.forces[1, 0]))
        if forces[-1] > _ENOUGH:
            break
    last = sane(np.array(forces))
    yield from _wall(rng, numbers, bond * REACH[last], energies[last], forces[last])


def sane(forces: np.ndarray) -> int:
    """Index of the innermost of forces (outside to inside, positive repels) up to which they make sense.

    Beginning with the sum of the covalent radii, where attraction is well possible.
    """
    start = int(np.flatnonzero(REACH <= 1.0)[0])
    last = start
    for k in range(start + 1, len(forces)):
        if forces[k] < max(forces[k - 1], 0.0) - 1.0:
            break
        last = k
    return last


def _wall(
    rng: np.random.Generator, numbers: np.ndarray, r: float, energy: float, force: float
) -> Generator[Atoms, Evaluation, None]:
    at_end = _repulsion(numbers, r)
    force = max(force, 0.0)
    for distance in rng.uniform(0.5, max(r, 0.55), 3):
        inner = _repulsion(numbers, distance)
        pushed = force + inner[1] - at_end[1]
        if distance >= r or pushed > MOST_WALL:
            continue
        atoms = pair(numbers, distance)
        lifted = energy + inner[0] - at_end[0] - (force - at_end[1]) * (distance - r)
        labels = {"energy": lifted, "forces": np.array([[-pushed, 0, 0], [pushed, 0, 0]])}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        yield atoms


_energy_and_slope = jax.jit(jax.value_and_grad(screened_coulomb))


def _repulsion(numbers: np.ndarray, distance: float) -> tuple[float, float]:
    """Screened nuclear repulsion of two atoms: energy in eV, force in eV/Å."""
    energy, slope = _energy_and_slope(float(distance), tuple(numbers.astype(float).tolist()))
    return float(energy), -float(slope)


def pair(numbers: np.ndarray, distance: float) -> Atoms:
    """Two atoms along x."""
    return Atoms(numbers, positions=[[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
