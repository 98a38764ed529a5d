"""Phonons of a crystal by finite displacements in a supercell: bands, density of states, thermal properties."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
from typing import Any, ClassVar

import numpy as np
from matplotlib.figure import Figure

from mlipjax.files import write_atomic
from mlipjax.lattice import nearest_translations, shortest_period
from mlipjax.md.observables import masses_of
from mlipjax.probes.band_path import BandPath, band_path
from mlipjax.probes.elastic import displaced
from mlipjax.probes.evaluator import Evaluator
from mlipjax.probes.gamma import IMAGINARY_THZ, STATIONARY, THZ, signed_root
from mlipjax.probes.phonopy_file import phonopy_yaml
from mlipjax.probes.result import ProbeResult
from mlipjax.probes.supercells import check_repeat, chosen, force_range, primitive, repeated
from mlipjax.probes.thermal import Thermal, thermal_properties
from mlipjax.report import probe_figures
from mlipjax.system import System
from mlipjax.units import BOLTZMANN, GPA

_STRESS_GPA = 1.0
"""Above it a cell is not the crystal's own; the limit of the elastic constants."""

_MESH_LENGTH = 60.0
"""Å: a mesh has as many wave vectors along each direction as cells fit into this length."""

_TEMPERATURES = np.arange(0.0, 1001.0, 10.0)
_ROOM = 300.0


