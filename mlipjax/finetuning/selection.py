"""Which of the frames that were sampled are labelled: pure functions, features and standard deviations in, indices out.

All of them have fixed shapes, return indices in the order of time, and take from P candidates n different ones.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlipjax.precision import exact
from mlipjax.typing import Array, Bool, Float, Int, Key


def at_intervals(n_candidates: int, n: int, n_replicas: int = 1) -> Int[Array, " n"]:
    """The last frame of every interval of each replica, as if nothing had been sampled between.

    Args:
        n_candidates: P, frame by frame, the replicas of each side by side.
        n: to be chosen; a multiple of the replicas that divides P.
        n_replicas: R.
    """
    factor = n_candidates // n
    rows = (jnp.arange(n // n_replicas) + 1) * factor - 1
    return (rows[:, None] * n_replicas + jnp.arange(n_replicas)[None, :]).reshape(-1)


def at_random(key: Key, n_candidates: int, n: int) -> Int[Array, " n"]:
    """Any ``n`` of the candidates, each set as probable as the others."""
    return jnp.sort(jax.random.permutation(key, n_candidates)[:n])


def largest(values: Float[Array, " P"], n: int) -> Int[Array, " n"]:
    """The candidates with the largest values, such as the standard deviation of their forces; NaN counts as largest."""
    return jnp.sort(jax.lax.top_k(jnp.where(jnp.isnan(values), jnp.inf, values), n)[1])


@exact
def farthest(
    features: Float[Array, "P F"],
    n: int,
    known: Float[Array, "Q F"],
    is_known: Bool[Array, " Q"],
    weights: Float[Array, " P"] | None = None,
) -> Int[Array, " n"]:
    """Farthest-point sampling: one after the other, the candidate farthest from all that is known or chosen.

    Without anything known the first is the one farthest from the mean. A copy of a frame that is known or chosen has
    no distance, and is taken when nothing else is left. (Gonzalez, Theor. Comput. Sci. 38, 293 (1985).)

    Args:
        features: of the candidates.
        n: to be chosen.
        known: of frames that were labelled before.
        is_known: which rows of these count.
        weights: positive factors of the candidates' distances, such as their standard deviations.
    """
    scale = jnp.ones(len(features), features.dtype) if weights is None else weights**2

    def squares(row: Array) -> Array:
        return jnp.sum((features - row[None, :]) ** 2, axis=1)

    start = jnp.min(
        jnp.where(is_known[None, :], jax.vmap(squares, out_axes=1)(known), jnp.inf), axis=1, initial=jnp.inf
    )
    first = jnp.where(jnp.any(is_known), start, squares(jnp.mean(features, axis=0)))

    def take(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], Array]:
        score, gap, free = carry
        best = jnp.argmax(jnp.where(free, scale * score, -1.0))
        gap = jnp.minimum(gap, squares(features[best]))
        return (gap, gap, free.at[best].set(False)), best

    _, chosen = jax.lax.scan(take, (first, start, jnp.ones(len(features), bool)), length=n)
    return jnp.sort(chosen)


@exact
def element_features(features: Float[Array, "C N F"], species: Int[Array, " N"], n_species: int) -> Float[Array, "C D"]:
    """Features of frames: means over the atoms of each element, side by side; elements that are absent are zero."""
    of_element = (species[None, :] == jnp.arange(n_species)[:, None]).astype(features.dtype)
    means = jnp.einsum("sn,cnf->csf", of_element, features)
    means = means / jnp.maximum(jnp.sum(of_element, axis=1), 1.0)[None, :, None]
    return means.reshape(len(features), -1)


def scales_of(features: Float[Array, "C D"], n_species: int) -> Float[Array, " D"]:
    """Root mean square deviation of the features of each element, for all of its features: none outweighs another."""
    blocks = features.reshape(len(features), n_species, -1)
    deviation = jnp.sum(jnp.mean((blocks - jnp.mean(blocks, axis=0, keepdims=True)) ** 2, axis=0), axis=-1) ** 0.5
    return jnp.repeat(jnp.where(deviation > 0.0, deviation, 1.0), blocks.shape[-1])
