"""Layers of a layered crystal, found by connectivity; crystals in which one of them has slipped, and equal slips."""

from __future__ import annotations

import dataclasses
import warnings
from collections import deque
from typing import Any

import numpy as np
import spglib
from ase.data import covalent_radii

from mlipjax.defaults import BOND_FACTOR
from mlipjax.graph import neighbor_table
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class LayeredCrystal:
    """A crystal with its first two lattice vectors in the xy plane and whole layers stacked along z.

    Attributes:
        system: positions are not wrapped: every layer is in one piece, from the bottom one to the top one, and the
            interface that may slip is the one between the top layer and the next cell's bottom layer.
        layer: (N,) index of each atom's layer, from the bottom.
        gaps: (L,) Å, from the highest atom of a layer to the lowest of the next; the last one is the interface.
        interface: which of the gaps of the crystal as given, counted from its lowest layer, this is.
    """

    system: System
    layer: np.ndarray
    gaps: np.ndarray
    interface: int

    @property
    def n_layers(self) -> int:
        """Layers in the cell."""
        return len(self.gaps)

    @property
    def vectors(self) -> np.ndarray:
        """(2, 2) lattice vectors in the plane, Å."""
        return np.asarray(self.system.cell)[:2, :2]

    @property
    def area(self) -> float:
        """Å^2, of the interface in the cell."""
        return float(abs(np.linalg.det(self.vectors)))

    def slipped(self, shift: np.ndarray) -> System:
        """The crystal with everything above the interface moved by ``shift`` (2,) Å in the plane.

        Whole layers fill the cell, so it is enough to tilt the third lattice vector: one interface per cell slips.
        """
        cell = np.array(self.system.cell, np.float64)
        cell[2, :2] += shift
        return dataclasses.replace(self.system, cell=cell)


def layered(system: System, interface: int | None = None, bond_factor: float = BOND_FACTOR) -> LayeredCrystal:
    """Find the layers parallel to the first two lattice vectors.

    Args:
        system: crystal, periodic along all three vectors, of any orientation.
        interface: gap that may slip, counted from the lowest layer; the widest one by default.
        bond_factor: atoms closer than this many times the sum of their covalent radii belong together.

    Raises:
        ValueError: if the crystal is not periodic, has no gap, or no such interface.
    """
    if not all(system.pbc):
        raise ValueError(f"sliding needs a crystal periodic along all three vectors, found pbc={system.pbc}.")
    upright = _standard_form(system)
    component, offset = _components(upright, bond_factor)
    cell = np.asarray(upright.cell, np.float64)
    positions = np.asarray(upright.positions, np.float64) + offset[:, None] * cell[2]
    order, positions = _stacked(positions, component, cell)
    layer = order[component]
    heights = positions[:, 2]
    n = int(layer.max()) + 1
    bottom = np.array([heights[layer == k].min() for k in range(n)])
    top = np.array([heights[layer == k].max() for k in range(n)])
    gaps = np.append(bottom[1:], bottom[0] + cell[2, 2]) - top
    if gaps.min() <= 0.0:
        raise ValueError(
            "layers of this crystal interlock: there is no plane between them along which they could slide."
        )
    chosen = int(np.argmax(gaps)) if interface is None else interface
    if not 0 <= chosen < n:
        raise ValueError(f"interface {interface} does not exist: this crystal has the gaps 0 to {n - 1}.")
    # layers up to the interface move one cell up, so that the interface comes last
    above = layer <= chosen
    positions[above] += cell[2]
    rolled = (layer - chosen - 1) % n
    return LayeredCrystal(dataclasses.replace(upright, positions=positions), rolled, np.roll(gaps, -chosen - 1), chosen)


def _standard_form(system: System) -> System:
    """The crystal turned so that a is along x and b in the xy plane, with c pointing up.

    Of a left-handed cell c is turned round: the lattice is the same.
    """
    cell = np.array(system.cell, np.float64)
    if np.linalg.det(cell) < 0:
        cell[2] = -cell[2]
    x = cell[0] / np.linalg.norm(cell[0])
    z = np.cross(cell[0], cell[1])
    z /= np.linalg.norm(z)
    rotation = np.column_stack([x, np.cross(z, x), z])
    return dataclasses.replace(
        system, cell=cell @ rotation, positions=np.asarray(system.positions, np.float64) @ rotation
    )


