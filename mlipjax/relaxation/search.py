"""A search for structures at rest, one evaluation after the other: what relaxations and elastic bands have in common.

Every step evaluates the structures and hands what was found to a rule, which moves them. Candidates are found again
when atoms have moved, and tables grow when neighbours do not fit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.graph import VerletSpec
from mlipjax.potential import Model, Potential
from mlipjax.relaxation.batch import Batch, Evaluation, build_batch, evaluate
from mlipjax.relaxation.cell import Coordinates
from mlipjax.relaxation.fire import Fire
from mlipjax.relaxation.path import check_alike
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Float, Int, Params

_ATTEMPTS = 20  # searches for candidates without a single step in between would be a bug


class ProbeDiverged(RuntimeError):
    """Energies or forces became NaN or infinite: the potential does not know where it was led."""


@struct.dataclass
class Search:
    """State of a search.

    Attributes:
        x: (M, 3 N + S) where the structures are: coordinates in Å and strains.
        fire: of the optimiser, for every structure or for all together.
        step: () evaluations made.
    """

    x: Float[Array, "M D"]
    fire: Fire
    step: Int[Array, ""]


class Info(NamedTuple):
    """Judgement of a rule on an evaluation.

    Attributes:
        residual: (M,) eV/Å, largest force that counts.
        converged: () whether all structures are at rest.
        finite: () whether energies and forces are numbers.
    """

    residual: Float[Array, " M"]
    converged: Bool[Array, ""]
    finite: Bool[Array, ""]


Rule = Callable[[Any, Evaluation], tuple[Any, Any]]
"""From a ``Search`` and what was found at its ``x`` to the next one, and an ``Info`` or more: pure."""

OnStep = Callable[[int, float], None]
"""Called with the number of evaluations and the largest residual in eV/Å."""


@dataclasses.dataclass(frozen=True)
class Surface:
    """The energy of some atoms under a potential.

    Attributes:
        potential: the potential.
        params: its parameters, in the dtype of the search.
        atomic_numbers: (N,).
        head: index of the energy head.
        spec: sizes of the tables to begin with.
    """

    potential: Potential
    params: Params
    atomic_numbers: np.ndarray
    head: int
    spec: VerletSpec

    @classmethod
    def of(
        cls,
        model: Model,
        systems: Sequence[System],
        *,
        head: int = 0,
        dtype: str = "float32",
        spec: VerletSpec | None = None,
    ) -> Surface:
        """The surface of structures of the same atoms; the caller switches 64-bit mode on.

        Raises:
            ValueError: if there is none, they differ in elements or periodicity, the potential lacks an element, or for
                another dtype than "float32" or "float64".
        """
        if dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', found {dtype!r}")
        potential = model.potential
        check_systems(potential, systems)
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model.params)
        spec = spec or VerletSpec.for_systems(systems, potential.cutoff)
        return cls(potential, params, np.asarray(systems[0].atomic_numbers), head, spec)

    def systems(self, positions: Any, cells: Any) -> list[System]:
        """Structures (M) at positions (M, N, 3) Å, cells (M, 3, 3) Å."""
        pairs = zip(np.asarray(positions), np.asarray(cells), strict=True)
        return [System(position, self.atomic_numbers, cell, self.spec.pbc) for position, cell in pairs]

    def energies(self, node_energy: Any) -> np.ndarray:
        """(M,) total energies in eV: sums over atoms in float64, isolated-atom energies included."""
        offset = self.potential.reference_energy(self.atomic_numbers, self.head)
        return np.asarray(node_energy, np.float64).sum(axis=1) + offset


class Step(NamedTuple):
    """One evaluation of a search.

    Attributes:
        after: the search once it has moved on.
        found: what was evaluated, and
        info: what the rule said of it, both on the host.
        surface: with the sizes of tables that were needed so far.
    """

    after: Any
    found: Evaluation
    info: Any
    surface: Surface


def search(
    surface: Surface,
    coordinates: Coordinates,
    rule: Rule,
    state: Any,
    max_steps: int,
    on_step: OnStep | None = None,
) -> Iterator[Step]:
    """Yield every evaluation until all is converged or ``state.step`` has come to ``max_steps``.

    Args:
        surface: what is searched on.
        coordinates: what ``state.x`` means.
        rule: how the search goes on.
        state: where it begins.
        max_steps: evaluations at most.
        on_step: is told of every one.

    Raises:
        ProbeDiverged: if energies, forces or positions are not finite.
    """
    batch, attempts = None, 0
    while int(state.step) < max_steps:
        if batch is None:
            surface, batch = _batch_at(surface, coordinates, state.x)
        found = evaluate(surface.potential, surface.spec, surface.params, batch, coordinates, state.x)
        after, info = rule(state, found)
        found, info = jax.device_get((found, info))
        if found.stale and attempts < _ATTEMPTS:
            if found.n_neighbors > surface.spec.n_neighbors:
                systems = surface.systems(found.positions, found.cells)
                surface = dataclasses.replace(surface, spec=surface.spec.grown(systems, int(found.n_neighbors)))
            batch, attempts = None, attempts + 1
            continue
        if found.stale or not info.finite:
            raise ProbeDiverged(
                f"energies or forces are not finite after {int(state.step)} steps; look at the structure for atoms "
                "that are too close, or use a potential that knows such structures."
            )
        state, attempts = after, 0
        if on_step is not None:
            on_step(int(state.step), float(info.residual.max()))
        yield Step(state, found, info, surface)
        if info.converged:
            return


def _batch_at(surface: Surface, coordinates: Coordinates, x: Array) -> tuple[Surface, Batch]:
    """Candidates of all structures where they are now, and the surface with sizes that hold them."""
    positions, cells, _ = jax.device_get(coordinates.place(x))
    if not np.isfinite(positions).all():
        raise ProbeDiverged("positions are not finite: the potential drove the atoms apart or together.")
    batch, spec = build_batch(surface.spec, surface.systems(positions, cells), surface.head, x.dtype)
    return dataclasses.replace(surface, spec=spec), batch


def check_systems(potential: Potential, systems: Sequence[System]) -> list[System]:
    """Return the structures as a list.

    Raises:
        ValueError: if there is none, they differ in elements or periodicity, or the potential lacks an element.
    """
    if len(systems) == 0:
        raise ValueError("found no structure; give at least one.")
    check_alike(systems)
    potential.check_elements(systems[0].atomic_numbers)
    return list(systems)
