"""Forces on the images of an elastic band: improved tangent, springs along it, and the image that climbs.

Henkelman and Jónsson, J. Chem. Phys. 113, 9978 (2000); Henkelman, Uberuaga and Jónsson, ibid. 9901 (2000).
"""

from __future__ import annotations

import jax.numpy as jnp

from mlipjax.typing import Array, Bool, Float


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