@dataclasses.dataclass(frozen=True)
class Phonons(ProbeResult):
    """Force constants of a crystal and the frequencies they give. Imaginary frequencies are negative numbers.

    Attributes:
        cell: the cell whose vibrations these are: that given, or its primitive one.
        n_given: atoms of the cell that was given.
        force_constants: (n, 3, m, 3) eV/Å^2 between atoms of the cell and atoms of the supercell.
        links: for each pair (atom of the cell, atom of the supercell), lattice vectors (k, 3) of the cell to its
            nearest image or images.
        home: (m,) atom of the cell that each atom of the supercell repeats.
        offset: (m, 3) and in which cell it lies, in lattice vectors.
        masses: (n,) amu.
        path: through the Brillouin zone.
        bands_THz: (q, 3 n) along it.
        mesh: wave vectors along each direction, and
        mesh_THz: (k, 3 n) there, each counting alike; of q and -q one is there.
        thermal: properties of one cell, from the mesh.
        acoustic_error: eV/Å^2, largest net force constant of a rigid translation before it was removed.
        basis: (3, 3) integers, the lattice vectors that are repeated in those of the cell, and
        repeat: how often each is.
        image_distance_A: of an atom from its nearest image in the supercell.
        force_range_A: distance at which forces of this potential end; NaN where it does not say.
        largest_force: eV/Å, on an atom of the cell as given, and
        largest_stress_GPa: its stress; NaN where the potential gives none.
    """

    not_in_json: ClassVar[tuple[str, ...]] = ("cell", "force_constants", "links", "home", "offset", "mesh_THz")

    cell: System = dataclasses.field(repr=False)
    n_given: int
    force_constants: np.ndarray = dataclasses.field(repr=False)
    links: tuple[tuple[np.ndarray, ...], ...] = dataclasses.field(repr=False)
    home: np.ndarray
    offset: np.ndarray
    masses: np.ndarray
    path: BandPath
    bands_THz: np.ndarray
    mesh: tuple[int, int, int]
    mesh_THz: np.ndarray
    thermal: Thermal
    acoustic_error: float
    basis: np.ndarray
    repeat: tuple[int, int, int]
    image_distance_A: float
    force_range_A: float
    largest_force: float
    largest_stress_GPa: float

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes on the mesh."""
        return int(np.sum(self.mesh_THz < -IMAGINARY_THZ))

    @property
    def verdict(self) -> str:
        """Highest frequency, dynamical stability, heat capacity, the supercell, and what speaks against them."""
        stable = "dynamically stable" if not self.n_imaginary else f"UNSTABLE: {self.n_imaginary} imaginary modes"
        if self.largest_force > STATIONARY:
            stable = f"NOT a stationary point, relax it first ({self.n_imaginary} imaginary modes)"
        stress = f" and a stress of {self.largest_stress_GPa:.2g} GPa" if np.isfinite(self.largest_stress_GPa) else ""
        n = len(self.masses)
        of = "" if n == self.n_given else f", of the primitive cell: {n} of the {self.n_given} atoms given"
        remarks = [
            f"{stable} on {len(self.mesh_THz)} wave vectors{of}; highest frequency {self.mesh_THz.max():.2f} THz, "
            f"lowest {self.mesh_THz.min():.2f} THz; acoustic sum rule to {self.acoustic_error:.1g} eV/Å^2",
            self._thermal_remark(),
            f"supercell of {len(self.home)} atoms, {self.image_distance_A:.1f} Å between images",
            f"forces of {1000.0 * self.largest_force:.2g} meV/Å{stress} left in the cell as given",
        ]
        if self.largest_stress_GPa > _STRESS_GPA:
            remarks.append(
                "WARNING: frequencies are those of a cell under stress, relax the cell for the crystal's own"
            )
        if self.image_distance_A < 2.0 * self.force_range_A * (1.0 - 1e-9):
            remarks.append(
                f"WARNING: the supercell is too small, images are closer than twice the {self.force_range_A:g} Å that "
                "forces reach: only wave vectors that repeat in it are exact; choose a larger one"
            )
        return "; ".join(remarks)

    def _thermal_remark(self) -> str:
        at = int(np.argmin(np.abs(self.thermal.temperatures_K - _ROOM)))
        free = self.thermal.free_energy_eV[at] / len(self.masses)
        capacity = self.thermal.heat_capacity_eV_per_K[at] / (BOLTZMANN * len(self.masses))
        return f"free energy {free:.4f} eV/atom and heat capacity {capacity:.3f} k_B/atom at {_ROOM:g} K"

    @functools.cached_property
    def _by_translation(self) -> tuple[np.ndarray, np.ndarray]:
        """Lattice vectors (R, 3), and for each force constants (R, 3 n, 3 n) over the roots of masses."""
        n = len(self.masses)
        pairs = [(i, j, len(found)) for i, row in enumerate(self.links) for j, found in enumerate(row)]
        translations = np.concatenate([found for row in self.links for found in row])
        known, place = np.unique(np.round(translations).astype(int), axis=0, return_inverse=True)
        i, j, count = np.repeat(np.array(pairs), [count for _, _, count in pairs], axis=0).T
        constants = np.zeros((len(known), n, n, 3, 3))
        shares = self.force_constants.transpose(0, 2, 1, 3)[i, j] / count[:, None, None]
        np.add.at(constants, (place.ravel(), i, self.home[j]), shares)
        root = np.sqrt(np.repeat(self.masses, 3))
        return known, constants.transpose(0, 1, 3, 2, 4).reshape(-1, 3 * n, 3 * n) / np.outer(root, root)

    def at(self, wave_vectors: Any) -> np.ndarray:
        """Frequencies in THz, ascending.

        Args:
            wave_vectors: (3,) or (q, 3), in units of the reciprocal lattice vectors of the cell (without 2 pi).

        Returns:
            (3 n,) or (q, 3 n).
        """
        translations, constants = self._by_translation
        phases = np.exp(2j * np.pi * (np.asarray(wave_vectors, float) @ translations.T))
        matrices = np.tensordot(phases, constants, axes=1)
        matrices = 0.5 * (matrices + np.conj(np.swapaxes(matrices, -1, -2)))
        return signed_root(np.linalg.eigvalsh(matrices)) * THZ

    def figure(self) -> Figure:
        """Bands along the path, and the density of states beside them."""
        return probe_figures.phonon_bands(
            self.path.distances, self.bands_THz, self.path.ticks, self.path.labels, self.mesh_THz
        )

    def write_phonopy(self, path: str | os.PathLike[str]) -> None:
        """Write crystal, supercell and force constants as a ``phonopy.yaml``, which ``phonopy.load`` reads."""
        write_atomic(
            path, phonopy_yaml(self.cell, self.masses, self.basis, self.repeat, self.offset, self.force_constants)
        )

    def as_dict(self) -> dict[str, Any]:
        """As the base; thermal properties and path by the names of their fields."""
        whole = ProbeResult.as_dict(self)
        return whole | {name: dict(zip(kind._fields, whole[name], strict=True)) for name, kind in _TUPLES.items()}


_TUPLES = {"path": BandPath, "thermal": Thermal}


def phonons(
    evaluate: Evaluator,
    system: System,
    *,
    repeat: tuple[int, int, int] | None = None,
    displacement: float = 0.01,
    mesh: int | None = None,
) -> Phonons:
    """Displace each atom of the cell forth and back along each axis in a supercell; all of them in one batch.

    Force constants between an atom and an atom with several nearest images are shared evenly between these (Parlinski,
    Li, Kawazoe, Phys. Rev. Lett. 78, 4063 (1997)). No long-range electrostatics: optical modes of polar crystals are
    the transverse ones.

    Args:
        evaluate: the potential.
        system: cell of the crystal, relaxed.
        repeat: supercell, in the given lattice vectors; images in it should be twice the range of the forces apart.
            ``None`` for the primitive cell of the crystal and the smallest supercell of its shortest lattice vectors
            that is large enough (see ``supercells.chosen``).
        displacement: Å.
        mesh: wave vectors along each direction for density of states and thermal properties; ``None`` for as many as
            cells fit into 60 Å.

    Raises:
        ValueError: if the cell is not periodic along all axes, the supercell is none, or atoms do not feel each other.
    """
    if not all(system.pbc):
        raise ValueError(f"phonons need a crystal periodic along all axes, found pbc={system.pbc}.")
    reach = force_range(evaluate)
    if repeat is None:
        cell = primitive(system)
        count, operation = chosen(cell, reach)
    else:
        cell, count, operation = system, check_repeat(repeat), np.eye(3, dtype=int)
    supercell, home, offset = repeated(cell, count, operation)
    n = cell.n_atoms
    at_rest, *results = evaluate([system, *displaced(supercell, displacement, n)])
    constants, error = _force_constants(np.array([result.forces for result in results]), displacement)
    bare = Phonons(
        cell=cell,
        n_given=system.n_atoms,
        force_constants=constants,
        links=_nearest_images(supercell, home, offset, n, np.asarray(count)[:, None] * operation),
        home=home,
        offset=offset,
        masses=masses_of(cell),
        path=band_path(cell),
        bands_THz=np.zeros(0),
        mesh=_mesh(cell, mesh),
        mesh_THz=np.zeros((0, 3 * n)),
        thermal=Thermal(*[np.zeros(0)] * 4, n_left_out=0),
        acoustic_error=error,
        basis=operation,
        repeat=(int(count[0]), int(count[1]), int(count[2])),
        image_distance_A=shortest_period(supercell.cell, supercell.pbc),
        force_range_A=np.nan if reach is None else reach,
        largest_force=float(np.abs(at_rest.forces).max()),
        largest_stress_GPa=np.nan if at_rest.stress is None else float(np.abs(at_rest.stress).max() / GPA),
    )
    on_mesh = bare.at(_half_of_zone(bare.mesh))
    if not np.abs(on_mesh).max() > 0.0:
        raise ValueError("no displacement gives a force: the atoms of this cell are too far apart to feel each other.")
    thermal = thermal_properties(on_mesh, _TEMPERATURES)
    return dataclasses.replace(bare, bands_THz=bare.at(bare.path.points), mesh_THz=on_mesh, thermal=thermal)


def _force_constants(forces: np.ndarray, displacement: float) -> tuple[np.ndarray, float]:
    """Force constants (n, 3, m, 3) without net force on rigid translations, and the largest that there was."""
    m = forces.shape[1]
    constants = -(forces[0::2] - forces[1::2]).reshape(-1, 3, m, 3) / (2.0 * displacement)
    net = constants.sum(axis=2)
    for i, force in enumerate(net):  # Newton's third law for rigid translations, by the self term
        constants[i, :, i, :] -= force
    return constants, float(np.abs(net).max())


def _mesh(cell: System, mesh: int | None) -> tuple[int, int, int]:
    if mesh is not None:
        return mesh, mesh, mesh
    spacings = np.linalg.norm(np.linalg.inv(np.asarray(cell.cell, np.float64)), axis=0)  # of reciprocal vectors, 1/Å
    a, b, c = np.maximum(2 * np.round(0.5 * _MESH_LENGTH * spacings), 1).astype(int).tolist()
    return a, b, c


def _half_of_zone(mesh: tuple[int, int, int]) -> np.ndarray:
    """Wave vectors (k, 3) of a mesh beside Gamma; of q and -q, whose frequencies are equal, one."""
    # where the last number is even, its upper half holds -q of all others
    shown = (*mesh[:2], mesh[2] // 2 if mesh[2] % 2 == 0 else mesh[2])
    indices = np.array(list(itertools.product(*map(range, shown))))
    return (indices + 0.5) / np.array(mesh)


def _nearest_images(
    supercell: System, home: np.ndarray, offset: np.ndarray, n: int, matrix: np.ndarray
) -> tuple[tuple[np.ndarray, ...], ...]:
    m = len(home)
    vectors = supercell.positions[None, :] - supercell.positions[:n, None]
    found = nearest_translations(vectors.reshape(-1, 3), supercell.cell, supercell.pbc)
    return tuple(tuple(offset[j] + found[i * m + j] @ matrix for j in range(m)) for i in range(n))
