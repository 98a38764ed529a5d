"""Relaxation of many structures of the same atoms side by side, each with a clock of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.graph import VerletSpec
from mlipjax.potential import Model
from mlipjax.relaxation import fire
from mlipjax.relaxation.batch import Evaluation
from mlipjax.relaxation.cell import CellChange, Coordinates, coordinates
from mlipjax.relaxation.search import Info, OnStep, Search, Step, Surface, search
from mlipjax.system import System
from mlipjax.typing import Array, Float

T = TypeVar("T")


class Snapshot(NamedTuple):
    """M structures on their way, float64.

    Attributes:
        systems: the structures.
        energies: (M,) eV, isolated-atom energies included.
        node_energies: (M, N) eV, interaction energy of each atom: without them.
        forces: (M, N, 3) eV/Å of the potential.
        virials: (M, 3, 3) eV, stress times volume; zero where no cell moves and no stress was asked for.
    """

    systems: list[System]
    energies: np.ndarray
    node_energies: np.ndarray
    forces: np.ndarray
    virials: np.ndarray


@dataclasses.dataclass(frozen=True)
class Relaxed:
    """Structures after a relaxation.

    Attributes:
        initial: as given.
        final: relaxed.
        residual: (M,) eV/Å, largest force on an atom (free coordinates) or scaled strain.
        converged: (M,) whether ``residual < fmax``.
        steps: evaluations of the batch.
        spec: sizes of the tables that were needed; another relaxation that begins with them compiles nothing.
        path: all structures on the way, both ends included, if they were asked for.
    """

    initial: Snapshot
    final: Snapshot
    residual: np.ndarray
    converged: np.ndarray
    steps: int
    spec: VerletSpec
    path: tuple[Snapshot, ...]

    @property
    def systems(self) -> list[System]:
        """M relaxed structures."""
        return self.final.systems

    @property
    def energies(self) -> np.ndarray:
        """(M,) eV, isolated-atom energies included."""
        return self.final.energies

    @property
    def initial_energies(self) -> np.ndarray:
        """(M,) eV, of the structures as given."""
        return self.initial.energies


def relax(
    model: Model,
    systems: Sequence[System],
    *,
    fmax: float = 0.05,
    cell: CellChange = "none",
    pressure: float = 0.0,
    free: np.ndarray | None = None,
    max_steps: int = 500,
    head: int = 0,
    dtype: str = "float32",
    stress: bool = False,
    spec: VerletSpec | None = None,
    keep_path: bool = False,
    on_step: OnStep | None = None,
) -> Relaxed:
    """Relax structures of the same atoms side by side; each rests as soon as it is converged.

    Args:
        model: potential and parameters.
        systems: M structures with the same elements in the same order.
        fmax: eV/Å, largest force on an atom at which a structure is converged.
        cell: what may happen to the cells.
        pressure: eV/Å^3 on the outside of cells that relax.
        free: (N,), (N, 3) or (M, N, 3) true where an atom or a coordinate may move; all may by default.
        max_steps: evaluations at most; what is not converged by then says so. One evaluates the structures as given.
        head: index of the energy head.
        dtype: "float32" or "float64".
        stress: whether stresses are wanted where no cell moves.
        spec: sizes of the tables to begin with; by default those of the structures.
        keep_path: keep all structures on the way.
        on_step: for progress bars.

    Raises:
        ValueError: if the structures differ in elements or periodicity, or have no volume to relax.
        ProbeDiverged: if energies are not finite.
    """
    with jax.enable_x64(dtype == "float64"):
        surface = Surface.of(model, systems, head=head, dtype=dtype, spec=spec)
        what = coordinates(systems, dtype, cell=cell, free=free, pressure=pressure, stress=stress)
        rule = partial(step, what, jnp.asarray(fmax, dtype))
        begun = start(what, np.stack([system.positions for system in systems]))
        steps: list[Step] = []
        for done in search(surface, what, rule, begun, max_steps, on_step):
            if not keep_path:
                del steps[1:]
            steps.append(done)
    snapshots = [_snapshot(one.surface, one.found, systems, cell) for one in steps]
    last = steps[-1]
    return Relaxed(
        initial=snapshots[0],
        final=snapshots[-1],
        residual=np.asarray(last.info.residual, np.float64),
        converged=np.asarray(last.info.residual) < np.asarray(fmax, dtype),
        steps=int(last.after.step),
        spec=last.surface.spec,
        path=tuple(snapshots) if keep_path else (),
    )


def start(coordinates: Coordinates, positions: Any) -> Search:
    """Structures at rest at ``positions`` (M, N, 3)."""
    x = coordinates.start(positions)
    return Search(x, jax.vmap(fire.init)(x), jnp.zeros((), jnp.int32))


@jax.jit
def step(coordinates: Coordinates, fmax: Float[Array, ""], state: Search, found: Evaluation) -> tuple[Search, Info]:
    """Move every structure by a step of its own, unless its residual is below ``fmax``: the rule of ``search``."""
    force, residual = coordinates.forces(state.x, found.forces, found.virial)
    move, clock = jax.vmap(fire.step)(force, state.fire)
    move = jax.vmap(fire.shortened)(move, coordinates.length(move))
    moves = ~(residual < fmax)
    x, clock = jax.tree.map(
        lambda new, old: jax.vmap(jnp.where)(moves, new, old), (state.x + move, clock), (state.x, state.fire)
    )
    finite = jnp.all(jnp.isfinite(found.node_energy)) & jnp.all(jnp.isfinite(force))
    return Search(x, clock, state.step + 1), Info(residual, ~jnp.any(moves), finite)


def in_parts(items: Sequence[T], size: int) -> Iterator[tuple[list[T], int]]:
    """Parts of one size, so that one program serves, and how many of each count: the last is filled up with copies."""
    for begin in range(0, len(items), size):
        part = list(items[begin : begin + size])
        yield part + [part[-1]] * (size - len(part)), len(part)


def _snapshot(surface: Surface, found: Evaluation, given: Sequence[System], cell: CellChange) -> Snapshot:
    positions, cells = (np.asarray(part, np.float64) for part in (found.positions, found.cells))
    # a fixed cell stays what it is, to the last digit
    cells = [np.asarray(system.cell) for system in given] if cell == "none" else cells
    return Snapshot(
        systems=[
            dataclasses.replace(system, positions=position, cell=cell)
            for system, position, cell in zip(given, positions, cells, strict=True)
        ],
        energies=surface.energies(found.node_energy),
        node_energies=np.asarray(found.node_energy, np.float64),
        forces=np.asarray(found.forces, np.float64),
        virials=np.asarray(found.virial, np.float64),
    )
