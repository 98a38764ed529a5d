"""Phonons of a crystal by finite displacements in a supercell, and normal modes of any structure at Gamma, exactly."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from mlipjax.graph import batch_graphs
from mlipjax.lattice import nearest_translations, reduced, shortest_period
from mlipjax.md.observables import masses_of
from mlipjax.potential import Model, second_derivatives
from mlipjax.probes.elastic import displaced
from mlipjax.probes.evaluator import Evaluator, NativeEvaluator
from mlipjax.probes.result import ProbeResult
from mlipjax.report import probe_figures
from mlipjax.system import System
from mlipjax.units import FEMTOSECOND, GPA

THZ = 1000.0 * FEMTOSECOND / (2.0 * np.pi)
"""THz per unit of the root of an eigenvalue of the dynamical matrix, sqrt(eV/(amu Å^2))."""

WAVENUMBER_PER_THZ = 33.35640951981521
"""1/cm per THz: 1 / (100 c)."""

_IMAGINARY_THZ = 0.1
"""Imaginary frequencies smaller than this are the numerical error of the acoustic modes."""


_STATIONARY = 0.05
"""eV/Å: with larger forces left, curvatures are not those of a stationary point."""

_STRESS_GPA = 1.0
"""Above it a cell is not the crystal's own; the limit of the elastic constants."""


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
        return int(np.sum(self.vibrations_THz < -_IMAGINARY_THZ))

    @property
    def verdict(self) -> str:
        """Highest frequency and whether this is a minimum."""
        kind = {0: "a minimum", 1: "a saddle point (one imaginary mode)"}.get(
            self.n_imaginary, f"not a minimum: {self.n_imaginary} imaginary modes"
        )
        if self.largest_force > _STATIONARY:
            kind = "NOT a stationary point, relax it first: these are no normal modes"
        return (
            f"{kind}; highest frequency {self.frequencies_THz[-1]:.2f} THz ({self.wavenumbers[-1]:.0f} 1/cm), largest "
            f"force {1000.0 * self.largest_force:.2g} meV/Å"
        )

    def figure(self) -> Figure:
        """Frequencies as a ladder."""
        return probe_figures.frequencies({"Gamma": self.frequencies_THz})