def _components(system: System, bond_factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Connected component of each atom, and how many cells up it must move to be next to the rest of it.

    Raises:
        ValueError: if a component reaches its own image in the next cell up.
    """
    radii = covalent_radii[np.asarray(system.atomic_numbers)]
    table = neighbor_table(system, 2.0 * bond_factor * float(radii.max()))
    cell = np.asarray(system.cell, np.float64)
    positions = np.asarray(system.positions, np.float64)
    vectors = positions[table.neighbors] - positions[:, None] + table.shifts @ cell
    limit = bond_factor * (radii[:, None] + radii[table.neighbors])
    bonded = table.mask & (np.linalg.norm(vectors, axis=2) < limit)
    component = np.full(system.n_atoms, -1)
    offset = np.zeros(system.n_atoms, int)
    for seed in range(system.n_atoms):
        if component[seed] >= 0:
            continue
        component[seed] = component.max() + 1
        queue = deque([seed])
        while queue:
            atom = queue.popleft()
            for slot in np.flatnonzero(bonded[atom]):
                other, up = int(table.neighbors[atom, slot]), int(table.shifts[atom, slot, 2])
                if component[other] < 0:
                    component[other], offset[other] = component[seed], offset[atom] + up
                    queue.append(other)
                elif offset[other] != offset[atom] + up:
                    raise ValueError(
                        "this crystal is connected along its third lattice vector: no layers with a gap between them "
                        "were found. Choose a cell whose first two vectors lie in the layers, or lower (bond_factor)."
                    )
    return component, offset


def _stacked(positions: np.ndarray, component: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each component by height, and positions with all components' middles within one cell height."""
    n = int(component.max()) + 1
    middle = np.array([positions[component == k, 2].mean() for k in range(n)])
    up = -np.floor((middle - middle.min()) / cell[2, 2] + 1e-9)
    positions = positions + up[component][:, None] * cell[2]
    middle = middle + up * cell[2, 2]
    # components at one height are one layer (molecules side by side): join those that overlap
    ranks = np.argsort(np.argsort(middle, kind="stable"), kind="stable")
    return _joined(positions, component, ranks), positions


def _joined(positions: np.ndarray, component: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Layer of each component: components whose heights overlap share one."""
    layer = np.zeros(len(ranks), int)
    highest, current = -np.inf, -1
    for k in np.argsort(ranks):
        heights = positions[component == k, 2]
        if heights.min() > highest:
            current += 1
        layer[k] = current
        highest = max(highest, heights.max())
    return layer


SYMPREC = 1e-3
"""Å; tolerance of the symmetry search."""


def equivalent_shifts(crystal: LayeredCrystal, n: int) -> np.ndarray:
    """(n, n) flat index of the representative of each shift on an n x n grid of the two lattice vectors.

    An operation ``x -> W x + w`` of the crystal that maps the interface onto itself maps the shift ``t`` to ``W t``; if
    it turns the crystal upside down, the halves change places and it becomes ``-W t``. A translation in the plane
    that maps the crystal onto itself adds to ``t``.
    """
    matrices, translations = _operations(crystal)
    grid = np.stack(np.meshgrid(np.arange(n), np.arange(n), indexing="ij"), axis=-1).reshape(-1, 2)
    images = [grid @ matrix.T for matrix in matrices]
    for translation in translations:
        steps = translation * n
        if np.allclose(steps, np.round(steps), atol=1e-6):
            images += [image + np.round(steps).astype(int) for image in images]
    flat = np.stack([(image % n) @ np.array([n, 1]) for image in images])
    # the images generate the group when applied repeatedly: take the smallest index until nothing changes
    representative = flat.min(axis=0)
    while not np.array_equal(better := representative[flat].min(axis=0), representative):
        representative = better
    return representative.reshape(n, n)


def _operations(crystal: LayeredCrystal) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """(2, 2) integer matrices that act on shifts, and (2,) fractional translations that leave them equivalent."""
    system = crystal.system
    cell = np.asarray(system.cell, np.float64)
    fractional = np.asarray(system.positions) @ np.linalg.inv(cell)
    numbers = np.asarray(system.atomic_numbers)
    structure: Any = (cell, fractional % 1.0, numbers)
    with warnings.catch_warnings():
        # spglib announces that a failed search will raise one day, instead of returning None as it does now
        warnings.simplefilter("ignore", DeprecationWarning)
        found = spglib.get_symmetry(structure, symprec=SYMPREC)
    matrices, translations = [np.eye(2, dtype=int)], []
    if found is None:
        return matrices, translations
    bottom, top = 0, crystal.n_layers - 1
    probe = int(np.flatnonzero(crystal.layer == bottom)[0])
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        if rotation[2, 0] or rotation[2, 1] or abs(rotation[2, 2]) != 1:
            continue
        image = rotation @ fractional[probe] + translation
        difference = fractional - image
        difference -= np.round(difference)
        reached = int(np.argmin(np.linalg.norm(difference @ cell, axis=1)))
        # the layer above the interface must stay there, or become the one below if the crystal is turned over
        if crystal.layer[reached] != (bottom if rotation[2, 2] == 1 else top):
            continue
        matrices.append(rotation[2, 2] * rotation[:2, :2])
        if np.array_equal(rotation, np.eye(3)) and abs((translation[2] + 0.5) % 1.0 - 0.5) < 1e-6:
            translations.append(translation[:2])
    return _unique(matrices), [t for t in translations if np.abs(t - np.round(t)).max() > 1e-6]


def _unique(matrices: list[np.ndarray]) -> list[np.ndarray]:
    return [np.array(rows).reshape(2, 2) for rows in sorted({tuple(m.ravel().tolist()) for m in matrices})]
