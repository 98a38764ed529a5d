"""Nudged elastic bands: the forces on their images, the image that climbs, and the energy between images.

The tangent is the improved one, springs act along it: Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000); the
highest image climbs: Henkelman, Uberuaga and Jónsson, ibid. 9901 (2000). A band has one clock (``fire``), and moves no
further at once, all images together, than ``fire.LONGEST_STEP``, as in ASE: images that jump apart need more steps to
come together again.

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
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from mlipjax.relaxation import fire
from mlipjax.relaxation.batch import Evaluation
from mlipjax.relaxation.cell import Coordinates
from mlipjax.relaxation.search import Search
from mlipjax.typing import Array, Bool, Float, Int

_HEADROOM, _LEAST_HEADROOM = 2.0, 0.1  # of the barrier that the cubics show, and eV: how wrong they may be
_ASTRAY = 10  # evaluations in a row out of bounds after which a climb is given up

# of a gap: the top of a cubic is missed by less than 0.1 %
_PART: Any = np.linspace(0.0, 1.0, 41, dtype=np.float32)[None]

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


@struct.dataclass
class Band:
    """Constants of the search for M inner images of a band.

    Attributes:
        coordinates: of the inner images.
        ends: (2, N, 3) Å, first and last image.
        end_node_energy: (2, N) eV, interaction energy of each of their atoms.
        spring: () eV/Å^2.
        fmax: () eV/Å, residual at which an image is converged.
        climb_below: () eV/Å, largest residual at which the highest image starts to climb; 0 if none shall.
        max_steps: () evaluations after which an image that climbed too high is given up.
    """

    coordinates: Coordinates
    ends: Float[Array, "2 N 3"]
    end_node_energy: Float[Array, "2 N"]
    spring: Float[Array, ""] | float
    fmax: Float[Array, ""] | float
    climb_below: Float[Array, ""] | float
    max_steps: Int[Array, ""] | int

    @property
    def end_energies(self) -> Float[Array, " 2"]:
        """Of the ends, eV above the first one."""
        return self.energies(self.end_node_energy)

    def energies(self, node_energy: Float[Array, "M N"]) -> Float[Array, " M"]:
        """Of images, eV above the first end: differences are formed per atom, so that float32 holds them."""
        return jnp.sum(node_energy - self.end_node_energy[:1], axis=1)


@struct.dataclass
class Climb:
    """Of the highest image.

    Attributes:
        on: () whether it climbs.
        lowest_top: () eV above the first end, of all bands since the climb began; infinite before.
        astray: () evaluations in a row in which no image was above both ends and not far above that.
        before: the band when the climb began.
        in_vain: () evaluations of a climb that was given up; none is tried after that.
    """

    on: Bool[Array, ""]
    lowest_top: Float[Array, ""]
    astray: Int[Array, ""]
    before: Search
    in_vain: Int[Array, ""]


@struct.dataclass
class BandSearch(Search):
    """State of the search for a band at rest: the images have one clock, and one of them may climb."""

    climb: Climb


class BandInfo(NamedTuple):
    """As ``Info``, and ``slope`` (M,), the derivative of the energy along the band in eV/Å."""

    residual: Float[Array, " M"]
    converged: Bool[Array, ""]
    finite: Bool[Array, ""]
    slope: Float[Array, " M"]


def start(band: Band, positions: Any) -> BandSearch:
    """A band at rest with its inner images at ``positions`` (M, N, 3)."""
    x, none = band.coordinates.start(positions), jnp.zeros((), jnp.int32)
    at_rest = Search(x, fire.init(x), none)
    climb = Climb(jnp.zeros((), bool), jnp.asarray(jnp.inf, x.dtype), none, at_rest, none)
    return BandSearch(**vars(at_rest), climb=climb)


@jax.jit
def step(band: Band, state: BandSearch, found: Evaluation) -> tuple[BandSearch, BandInfo]:
    """Move the images by one step, unless all residuals are below ``fmax``: the rule of ``search``."""
    free, energies = band.coordinates.free, band.energies(found.node_energy)
    path, levels = _with_ends(band.ends, found.positions), _with_ends(band.end_energies, energies)
    forces, slope = band_forces(path, levels, found.forces * free, band.spring, state.climb.on)
    force, residual = band.coordinates.forces(state.x, forces, found.virial)
    arrived = jnp.all(residual < band.fmax)
    starts = _may_start(band, state.climb, energies) & (jnp.max(residual) < band.climb_below)
    move, clock = fire.step(force, state.fire)
    moved = Search(state.x + fire.shortened(move, fire.norm(move)), clock, state.step + 1)
    converged = arrived & ~starts
    moved = _choose(converged, Search(state.x, state.fire, state.step + 1), moved)
    gaps = jnp.sqrt(jnp.sum((path[1:] - path[:-1]) ** 2, axis=(1, 2)))
    top = jnp.max(between_images(levels, jnp.pad(slope, 1), gaps))
    climb, astray = _watched(band, state, energies)
    runs_away = climb.on & ~arrived & astray
    after = _go_on(climb, moved, starts, top)
    after = _choose(runs_away, _given_up(climb, state.step + 1), after)
    finite = jnp.all(jnp.isfinite(found.node_energy)) & jnp.all(jnp.isfinite(force))
    return after, BandInfo(residual, converged, finite | runs_away, slope)


def _may_start(band: Band, climb: Climb, energies: Float[Array, " M"]) -> Bool[Array, ""]:
    return ~climb.on & (climb.in_vain == 0) & (jnp.max(energies) > jnp.max(band.end_energies))


def _watched(band: Band, state: BandSearch, energies: Float[Array, " M"]) -> tuple[Climb, Bool[Array, ""]]:
    """The climb with its evaluations out of bounds counted, and whether these are too many."""
    climb, top, bottom = state.climb, jnp.max(energies), jnp.max(band.end_energies)
    headroom = jnp.maximum(_HEADROOM * (climb.lowest_top - bottom), _LEAST_HEADROOM)
    inside = (bottom < top) & (top <= climb.lowest_top + headroom)
    astray = jnp.where(inside, 0, climb.astray + 1).astype(jnp.int32)
    too_late = (state.step + 1 >= band.max_steps) & (top > climb.lowest_top + _LEAST_HEADROOM)
    return dataclasses.replace(climb, astray=astray), (astray >= _ASTRAY) | too_late | ~jnp.isfinite(top)


def _go_on(climb: Climb, moved: Search, starts: Bool[Array, ""], top: Float[Array, ""]) -> BandSearch:
    """The band that was moved; where an image starts to climb, it is remembered."""
    climbs = starts | climb.on
    lowest = jnp.where(climbs, jnp.minimum(climb.lowest_top, top), climb.lowest_top)
    before = _choose(starts, moved, climb.before)
    return BandSearch(**vars(moved), climb=dataclasses.replace(climb, on=climbs, lowest_top=lowest, before=before))


def _given_up(climb: Climb, step: Int[Array, ""]) -> BandSearch:
    """The band as it was before the climb."""
    over = dataclasses.replace(climb, on=jnp.zeros((), bool), in_vain=step - climb.before.step)
    return BandSearch(**vars(climb.before), climb=over)


def _choose(condition: Bool[Array, ""], yes: Any, no: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), yes, no)


def _with_ends(ends: Array, inner: Array) -> Array:
    return jnp.concatenate([ends[:1], inner, ends[1:]])


def tangents(path: Float[Array, "P N 3"], energies: Float[Array, " P"]) -> Float[Array, "M N 3"]:
    """Unit tangents at the M = P - 2 inner images: towards the higher neighbour, mixed at an extremum."""
    ahead, behind = path[2:] - path[1:-1], path[1:-1] - path[:-2]
    up, down = energies[2:] - energies[1:-1], energies[:-2] - energies[1:-1]
    larger, smaller = jnp.maximum(jnp.abs(up), jnp.abs(down)), jnp.minimum(jnp.abs(up), jnp.abs(down))
    next_higher = (energies[2:] > energies[:-2]).astype(path.dtype)
    at_extremum = (up > 0) == (down > 0)
    weight_ahead = jnp.where(at_extremum, jnp.where(next_higher > 0, larger, smaller), next_higher)
    weight_behind = jnp.where(at_extremum, jnp.where(next_higher > 0, smaller, larger), 1 - next_higher)
    tangent = weight_ahead[:, None, None] * ahead + weight_behind[:, None, None] * behind
    length = jnp.sqrt(jnp.sum(tangent**2, axis=(1, 2), keepdims=True))
    return tangent / jnp.maximum(length, jnp.finfo(path.dtype).tiny)


def band_forces(
    path: Float[Array, "P N 3"],
    energies: Float[Array, " P"],
    forces: Float[Array, "M N 3"],
    spring: Float[Array, ""] | float,
    climbing: Bool[Array, ""] | bool,
) -> tuple[Float[Array, "M N 3"], Float[Array, " M"]]:
    """Forces that relax the inner images towards the minimum-energy path.

    Args:
        path: (P, N, 3) Å, all images including both ends, without jumps across the cell.
        energies: (P,) eV.
        forces: (M, N, 3) eV/Å of the potential on the inner images.
        spring: eV/Å^2.
        climbing: whether the highest image, if it is above both ends, climbs along the band instead.

    Returns:
        (M, N, 3) forces and (M,) derivative of the energy along the band, eV/Å.
    """
    tangent = tangents(path, energies)
    along = jnp.sum(forces * tangent, axis=(1, 2))
    gaps = jnp.sqrt(jnp.sum((path[1:] - path[:-1]) ** 2, axis=(1, 2)))
    pull = spring * (gaps[1:] - gaps[:-1])
    inner = energies[1:-1]
    highest = (jnp.arange(inner.shape[0]) == jnp.argmax(inner)) & (inner > jnp.maximum(energies[0], energies[-1]))
    parallel = jnp.where(highest & climbing, -along, pull)
    return forces + (parallel - along)[:, None, None] * tangent, -along


def between_images(energies: AnyArray, slopes: AnyArray, gaps: AnyArray) -> AnyArray:
    """Energies (P - 1, 41) in eV between neighbouring images, both included: the cubics through energies and slopes.

    Cubic Hermite interpolation along the arc, as in ASE's ``NEBTools.get_barrier(fit=True)``; there slopes are those
    along the line between both neighbours, here those along the improved tangent, which the band has anyway.

    Args:
        energies: (P,) eV of all images; differences are to be resolved, so relative to one of them in single precision.
        slopes: (P,) eV/Å, derivative along the band.
        gaps: (P - 1,) Å between neighbours.
    """
    t = _PART
    left, right = energies[:-1, None], energies[1:, None]
    rise_left, rise_right = (gaps * slopes[:-1])[:, None], (gaps * slopes[1:])[:, None]
    values = (1 + 2 * t) * (1 - t) ** 2 * left + t**2 * (3 - 2 * t) * right
    return values + t * (1 - t) ** 2 * rise_left - t**2 * (1 - t) * rise_right