@dataclasses.dataclass(frozen=True)
class Phonons(ProbeResult):
    """Force constants of a crystal and the frequencies they give. Imaginary frequencies are negative numbers.

    Attributes:
        force_constants: (n, 3, m, 3) eV/Å^2 between atoms of the cell and atoms of the supercell.
        links: for each pair (atom of the cell, atom of the supercell), lattice vectors (k, 3) of the cell to its
            nearest image or images.
        home: (m,) atom of the cell that each atom of the supercell repeats.
        masses: (n,) amu.
        labels: names of the wave vectors in ``frequencies_THz``.
        frequencies_THz: (q, 3 n) at the wave vectors asked for.
        mesh_THz: (k, 3 n) on a mesh of the Brillouin zone, for the density of states.
        acoustic_error: eV/Å^2, largest net force constant of a rigid translation before it was removed.
        supercell: (3, 3) integers, its lattice vectors in those of the cell.
        image_distance_A: of an atom from its nearest image in the supercell.
        force_range_A: distance at which forces of this potential end; NaN where it does not say.
        largest_force: eV/Å, on an atom of the cell as given, and
        largest_stress_GPa: its stress; NaN where the potential gives none.
    """

    force_constants: np.ndarray
    links: tuple[tuple[np.ndarray, ...], ...] = dataclasses.field(repr=False)
    home: np.ndarray
    masses: np.ndarray
    labels: tuple[str, ...]
    frequencies_THz: np.ndarray
    mesh_THz: np.ndarray
    acoustic_error: float
    supercell: np.ndarray
    image_distance_A: float
    force_range_A: float
    largest_force: float
    largest_stress_GPa: float

    @property
    def n_imaginary(self) -> int:
        """Number of imaginary modes on the mesh."""
        return int(np.sum(self.mesh_THz < -_IMAGINARY_THZ))

    @property
    def verdict(self) -> str:
        """Highest frequency, dynamical stability, the supercell, and what speaks against them."""
        stable = "dynamically stable" if not self.n_imaginary else f"UNSTABLE: {self.n_imaginary} imaginary modes"
        if self.largest_force > _STATIONARY:
            stable = f"NOT a stationary point, relax it first ({self.n_imaginary} imaginary modes)"
        stress = f" and a stress of {self.largest_stress_GPa:.2g} GPa" if np.isfinite(self.largest_stress_GPa) else ""
        remarks = [
            f"{stable} on {len(self.mesh_THz)} wave vectors; highest frequency {self.mesh_THz.max():.2f} THz, lowest "
            f"{self.mesh_THz.min():.2f} THz; acoustic sum rule to {self.acoustic_error:.1g} eV/Å^2",
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

    def at(self, wave_vector: Any) -> np.ndarray:
        """Frequencies (3 n,) in THz at a wave vector in units of the reciprocal lattice vectors (without 2 pi)."""
        return _signed_root(np.linalg.eigvalsh(self._dynamical(np.asarray(wave_vector, float)))) * THZ

    def _dynamical(self, wave_vector: np.ndarray) -> np.ndarray:
        n = len(self.masses)
        matrix = np.zeros((n, 3, n, 3), complex)
        for i, j in itertools.product(range(n), range(len(self.home))):
            phase = np.mean(np.exp(2j * np.pi * (self.links[i][j] @ wave_vector)))
            matrix[i, :, self.home[j], :] += self.force_constants[i, :, j, :] * phase
        root = np.sqrt(np.repeat(self.masses, 3))
        matrix = matrix.reshape(3 * n, 3 * n) / np.outer(root, root)
        return 0.5 * (matrix + matrix.conj().T)

    def figure(self) -> Figure:
        """Frequencies at the wave vectors asked for, and the density of states."""
        named = dict(zip(self.labels, self.frequencies_THz, strict=True))
        return probe_figures.frequencies(named, self.mesh_THz.ravel())

    def as_dict(self) -> dict[str, Any]:
        """As the base, without the force constants: they are large, and frequencies say what they mean."""
        small = dataclasses.replace(self, force_constants=np.zeros(0), links=())
        return ProbeResult.as_dict(small) | {"verdict": self.verdict}


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
    return Modes(_signed_root(np.linalg.eigvalsh(matrix)) * THZ, _n_rigid(system), float(np.abs(gradient).max()))


def phonons(
    evaluate: Evaluator,
    system: System,
    *,
    repeat: tuple[int, int, int] | None = None,
    displacement: float = 0.01,
    wave_vectors: dict[str, tuple[float, float, float]] | None = None,
    mesh: int = 8,
) -> Phonons:
    """Displace each atom of the cell forth and back along each axis in a supercell; all of them in one batch.

    Force constants between an atom and an atom with several nearest images are shared evenly between these (Parlinski,
    Li, Kawazoe, Phys. Rev. Lett. 78, 4063 (1997)). No long-range electrostatics: optical modes of polar crystals are
    the transverse ones.

    Args:
        evaluate: the potential.
        system: cell of the crystal, relaxed.
        repeat: supercell, in the given lattice vectors; images in it should be twice the range of the forces apart.
            ``None`` for the smallest one of the shortest lattice vectors that does (see ``chosen``).
        displacement: Å.
        wave_vectors: by name, in units of the reciprocal lattice vectors; ``None`` for Gamma and the zone boundaries
            along the three vectors.
        mesh: wave vectors along each direction for the density of states.

    Raises:
        ValueError: if the cell is not periodic along all axes, or the supercell is none.
    """
    if not all(system.pbc):
        raise ValueError(f"phonons need a crystal periodic along all axes, found pbc={system.pbc}.")
    reach = force_range(evaluate)
    count, operation = chosen(system, reach) if repeat is None else (check_repeat(repeat), np.eye(3, dtype=int))
    matrix = np.asarray(count)[:, None] * operation
    supercell, home, offset = repeated(system, count, operation)
    n = system.n_atoms
    at_rest, *results = evaluate([system, *displaced(supercell, displacement, n)])  # the first copy is the cell itself
    forces = np.array([result.forces for result in results])
    constants = -(forces[0::2] - forces[1::2]).reshape(n, 3, -1, 3) / (2.0 * displacement)
    error = np.abs(constants.sum(axis=2)).max()
    for i in range(n):  # Newton's third law for rigid translations, by the self term
        constants[i, :, i, :] -= constants[i].sum(axis=1)
    labels = wave_vectors or {"Γ": (0, 0, 0), "½ b1": (0.5, 0, 0), "½ b2": (0, 0.5, 0), "½ b3": (0, 0, 0.5)}
    bare = Phonons(
        force_constants=constants,
        links=_nearest_images(supercell, home, offset, n, matrix),
        home=home,
        masses=masses_of(system),
        labels=tuple(labels),
        frequencies_THz=np.zeros(0),
        mesh_THz=np.zeros(0),
        acoustic_error=float(error),
        supercell=matrix,
        image_distance_A=shortest_period(supercell.cell, supercell.pbc),
        force_range_A=np.nan if reach is None else reach,
        largest_force=float(np.abs(at_rest.forces).max()),
        largest_stress_GPa=np.nan if at_rest.stress is None else float(np.abs(at_rest.stress).max() / GPA),
    )
    points = [(np.array(index) + 0.5) / mesh for index in itertools.product(range(mesh), repeat=3)]
    return dataclasses.replace(
        bare,
        frequencies_THz=np.array([bare.at(q) for q in labels.values()]),
        mesh_THz=np.array([bare.at(q) for q in points]),
    )


def _nearest_images(
    supercell: System, home: np.ndarray, offset: np.ndarray, n: int, matrix: np.ndarray
) -> tuple[tuple[np.ndarray, ...], ...]:
    m = len(home)
    vectors = supercell.positions[None, :] - supercell.positions[:n, None]
    found = nearest_translations(vectors.reshape(-1, 3), supercell.cell, supercell.pbc)
    return tuple(tuple(offset[j] + found[i * m + j] @ matrix for j in range(m)) for i in range(n))


def _signed_root(values: np.ndarray) -> np.ndarray:
    return np.sign(values) * np.sqrt(np.abs(values))


def _n_rigid(system: System) -> int:
    if any(system.pbc):
        return 3
    if system.n_atoms == 1:
        return 3
    centred = system.positions - system.positions.mean(axis=0)
    linear = np.linalg.matrix_rank(centred, tol=1e-3 * np.abs(centred).max()) < 2
    return 5 if linear else 6


USUAL_RANGE = 6.0
"""Å, taken for potentials that do not say how far their forces reach: the cutoff of most universal ones."""

MOST_ATOMS = 400
"""In a supercell that is chosen here; larger ones are a decision of the user's."""


def force_range(evaluate: Evaluator) -> float | None:
    """Cutoff of a potential in Å; ``None`` for foreign ones, which do not say."""
    return float(evaluate.model.potential.cutoff) if isinstance(evaluate, NativeEvaluator) else None


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
