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
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import SPRING
from mlipjax.graph import VerletSpec
from mlipjax.graph.verlet import SKIN
from mlipjax.potential import Potential
from mlipjax.precision import exact
from mlipjax.relaxation import band, run
from mlipjax.relaxation.batch import Batch, Evaluation, build_batch, evaluate
from mlipjax.relaxation.cell import Coordinates, coordinates
from mlipjax.relaxation.path import unwrapped
from mlipjax.relaxation.search import Rule, check_systems
from mlipjax.system import System
from mlipjax.typing import Array, Bool, Float, Params, Positions

_CLIMB_AT = 0.5  # eV/Å, residual below which the highest image climbs
_CG_TOLERANCE, _CG_STEPS = 1e-8, 500  # of the linear solve


def relaxed_positions(
    potential: Potential,
    system: System,
    *,
    fmax: float = 1e-6,
    free: np.ndarray | None = None,
    max_steps: int = 2000,
    head: int = 0,
    skin: float = SKIN,
) -> Callable[[Params], Positions]:
    """Return a function from parameters (float64) to relaxed positions (N, 3) in Å, differentiable in reverse mode.

    Rigid translations of a structure without fixed atoms (and rotations of one without periodicity) cost nothing; the
    result stays where it started, and cotangents along them are dropped.

    Example:
        with jax.enable_x64(True):  # how each parameter moves the bond length of a molecule
            relaxed = relaxed_positions(potential, System.from_ase(molecule("H2")))
            bond = lambda params: jnp.linalg.norm(relaxed(params)[0] - relaxed(params)[1])
            length, gradient = jax.value_and_grad(bond)(tree.cast(params, "float64"))

    Args:
        potential: the potential.
        system: where every search starts; 64-bit mode must be on.
        fmax: eV/Å; the error of the derivative is of this order.
        free: (N,) or (N, 3) true where an atom or coordinate may move.
        max_steps: evaluations of a search at most.
        head: index of the energy head.
        skin: Å; half of it is how far an atom may move.

    Raises:
        ValueError: if 64-bit mode is off, or the potential does not know an element.
    """
    problem = _Problem.of(potential, [system], free, head, skin)
    mask = problem.coordinates.free[0]

    def solve(params: Params) -> Positions:
        _, found, fine = problem.relaxed(params, fmax, max_steps)
        return jnp.where(fine, found.positions[0], jnp.nan)

    def forward(params: Params) -> tuple[Positions, tuple[Params, Positions]]:
        found = solve(params)
        return found, (params, found)

    def backward(residuals: tuple[Params, Positions], cotangent: Positions) -> tuple[Any]:
        params, found = residuals
        rigid = _rigid_motions(system, found, np.asarray(mask))

        @exact
        def project(vector: Array) -> Array:
            vector = vector * mask
            return vector - jnp.tensordot(jnp.tensordot(rigid, vector, 2), rigid, 1)

        def forces(params: Params, positions: Positions) -> Positions:
            return problem.at(params, positions[None]).forces[0] * mask

        _, pull = jax.vjp(lambda positions: forces(params, positions), found)

        def hessian(vector: Array) -> Array:
            return -project(pull(project(vector))[0])

        adjoint, _ = jax.scipy.sparse.linalg.cg(hessian, project(cotangent), tol=_CG_TOLERANCE, maxiter=_CG_STEPS)
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
    free: np.ndarray | None = None,
    max_steps: int = 2000,
    head: int = 0,
    skin: float = SKIN,
) -> Callable[[Params], Float[Array, ""]]:
    """Return a function from parameters (float64) to the forward barrier in eV, differentiable in reverse mode.

    Every call relaxes the ends and the band with a climbing image; the derivative is that of the envelope theorem.
    Where no image climbs to a saddle point, the result is NaN.

    Example:
        with jax.enable_x64(True):  # train on a barrier: the loss is (barrier - wanted)^2
            band = neb(model, images).images
            barrier = converged_barrier(potential, band)
            height, gradient = jax.value_and_grad(barrier)(tree.cast(params, "float64"))

    Args:
        potential: the potential.
        images: band where every search starts, ends included: best the one that ``neb`` found; 64-bit mode must be on.
        fmax: eV/Å, of ends and images.
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
    ends = _Problem.of(potential, [systems[0], systems[-1]], free, head, skin)
    images_between = _Problem.of(potential, systems[1:-1], free, head, skin)

    def solve(params: Params) -> tuple[Array, tuple[Array, Array, Array]]:
        _, at_ends, ends_fine = ends.relaxed(params, fmax, max_steps)
        where = images_between.coordinates
        held = band.Band(where, at_ends.positions, at_ends.node_energy, SPRING, fmax, _CLIMB_AT, max_steps)
        state = band.start(held, path[1:-1])
        last, found, fine = images_between.solve(params, partial(band.step, held), state, max_steps)
        levels = held.energies(found.node_energy)
        top = jnp.argmax(levels)
        # an end that is highest, an image that ran away, or a search that failed has no saddle point
        fine &= ends_fine & last.climb.on & (levels[top] > jnp.maximum(0.0, held.end_energies[1]))
        return jnp.where(fine, levels[top], jnp.nan), (at_ends.positions, found.positions, top)

    def forward(params: Params) -> tuple[Array, Any]:
        barrier, (at_ends, at_images, top) = solve(params)
        return barrier, (params, at_ends, at_images, top, barrier)

    def backward(residuals: Any, cotangent: Array) -> tuple[Any]:
        params, at_ends, at_images, top, barrier = residuals

        def difference(params: Params) -> Array:
            # only two of these energies count; taking all of them uses the tables that are there
            saddle = jnp.sum(images_between.at(params, at_images).node_energy, axis=1)[top]
            return saddle - jnp.sum(ends.at(params, at_ends).node_energy, axis=1)[0]

        _, pull = jax.vjp(difference, params)
        return (pull(jnp.where(jnp.isfinite(barrier), cotangent, jnp.nan))[0],)

    barrier = jax.custom_vjp(lambda params: solve(params)[0])
    barrier.defvjp(forward, backward)
    return barrier


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Structures whose search can be traced: fixed tables, parameters as an argument."""

    potential: Potential
    spec: VerletSpec
    batch: Batch
    coordinates: Coordinates
    positions: np.ndarray

    @classmethod
    def of(
        cls, potential: Potential, systems: Sequence[System], free: np.ndarray | None, head: int, skin: float
    ) -> _Problem:
        if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
            raise ValueError(
                "derivatives of converged searches need 64-bit mode: call mlipjax.runtime.enable_x64() first."
            )
        systems = check_systems(potential, systems)
        spec = VerletSpec.for_systems(systems, potential.cutoff, skin)
        # neighbours that come within the cutoff later must fit: all candidates have a slot
        spec = dataclasses.replace(spec, n_neighbors=spec.n_candidates)
        batch, spec = build_batch(spec, systems, head, np.float64)
        positions = np.stack([np.asarray(system.positions, np.float64) for system in systems])
        return cls(potential, spec, batch, coordinates(systems, np.float64, free=free), positions)

    def at(self, params: Params, positions: Float[Array, "M N 3"]) -> Evaluation:
        return self._evaluate(params, self.coordinates.start(positions))

    def relaxed(self, params: Params, fmax: float, max_steps: int) -> tuple[Any, Evaluation, Bool[Array, ""]]:
        rule = partial(run.step, self.coordinates, jnp.asarray(fmax))
        return self.solve(params, rule, run.start(self.coordinates, self.positions), max_steps)

    def solve(self, params: Params, rule: Rule, state: Any, max_steps: int) -> tuple[Any, Evaluation, Bool[Array, ""]]:
        """``search`` in a traced loop: the last state, what was found, and whether it converged and no edge lacked."""

        def body(carry: Any) -> Any:
            found = self._evaluate(params, carry[0].x)
            return *rule(carry[0], found), found

        def going(carry: Any) -> Array:
            state, info, found = carry
            lasts = ~info.converged & info.finite & ~found.stale
            return (state.step < max_steps) & (lasts | (state.step == 0))

        shapes = jax.eval_shape(body, (state,))
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        state, info, found = jax.lax.while_loop(going, body, (state, *nothing[1:]))
        return state, found, info.converged & ~found.stale

    def _evaluate(self, params: Params, x: Float[Array, "M D"]) -> Evaluation:
        return evaluate(self.potential, self.spec, params, self.batch, self.coordinates, x)


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
