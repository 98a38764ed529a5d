"""FIRE: molecular dynamics that is steered downhill and stops where it would go up.

Bitzek et al., Phys. Rev. Lett. 97, 170201 (2006), with the constants of ``ase.optimize.FIRE``. One system has one
clock, whatever the shape of its coordinates; ``jax.vmap`` gives every structure of a batch its own.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from mlipjax.typing import Array, Float, Int

LONGEST_STEP = 0.2
"""Å: no atom, and no band as a whole, is moved further at once."""

_DT, _DT_MAX, _GROW, _SHRINK = 0.1, 1.0, 1.1, 0.5
_MIXING, _MIXING_DECAY, _PATIENCE = 0.1, 0.99, 5


@struct.dataclass
class Fire:
    """State of the optimiser.

    Attributes:
        velocity: as the coordinates.
        dt, mixing: () time step, and how much of the velocity is turned towards the force.
        n_downhill: () steps since it last went uphill.
    """

    velocity: Float[Array, "..."]
    dt: Float[Array, ""]
    mixing: Float[Array, ""]
    n_downhill: Int[Array, ""]


def init(x: Float[Array, "..."]) -> Fire:
    """At rest."""
    return Fire(jnp.zeros_like(x), jnp.asarray(_DT, x.dtype), jnp.asarray(_MIXING, x.dtype), jnp.zeros((), jnp.int32))


def step(force: Float[Array, "..."], state: Fire) -> tuple[Float[Array, "..."], Fire]:
    """Return the move along each coordinate, and the state after that. The move may be shortened (``shortened``)."""
    speed, strength = norm(state.velocity), norm(force)
    downhill = _total(force * state.velocity) > 0
    faster = downhill & (state.n_downhill > _PATIENCE)
    dt = jnp.where(faster, jnp.minimum(state.dt * _GROW, _DT_MAX), state.dt)
    dt = jnp.where(downhill | (speed == 0), dt, state.dt * _SHRINK)
    turned = state.mixing * speed / jnp.maximum(strength, jnp.finfo(force.dtype).tiny)
    steered = (1 - state.mixing) * state.velocity + turned * force
    velocity = jnp.where(downhill, steered, 0.0) + dt * force
    mixing = jnp.where(faster, state.mixing * _MIXING_DECAY, jnp.where(downhill, state.mixing, _MIXING))
    return dt * velocity, Fire(velocity, dt, mixing, jnp.where(downhill, state.n_downhill + 1, 0))


def shortened(move: Float[Array, "..."], length: Float[Array, ""]) -> Float[Array, "..."]:
    """The move scaled down so that ``length``, what counts as its own, is at most ``LONGEST_STEP``."""
    return move * jnp.minimum(1.0, LONGEST_STEP / jnp.maximum(length, jnp.finfo(move.dtype).tiny))


def norm(values: Float[Array, "..."]) -> Float[Array, ""]:
    """Root of the sum of squares."""
    return jnp.sqrt(_total(values**2))


def _total(values: Array) -> Array:
    return jnp.sum(jnp.sum(values, axis=-1))
