"""The compiled loop that relaxes M structures, each with a FIRE clock of its own, or a band of them with a common one.

FIRE as in Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with the constants of ``ase.optimize.FIRE``; velocity,
time step and mixing belong to each structure, or to a band as a whole. A step moves no atom further than 0.2 Å, and a
band as a whole no further than that. Positions are ``x (1 + e)`` and cells ``h (1 + e)`` with a strain
``e = sum_s q_s B_s / w``: what may happen to the cell is the list of matrices ``B``, empty for a fixed cell; ``w`` (the
number of atoms) makes a strain about as stiff as an atom.

A climbing image feels the force along the band inverted, which leads to a saddle point if the tangent is close to the
unstable direction there. Between few images on a bent path it need not be: where neighbouring chords meet at a right
angle, the energy may rise along the tangent without end, and the image runs away. That can be told: any path between
the ends passes as high as the lowest saddle point between them (mountain pass), so the lowest top that the band had
since the climb began, read off the cubics between its images, lies above that saddle point but for the error of those
cubics. An image far above it, or not above both ends, is not on its way there. If it does not come back soon (images
overshoot), or is still above it when the evaluations are used up, the search goes on from where the climb began as if
none had been.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mlipjax.potential import Potential
from mlipjax.probes.neb_forces import band_forces, between_images
from mlipjax.probes.relax_batch import Batch, BatchSpec, evaluate
from mlipjax.typing import Array, Bool, Float, Int, Params

RUNNING, CONVERGED, MOVED_TOO_FAR, TOO_MANY_NEIGHBORS, NOT_FINITE = range(5)
"""Values of ``Search.status``."""

_DT, _DT_MAX, _GROW, _SHRINK = 0.1, 1.0, 1.1, 0.5
_MIXING, _MIXING_DECAY, _PATIENCE = 0.1, 0.99, 5
_LONGEST_STEP = 0.2  # Å, of one atom; of a band, the length of all moves together
_HEADROOM, _LEAST_HEADROOM = 2.0, 0.1  # of the barrier that the cubics show, and eV: how wrong they may be
_ASTRAY = 10  # evaluations in a row out of bounds after which a climb is given up


@struct.dataclass
class Task:
    """What is searched for.

    Attributes:
        cells: (M, 3, 3) Å, before any strain.
        basis: (S, 3, 3) strains that are free, orthonormal or zero; S = 0 for a fixed cell.
        pressure: () eV/Å^3 on the outside of a free cell; the enthalpy is then what becomes least.
        free: (M, N, 3) 1 where a coordinate may move, 0 where not; all 0 for a structure that only fills a slot.
        band: () whether the structures are the inner images of a band (fixed cells only).
        climb_below: () eV/Å, largest residual at which the highest image of a band starts to climb; 0 if none shall.
        spring: () eV/Å^2.
        ends: (2, N, 3) Å, first and last image of the band.
        end_energies: (2,) eV, relative to ``energy_zero``.
        energy_zero: (N,) eV, energies per atom that are subtracted, so that float32 holds differences.
        fmax: () eV/Å, residual at which a structure is converged.
        max_steps: () evaluations after which an image that climbed too high is given up.
    """

    cells: Float[Array, "M 3 3"]
    basis: Float[Array, "S 3 3"]
    pressure: Float[Array, ""]
    free: Float[Array, "M N 3"]
    band: Bool[Array, ""]
    climb_below: Float[Array, ""]
    spring: Float[Array, ""]
    ends: Float[Array, "2 N 3"]
    end_energies: Float[Array, " 2"]
    energy_zero: Float[Array, " N"]
    fmax: Float[Array, ""]
    max_steps: Int[Array, ""]


@struct.dataclass
class Motion:
    """Where structures are, and how FIRE moves them on.

    Attributes:
        x: (M, 3 N + S) where the structures are: coordinates in Å and scaled strains.
        velocity: (M, 3 N + S).
        dt, mixing: (M,) time step and mixing of FIRE.
        n_downhill: (M,) steps since a structure last went uphill.
    """

    x: Float[Array, "M D"]
    velocity: Float[Array, "M D"]
    dt: Float[Array, " M"]
    mixing: Float[Array, " M"]
    n_downhill: Int[Array, " M"]


@struct.dataclass
class Search(Motion):
    """State of the loop: the motion, and the following.

    Attributes:
        step: () evaluations made, without those in vain.
        climbing: () whether an image climbs.
        lowest_top: () eV, relative to ``Task.energy_zero``: of all bands since the climb began; infinite before.
        astray: () evaluations in a row in which no image was above both ends and not far above that.
        began: () evaluations made when one began to.
        before: the motion then.
        in_vain: () evaluations of a climb that was given up; none is tried after that.
        status: () one of the constants of this module.
        at: (M, 3 N + S) where the following were evaluated.
        node_energy: (M, N) eV.
        forces: (M, N, 3) eV/Å, of the potential.
        virial: (M, 3, 3) eV, stress times volume; zero for fixed cells.
        residual: (M,) eV/Å, largest force that counts (projected, for a band; scaled strains included).
        slope: (M,) eV/Å, derivative of the energy along the band.
        n_neighbors: () most neighbours met.
    """

    step: Int[Array, ""]
    climbing: Bool[Array, ""]
    lowest_top: Float[Array, ""]
    astray: Int[Array, ""]
    began: Int[Array, ""]
    before: Motion
    in_vain: Int[Array, ""]
    status: Int[Array, ""]
    at: Float[Array, "M D"]
    node_energy: Float[Array, "M N"]
    forces: Float[Array, "M N 3"]
    virial: Float[Array, "M 3 3"]
    residual: Float[Array, " M"]
    slope: Float[Array, " M"]
    n_neighbors: Int[Array, ""]


def start(positions: Float[Array, "M N 3"], n_strains: int = 0) -> Search:
    """Begin a search at rest and without strain, in the dtype of ``positions``."""
    m, n, _ = positions.shape
    x = jnp.concatenate([positions.reshape(m, 3 * n), jnp.zeros((m, n_strains), positions.dtype)], axis=1)
    each = jnp.zeros(m, positions.dtype)
    none = jnp.zeros((), jnp.int32)
    at_rest = Motion(x, jnp.zeros_like(x), each + _DT, each + _MIXING, jnp.zeros(m, jnp.int32))
    return Search(
        **vars(at_rest),
        step=none,
        climbing=jnp.zeros((), bool),
        lowest_top=jnp.asarray(jnp.inf, positions.dtype),
        astray=none,
        began=none,
        before=at_rest,
        in_vain=none,
        status=none,
        at=x,
        node_energy=jnp.zeros((m, n), positions.dtype),
        forces=jnp.zeros_like(positions),
        virial=jnp.zeros((m, 3, 3), positions.dtype),
        residual=each + jnp.inf,
        slope=each,
        n_neighbors=none,
    )


def geometry(task: Task, x: Float[Array, "M D"]) -> tuple[Array, Array, Array]:
    """Positions (M, N, 3) Å, cells (M, 3, 3) Å and deformations (M, 3, 3) at ``x``."""
    m, n = task.free.shape[:2]
    positions, unit = x[:, : 3 * n].reshape(m, n, 3), jnp.broadcast_to(jnp.eye(3, dtype=x.dtype), (m, 3, 3))
    if task.basis.shape[0] == 0:
        return positions, task.cells, unit
    deformation = unit + jnp.tensordot(x[:, 3 * n :] / n, task.basis, 1)
    return positions @ deformation, task.cells @ deformation, deformation


@functools.partial(jax.jit, static_argnames=("potential", "spec"))
def advance(
    potential: Potential, spec: BatchSpec, params: Params, batch: Batch, task: Task, search: Search, limit: Any
) -> Search:
    """Search until everything is converged, ``search.step`` reaches ``limit``, or the tables no longer serve.

    A step that the tables cannot serve changes nothing but ``status``: rebuild them, set ``status`` to 0, go on.
    """

    def going(search: Search) -> Array:
        return (search.status == RUNNING) & (search.step < limit)

    return jax.lax.while_loop(going, functools.partial(_step, potential, spec, params, batch, task), search)


def _step(potential: Potential, spec: BatchSpec, params: Params, batch: Batch, task: Task, search: Search) -> Search:
    positions, cells, deformation = geometry(task, search.x)
    stress = task.basis.shape[0] > 0
    found = evaluate(potential, spec, params, batch, positions, cells, stress)
    energies = jnp.sum(found.node_energy - task.energy_zero[None, :], axis=1)
    forces, slope = _forces_that_count(task, positions, energies, found.forces * task.free, search.climbing)
    m, n = task.free.shape[:2]
    force = (forces @ jnp.swapaxes(deformation, 1, 2) * task.free).reshape(m, 3 * n)
    residual = jnp.sqrt(jnp.max(jnp.sum(forces**2, axis=-1), axis=1))
    if stress:
        # dH/dq_s = <(1 + e)^-T (virial + p V), B_s> / w
        work = task.pressure * jnp.abs(jnp.linalg.det(cells))[:, None, None] * jnp.eye(3, dtype=cells.dtype)[None]
        pull = jnp.swapaxes(jnp.linalg.inv(deformation), 1, 2) @ (found.virial + work)
        alive = jnp.any(task.free > 0, axis=(1, 2))[:, None]
        on_strain = -jnp.tensordot(pull, task.basis, ((1, 2), (1, 2))) / n * alive
        residual = jnp.maximum(residual, jnp.max(jnp.abs(on_strain), axis=1))
        force = jnp.concatenate([force, on_strain], axis=1)
    top, bottom = jnp.max(energies), jnp.max(task.end_energies)
    may_start = task.band & ~search.climbing & (search.in_vain == 0) & (top > bottom)
    starts = may_start & (jnp.max(residual) < task.climb_below)
    headroom = jnp.maximum(_HEADROOM * (search.lowest_top - bottom), _LEAST_HEADROOM)
    astray = jnp.where((bottom < top) & (top <= search.lowest_top + headroom), 0, search.astray + 1)
    too_late = (search.step + 1 >= task.max_steps) & (top > search.lowest_top + _LEAST_HEADROOM)
    arrived = jnp.all(residual < task.fmax)
    runs_away = search.climbing & ~arrived & ((astray >= _ASTRAY) | too_late | ~jnp.isfinite(top))
    converged = arrived & ~starts
    # images of a band move together; other structures rest once they are converged, whatever the others do
    moving = ~converged & (task.band | (residual >= task.fmax))
    moved = _fire(search, force, moving, n, task.band)
    moved = _climb(search, moved, starts, runs_away, _top(task, positions, energies, slope))
    finite = jnp.all(jnp.isfinite(found.node_energy)) & jnp.all(jnp.isfinite(force))
    status = jnp.where(converged, CONVERGED, jnp.where(finite | runs_away, RUNNING, NOT_FINITE))
    done = dataclasses.replace(
        moved,
        astray=astray.astype(jnp.int32),
        status=status.astype(jnp.int32),
        at=search.x,
        node_energy=found.node_energy,
        forces=found.forces,
        virial=found.virial,
        residual=residual,
        slope=slope,
        n_neighbors=jnp.maximum(search.n_neighbors, found.n_neighbors),
    )
    too_many = found.n_neighbors > spec.n_neighbors
    problem = jnp.where(found.moved_too_far, MOVED_TOO_FAR, TOO_MANY_NEIGHBORS).astype(jnp.int32)
    refused = dataclasses.replace(search, status=problem, n_neighbors=done.n_neighbors)
    return jax.tree.map(lambda no, yes: jnp.where(found.moved_too_far | too_many, no, yes), refused, done)


def _top(task: Task, positions: Array, energies: Array, slope: Array) -> Array:
    """Highest energy in eV on the cubics between the images of a band."""
    path = _with_ends(task.ends, positions)
    gaps = jnp.sqrt(jnp.sum((path[1:] - path[:-1]) ** 2, axis=(1, 2)))
    return jnp.max(between_images(_with_ends(task.end_energies, energies), jnp.pad(slope, 1), gaps))


def _with_ends(ends: Array, inner: Array) -> Array:
    return jnp.concatenate([ends[:1], inner, ends[1:]])


def _climb(search: Search, moved: Search, starts: Array, runs_away: Array, top: Array) -> Search:
    """Count the evaluation; remember the band when an image starts to climb, and go back there when it runs away."""

    def choose(condition: Array, yes: Any, no: Any) -> Any:
        return jax.tree.map(functools.partial(jnp.where, condition), yes, no)

    step = search.step + 1
    on = Motion(**{field.name: getattr(moved, field.name) for field in dataclasses.fields(Motion)})
    return dataclasses.replace(
        moved,
        **vars(choose(runs_away, search.before, on)),
        step=jnp.where(runs_away, search.began, step),
        climbing=(search.climbing | starts) & ~runs_away,
        lowest_top=jnp.where(starts | search.climbing, jnp.minimum(search.lowest_top, top), search.lowest_top),
        began=jnp.where(starts, step, search.began),
        before=choose(starts, on, search.before),
        in_vain=jnp.where(runs_away, step - search.began, search.in_vain),
    )


def _forces_that_count(
    task: Task, positions: Array, energies: Array, forces: Array, climbing: Array
) -> tuple[Array, Array]:
    """Forces for free structures, projected ones for a band; and the slope along it."""
    path, levels = _with_ends(task.ends, positions), _with_ends(task.end_energies, energies)
    projected, slope = band_forces(path, levels, forces, task.spring, climbing)
    return jnp.where(task.band, projected * task.free, forces), slope


def _fire(
    search: Search, force: Float[Array, "M D"], moving: Bool[Array, " M"], n_atoms: int, band: Bool[Array, ""]
) -> Search:
    """Move the structures that are ``moving`` by one step; a band has one clock, which halves the steps it takes."""

    def total(values: Array) -> Array:
        each = jnp.sum(values, axis=1)
        return jnp.where(band, jnp.sum(each), each)

    def norm(values: Array) -> Array:
        return jnp.sqrt(total(values**2))

    downhill = total(force * search.velocity) > 0
    tiny = jnp.finfo(force.dtype).tiny
    steered = (1 - search.mixing)[:, None] * search.velocity + (
        search.mixing * norm(search.velocity) / jnp.maximum(norm(force), tiny)
    )[:, None] * force
    faster = downhill & (search.n_downhill > _PATIENCE)
    at_rest = norm(search.velocity) == 0
    dt = jnp.where(faster, jnp.minimum(search.dt * _GROW, _DT_MAX), search.dt)
    dt = jnp.where(downhill | at_rest, dt, search.dt * _SHRINK)
    mixing = jnp.where(faster, search.mixing * _MIXING_DECAY, jnp.where(downhill, search.mixing, _MIXING))
    velocity = jnp.where(downhill[:, None], steered, 0.0) + dt[:, None] * force
    change = dt[:, None] * velocity
    atoms = change[:, : 3 * n_atoms].reshape(len(change), n_atoms, 3)
    furthest = jnp.sqrt(jnp.max(jnp.sum(atoms**2, axis=-1), axis=1))
    if change.shape[1] > 3 * n_atoms:
        furthest = jnp.maximum(furthest, jnp.max(jnp.abs(change[:, 3 * n_atoms :]), axis=1))
    # of a band all moves count together, as in ASE: images that jump apart need more steps to come together again
    longest = jnp.where(band, norm(change), furthest)
    change = change * jnp.minimum(1.0, _LONGEST_STEP / jnp.maximum(longest, tiny))[:, None]
    return dataclasses.replace(
        search,
        x=search.x + jnp.where(moving[:, None], change, 0.0),
        velocity=jnp.where(moving[:, None], velocity, 0.0),
        dt=jnp.where(moving, dt, search.dt),
        mixing=jnp.where(moving, mixing, search.mixing),
        n_downhill=jnp.where(moving & downhill, search.n_downhill + 1, 0),
    )
