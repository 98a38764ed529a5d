"""Forces on the images of an elastic band: improved tangent, springs along it, and the image that climbs.

Also the energy between images, from energies and slopes at them.

Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000); Henkelman, Uberuaga and Jónsson, ibid. 9901 (2000).
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from mlipjax.typing import Array, Bool, Float

_PART: Any = np.linspace(0.0, 1.0, 41, dtype=np.float32)[
    None
]  # of a gap: the top of a cubic is missed by less than 0.1 %

AnyArray = TypeVar("AnyArray", np.ndarray, Array)


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
