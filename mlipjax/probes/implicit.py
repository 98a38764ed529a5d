"""Derivatives of relaxed geometries and of converged barriers with respect to the parameters of a potential.

Neither needs the steps of the search. A relaxed geometry satisfies ``F(x*, p) = 0``, so that
``dx*/dp = H^-1 dF/dp`` with the Hessian ``H = -dF/dx`` (implicit function theorem); a cotangent is pulled back by one
conjugate-gradient solve with Hessian-vector products. At a stationary point of the energy the change of the geometry
does not count to first order (envelope theorem), so that the derivative of a converged barrier is ``dE/dp`` at the
saddle point minus ``dE/dp`` at the initial state, both at fixed geometry.

The searches run inside the traced function. Where tables no longer serve, or the search does not converge in the steps
allowed, the result is NaN, not a number that looks right; start from structures near the solution (``relax``, ``neb``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import SPRING
from mlipjax.potential import Potential
from mlipjax.probes.neb_path import unwrapped
from mlipjax.probes.relax import band_task, check_systems, freedom, plain_task
from mlipjax.probes.relax_batch import SKIN, Batch, BatchSpec, build_batch, evaluate
from mlipjax.probes.relax_search import CONVERGED, Search, Task, advance, start
from mlipjax.system import System
from mlipjax.typing import Array, Float, Params, Positions

_CLIMB_AT = 0.5  # eV/Å, residual below which the highest image climbs


def relaxed_positions(
    potential: Potential,
    system: System,
    *,
    fmax: float = 1e-6,
    free: np.ndarray | None = None,
    max_steps: int = 2000,
    head: int = 0,
    skin: float = SKIN,
    cg_tolerance: float = 1e-8,
    cg_steps: int = 500,
) -> Callable[[Params], Positions]:
    """Return a function from parameters (float64) to relaxed positions (N, 3) in Å, differentiable in reverse mode.

    Rigid translations of a structure without fixed atoms (and rotations of one without periodicity) cost nothing; the
    result stays where it started, and cotangents along them are dropped.

    Args:
        potential: the potential.
        system: where every search starts; 64-bit mode must be on.
        fmax: eV/Å; the error of the derivative is of this order.
        free: (N,) or (N, 3) true where an atom or coordinate may move.
        max_steps: evaluations of a search at most.
        head: index of the energy head.
        skin: Å; half of it is how far an atom may move.
        cg_tolerance, cg_steps: of the linear solve.

    Raises:
        ValueError: if 64-bit mode is off, or the potential does not know an element.
    """
    problem = _Problem.of(potential, [system], free, fmax, head, skin)
    search = start(jnp.asarray(np.asarray(system.positions)[None], jnp.float64))
    mask = problem.task.free[0]

    def solve(params: Params) -> Positions:
        found = problem.run(params, search, max_steps)
        return jnp.where(_is_fine(found), found.at.reshape(mask.shape), jnp.nan)

    def forward(params: Params) -> tuple[Positions, tuple[Params, Positions]]:
        found = solve(params)
        return found, (params, found)

    def backward(residuals: tuple[Params, Positions], cotangent: Positions) -> tuple[Any]:
        params, found = residuals
        rigid = _rigid_motions(problem.systems[0], found, np.asarray(mask))

        def project(vector: Array) -> Array:
            vector = vector * mask
            return vector - jnp.tensordot(jnp.tensordot(rigid, vector, 2), rigid, 1)

        def forces(params: Params, positions: Positions) -> Positions:
            return problem.forces(params, positions[None])[0] * mask

        _, pull = jax.vjp(lambda positions: forces(params, positions), found)

        def hessian(vector: Array) -> Array:
            return -project(pull(project(vector))[0])

        adjoint, _ = jax.scipy.sparse.linalg.cg(hessian, project(cotangent), tol=cg_tolerance, maxiter=cg_steps)
        _, pull_params = jax.vjp(lambda params: forces(params, found), params)
        return (pull_params(project(adjoint))[0],)

    relaxed = jax.custom_vjp(solve)
    relaxed.defvjp(forward, backward)
    return relaxed


def converged_barrier(
    potential: Potential,
    images: Sequence[System],
    *,
    fmax: float = 1e-4,
    spring: float = SPRING,
    free: np.ndarray | None = None,
    max_steps: int = 2000,
    head: int = 0,
    skin: float = SKIN,
) -> Callable[[Params], Float[Array, ""]]:
    """Return a function from parameters (float64) to the forward barrier in eV, differentiable in reverse mode.

    Every call relaxes the ends and the band with a climbing image; the derivative is that of the envelope theorem.
    Where no image climbs to a saddle point, the result is NaN.

    Args:
        potential: the potential.
        images: band where every search starts, ends included: best the one that ``neb`` found; 64-bit mode must be on.
        fmax: eV/Å, of ends and images.
        spring: eV/Å^2.
        free: (N,) or (N, 3) true where an atom or coordinate may move.
        max_steps: evaluations at most, of ends and band each.
        head: index of the energy head.
        skin: Å; half of it is how far an atom may move.

    Raises:
        ValueError: if there is no inner image, 64-bit mode is off, or the images do not fit each other.
    """
    if len(images) < 3:
        raise ValueError(f"found {len(images)} images; a barrier needs at least one between its ends.")
    path = unwrapped(images)
    systems = [dataclasses.replace(images[0], positions=each) for each in path]
    ends = _Problem.of(potential, [systems[0], systems[-1]], free, fmax, head, skin)
    band = _Problem.of(potential, systems[1:-1], free, fmax, head, skin)
    first, inner = jnp.asarray(path[[0, -1]]), jnp.asarray(path[1:-1])

    def solve(params: Params) -> tuple[Array, tuple[Array, Array, Array]]:
        relaxed = ends.run(params, start(first), max_steps)
        end_positions = relaxed.at.reshape(first.shape)
        zero = relaxed.node_energy[0]
        task = band_task(band.task, end_positions, relaxed.node_energy, _CLIMB_AT, spring, max_steps)
        found = dataclasses.replace(band, task=task).run(params, start(inner), max_steps)
        levels = jnp.sum(found.node_energy - zero, axis=1)
        top = jnp.argmax(levels)
        # an end that is highest, an image that ran away, or a search that failed has no saddle point
        fine = _is_fine(relaxed) & _is_fine(found) & found.climbing
        fine &= levels[top] > jnp.maximum(0.0, task.end_energies[1])
        return jnp.where(fine, levels[top], jnp.nan), (end_positions, found.at.reshape(inner.shape), top)

    def forward(params: Params) -> tuple[Array, Any]:
        barrier, (at_ends, at_images, top) = solve(params)
        return barrier, (params, at_ends, at_images, top, barrier)

    def backward(residuals: Any, cotangent: Array) -> tuple[Any]:
        params, at_ends, at_images, top, barrier = residuals

        def difference(params: Params) -> Array:
            # only two of these energies count; taking all of them uses the tables that are there
            saddle = jnp.sum(band.node_energy(params, at_images), axis=1)[top]
            return saddle - jnp.sum(ends.node_energy(params, at_ends), axis=1)[0]

        _, pull = jax.vjp(difference, params)
        return (pull(jnp.where(jnp.isfinite(barrier), cotangent, jnp.nan))[0],)

    barrier = jax.custom_vjp(lambda params: solve(params)[0])
    barrier.defvjp(forward, backward)
    return barrier


@dataclasses.dataclass(frozen=True)
class _Problem:
    """A search that can be traced: fixed tables, parameters as an argument."""

    potential: Potential
    systems: list[System]
    spec: BatchSpec
    batch: Batch
    task: Task

    @classmethod
    def of(
        cls,
        potential: Potential,
        systems: Sequence[System],
        free: np.ndarray | None,
        fmax: float,
        head: int,
        skin: float,
    ) -> _Problem:
        if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(
                "derivatives of converged searches need 64-bit mode: call mlipjax.runtime.enable_x64() first."
            )
        systems = check_systems(potential, systems)
        spec = BatchSpec.for_systems(systems, potential.cutoff, skin)
        # neighbours that come within the cutoff later must fit: all candidates have a slot
        spec = dataclasses.replace(spec, n_neighbors=spec.table.n_neighbors)
        batch = build_batch(spec, systems, head, np.float64)
        task = plain_task(systems, freedom(free, systems[0].n_atoms), np.zeros((0, 3, 3)), fmax, np.float64)
        return cls(potential, systems, spec, jax.tree.map(jnp.asarray, batch), task)

    def run(self, params: Params, search: Search, max_steps: int) -> Search:
        return advance(self.potential, self.spec, params, self.batch, self.task, search, max_steps)

    def forces(self, params: Params, positions: Float[Array, "M N 3"]) -> Float[Array, "M N 3"]:
        return evaluate(self.potential, self.spec, params, self.batch, positions, self.task.cells).forces

    def node_energy(self, params: Params, positions: Float[Array, "M N 3"]) -> Float[Array, "M N"]:
        return evaluate(self.potential, self.spec, params, self.batch, positions, self.task.cells).node_energy


def _is_fine(search: Search) -> Array:
    """Whether a search converged with tables that hold every edge: each evaluation checks them."""
    return search.status == CONVERGED


def _rigid_motions(system: System, positions: Positions, mask: np.ndarray) -> Float[Array, "R N 3"]:
    """Orthonormal motions (R, N, 3) that cost no energy; none if a coordinate is held."""
    n = len(mask)
    if not mask.all():
        return jnp.zeros((0, n, 3), positions.dtype)
    shifts = jnp.broadcast_to(jnp.eye(3, dtype=positions.dtype)[:, None], (3, n, 3))
    motions = shifts
    if not any(system.pbc) and n > 2:
        centred = positions - jnp.mean(positions, axis=0, keepdims=True)
        axes = jnp.eye(3, dtype=positions.dtype)
        motions = jnp.concatenate([shifts, jnp.stack([jnp.cross(axis[None, :], centred) for axis in axes])])
    return jnp.linalg.qr(motions.reshape(len(motions), -1).T)[0].T.reshape(motions.shape)
