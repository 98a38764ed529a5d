"""Relaxation of many structures of the same atoms at once, with fixed or free cells.

One compiled loop moves them all (``relax_search``); this module drives it: it searches candidates again when atoms
have moved, makes room when neighbours do not fit, and says what is wrong when energies are not finite.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.potential import Potential
from mlipjax.relaxation.batch import SKIN, BatchSpec, build_batch
from mlipjax.relaxation.fire import (
    CONVERGED,
    NOT_FINITE,
    RUNNING,
    Search,
    Task,
    advance,
    geometry,
    start,
)
from mlipjax.system import System
from mlipjax.typing import Params

CellFreedom = Literal["fixed", "isotropic", "normal", "full"]
"""What may happen to a cell: nothing, one scale, the height above its first two vectors, or every strain."""

OnStep = Callable[[int, float], None]
"""Called now and then with the number of evaluations and the largest residual in eV/Å."""

_CHUNK = 25  # evaluations between two calls of ``on_step``
_ATTEMPTS = 200  # rebuilds of the tables without a single step in between would be a bug


class ProbeDiverged(RuntimeError):
    """Energies or forces became NaN or infinite: the potential does not know where it was led."""


class Relaxed(NamedTuple):
    """Structures after a relaxation.

    Attributes:
        systems: M relaxed structures.
        energies: (M,) eV, isolated-atom energies included, float64.
        initial_energies: (M,) eV, of the structures as given; NaN where not asked for.
        forces: (M, N, 3) eV/Å of the potential.
        residual: (M,) eV/Å, largest force on an atom (free coordinates) or scaled strain.
        converged: (M,) whether ``residual < fmax``.
        steps: evaluations of the batch.
    """

    systems: list[System]
    energies: np.ndarray
    initial_energies: np.ndarray
    forces: np.ndarray
    residual: np.ndarray
    converged: np.ndarray
    steps: int


def relax(
    potential: Potential,
    params: Params,
    systems: Sequence[System],
    *,
    fmax: float = 0.05,
    cell: CellFreedom = "fixed",
    free: np.ndarray | None = None,
    max_steps: int = 500,
    head: int = 0,
    dtype: str = "float32",
    skin: float = SKIN,
    on_step: OnStep | None = None,
) -> Relaxed:
    """Relax structures of the same atoms side by side; each rests as soon as it is converged.

    Args:
        potential: the potential.
        params: its parameters.
        systems: M structures with the same elements in the same order.
        fmax: eV/Å, largest force on an atom at which a structure is converged.
        cell: what may happen to the cells.
        free: (N,) or (N, 3) true where an atom or a coordinate may move; all may by default.
        max_steps: evaluations at most; what is not converged by then says so.
        head: index of the energy head.
        dtype: "float32" or "float64".
        skin: Å.
        on_step: for progress bars.

    Raises:
        ValueError: if the structures differ in elements or periodicity, or have no volume to relax.
        ProbeDiverged: if energies are not finite.
    """
    systems = check_systems(potential, systems)
    with jax.enable_x64(dtype == "float64"):
        engine = Engine(potential, params, head, dtype, skin)
        task = plain_task(systems, freedom(free, systems[0].n_atoms), strain_basis(cell, systems), fmax, dtype)
        first = engine.run(systems, dataclasses.replace(task, fmax=jnp.asarray(np.inf, dtype)), 1)
        last = engine.run(systems, task, max_steps, on_step)
        return engine.relaxed(systems, task, last)._replace(initial_energies=engine.energies(systems, first))


class Engine:
    """Runs searches for one potential on the host and remembers how large the tables had to be.

    Args:
        potential, params: what is evaluated; parameters are cast to ``dtype``.
        head: index of the energy head.
        dtype: "float32" or "float64"; the caller switches 64-bit mode on.
        skin: Å.

    Raises:
        ValueError: for another dtype.
    """

    def __init__(self, potential: Potential, params: Params, head: int, dtype: str, skin: float = SKIN) -> None:
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}")
        self.potential, self.head, self.dtype, self.skin = potential, head, np.dtype(dtype), skin
        self.params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        self.spec: BatchSpec | None = None

    def run(
        self,
        systems: Sequence[System],
        task: Task,
        max_steps: int,
        on_step: OnStep | None = None,
        on_search: Callable[[Search], None] | None = None,
    ) -> Search:
        """Search from the given structures until all is converged or ``max_steps`` evaluations are made.

        Those of a climb that was given up come on top. ``on_search`` is told of every single one.

        Raises:
            ProbeDiverged: if energies or forces are not finite.
        """
        positions = np.stack([np.asarray(system.positions, self.dtype) for system in systems])
        search = start(jnp.asarray(positions), task.basis.shape[0])
        batch, stuck = None, 0
        while int(search.status) == RUNNING and int(search.step) < max_steps:
            if batch is None:
                spec = self._fit(self._moved(systems, task, search), int(search.n_neighbors))
                batch = build_batch(spec, self._moved(systems, task, search), self.head, self.dtype)
            chunk = _CHUNK if on_search is None else 1
            before, limit = int(search.step), min(int(search.step) + chunk, max_steps)
            search = advance(self.potential, spec, self.params, batch, task, search, limit)
            status, stuck = int(search.status), stuck + 1 if int(search.step) == before else 0
            if status == NOT_FINITE or stuck > _ATTEMPTS:
                raise ProbeDiverged(
                    f"energies or forces are not finite after {before} steps; look at the structure for atoms that are "
                    "too close, or use a potential that knows such structures."
                )
            if status not in (RUNNING, CONVERGED):
                batch, search = None, dataclasses.replace(search, status=jnp.zeros((), jnp.int32))
            elif on_search is not None:
                on_search(search)
            if on_step is not None:
                on_step(int(search.step), float(jnp.max(search.residual)))
        return search

    def energies(self, systems: Sequence[System], search: Search) -> np.ndarray:
        """(M,) total energies in eV: sums over atoms in float64, isolated-atom energies included."""
        offset = self.potential.reference_energy(systems[0].atomic_numbers, self.head)
        return np.asarray(search.node_energy, np.float64).sum(axis=1) + offset

    def relaxed(self, systems: Sequence[System], task: Task, search: Search) -> Relaxed:
        """The outcome of a search, at the last geometry that was evaluated."""
        positions, cells, _ = jax.device_get(geometry(task, search.at))
        residual = np.asarray(search.residual, np.float64)
        energies = self.energies(systems, search)
        return Relaxed(
            systems=[
                # a fixed cell stays what it is, to the last digit
                dataclasses.replace(
                    system,
                    positions=position.astype(np.float64),
                    cell=cell.astype(np.float64) if len(task.basis) else system.cell,
                )
                for system, position, cell in zip(systems, positions, cells, strict=True)
            ],
            energies=energies,
            initial_energies=np.full_like(energies, np.nan),
            forces=np.asarray(search.forces, np.float64),
            residual=residual,
            converged=residual < float(task.fmax),
            steps=int(search.step),
        )

    def _moved(self, systems: Sequence[System], task: Task, search: Search) -> list[System]:
        positions, cells, _ = jax.device_get(geometry(task, search.x))
        if not np.isfinite(positions).all():
            raise ProbeDiverged("positions are not finite: the potential drove the atoms apart or together.")
        return [
            dataclasses.replace(system, positions=position, cell=cell)
            for system, position, cell in zip(systems, positions, cells, strict=True)
        ]

    def _fit(self, systems: Sequence[System], n_neighbors: int) -> BatchSpec:
        """Sizes that hold the structures; those used before if they do."""
        if self.spec is not None:
            n_neighbors = max(n_neighbors, self.spec.n_neighbors)
        fitting = BatchSpec.for_systems(systems, self.potential.cutoff, self.skin, n_neighbors)
        if self.spec is None or self.spec.table.pbc != fitting.table.pbc:
            self.spec = fitting
        else:
            self.spec = self.spec.holding(fitting)
        return self.spec


def plain_task(
    systems: Sequence[System], free: np.ndarray, basis: np.ndarray, fmax: float, dtype: Any, pressure: float = 0.0
) -> Task:
    """The task of relaxing every structure for itself; ``free`` is (N, 3) or (M, N, 3), ``pressure`` in eV/Å^3."""
    n_atoms = systems[0].n_atoms

    def scalar(value: float) -> Any:
        return jnp.asarray(value, dtype)

    return Task(
        cells=jnp.asarray(np.stack([np.asarray(system.cell) for system in systems]), dtype),
        basis=jnp.asarray(basis, dtype),
        pressure=scalar(pressure),
        free=jnp.asarray(np.broadcast_to(free, (len(systems), n_atoms, 3)), dtype),
        band=jnp.asarray(False),
        climb_below=scalar(0.0),
        spring=scalar(0.0),
        ends=jnp.zeros((2, n_atoms, 3), dtype),
        end_energies=jnp.zeros(2, dtype),
        energy_zero=jnp.zeros(n_atoms, dtype),
        fmax=scalar(fmax),
        max_steps=jnp.asarray(np.iinfo(np.int32).max, jnp.int32),
    )


def band_task(plain: Task, ends: Any, end_node_energy: Any, climb_below: float, spring: float, max_steps: int) -> Task:
    """Turn a task for the inner images of a band into one for the band.

    Args:
        plain: the task of the images as free structures.
        ends: (2, N, 3) Å, first and last image.
        end_node_energy: (2, N) eV, theirs; energies are taken relative to those of the first one.
        climb_below: eV/Å, largest residual at which the highest image starts to climb; 0 if none shall.
        spring: eV/Å^2.
        max_steps: evaluations after which an image that climbed too high is given up.
    """
    zero = end_node_energy[0]
    changes: dict[str, Any] = {
        "band": True,
        "climb_below": climb_below,
        "spring": spring,
        "ends": ends,
        "end_energies": (end_node_energy - zero).sum(axis=1),
        "energy_zero": zero,
        "max_steps": max_steps,
    }
    values = {name: jnp.asarray(value, getattr(plain, name).dtype) for name, value in changes.items()}
    return dataclasses.replace(plain, **values)


def freedom(free: np.ndarray | None, n_atoms: int) -> np.ndarray:
    """(N, 3) float mask of the coordinates that may move.

    Raises:
        ValueError: if the mask has another shape.
    """
    if free is None:
        return np.ones((n_atoms, 3))
    mask = np.asarray(free, np.float64)
    if mask.shape not in ((n_atoms,), (n_atoms, 3)):
        raise ValueError(
            f"the mask of free coordinates has shape {mask.shape}; expected ({n_atoms},) or ({n_atoms}, 3)."
        )
    return mask if mask.ndim == 2 else np.repeat(mask[:, None], 3, axis=1)


def strain_basis(cell: CellFreedom, systems: Sequence[System]) -> np.ndarray:
    """(S, 3, 3) orthonormal strains that a cell may undergo: none, or six, some of them zero.

    Always six, so that all ways to relax a cell share one compiled program.

    Raises:
        ValueError: for an unknown freedom, or structures without volume.
    """
    if cell == "fixed":
        return np.zeros((0, 3, 3))
    if any(abs(np.linalg.det(np.asarray(system.cell))) < 1e-6 for system in systems):
        raise ValueError(f"cell={cell!r} needs a cell with three independent vectors.")
    basis = np.zeros((6, 3, 3))
    if cell == "isotropic":
        basis[0] = np.eye(3) / np.sqrt(3.0)
    elif cell == "normal":
        first, second, _ = np.asarray(systems[0].cell, np.float64)
        normal = np.cross(first, second)
        basis[0] = np.outer(normal, normal) / np.sum(normal**2)
    elif cell == "full":
        for row, (i, j) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
            basis[row, i, j] = basis[row, j, i] = 1.0 if i == j else np.sqrt(0.5)
    else:
        raise ValueError(f"cell must be fixed, isotropic, normal or full, found {cell!r}.")
    return basis


def check_systems(potential: Potential, systems: Sequence[System]) -> list[System]:
    """Return the structures as a list.

    Raises:
        ValueError: if there is none, they differ in elements or periodicity, or the potential lacks an element.
    """
    if len(systems) == 0:
        raise ValueError("found no structure; give at least one.")
    first = systems[0]
    for index, system in enumerate(systems):
        if not np.array_equal(system.atomic_numbers, first.atomic_numbers):
            raise ValueError(f"structure {index} has other atoms (or another order) than structure 0; they must agree.")
        if system.pbc != first.pbc:
            raise ValueError(f"structure {index} has pbc={system.pbc}, structure 0 {first.pbc}; they must agree.")
    potential.check_elements(first.atomic_numbers)
    return list(systems)
