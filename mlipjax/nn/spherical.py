"""Real spherical harmonics and Clebsch-Gordan coefficients, in e3nn's convention (l = 1 ordered x, y, z)."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

from mlipjax.typing import Array


@functools.cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> np.ndarray:
    """Real coupling coefficients (2l1+1, 2l2+1, 2l3+1) whose squares sum to one; float64."""
    import e3nn_jax

    return np.asarray(e3nn_jax.clebsch_gordan(l1, l2, l3), np.float64)


def spherical_harmonics(unit: Array, lmax: int) -> list[Array]:
    """Spherical harmonics of unit vectors, normalised so that the squares of degree ``l`` sum to ``2l+1``.

    Degree ``l`` is the coupling of degree ``l - 1`` with the vector itself, so each is a homogeneous polynomial
    and differentiable to any order, also at the zero vector.

    Args:
        unit: (..., 3) vectors of length one (zero vectors give zero for ``l > 0``).
        lmax: highest degree.

    Returns:
        One array (..., 2l+1) per degree 0..lmax.
    """
    harmonics = [jnp.ones_like(unit[..., :1])]
    components = [unit[..., i] for i in range(3)]
    previous = [jnp.ones_like(components[0])]
    for l in range(1, lmax + 1):
        previous = _raise_degree(previous, components, l)
        harmonics.append(jnp.stack(previous, axis=-1))
    return harmonics


def _raise_degree(previous: list[Array], vector: list[Array], l: int) -> list[Array]:
    coupling = clebsch_gordan(l - 1, 1, l) * _raising_factor(l)
    raised = []
    for m in range(2 * l + 1):
        terms = [
            float(coupling[a, b, m]) * previous[a] * vector[b]
            for a, b in zip(*np.nonzero(np.abs(coupling[..., m]) > 1e-12), strict=True)
        ]
        raised.append(sum(terms[1:], terms[0]))
    return raised


@functools.cache
def _raising_factor(l: int) -> float:
    """Factor that gives degree ``l`` the norm sqrt(2l+1), evaluated on one vector of the unit sphere."""
    vector = np.array([0.36, 0.48, 0.8])
    values = np.ones(1)
    for degree in range(1, l + 1):
        raised = np.einsum("a,b,abm->m", values, vector, clebsch_gordan(degree - 1, 1, degree))
        factor = np.sqrt(2 * degree + 1) / np.linalg.norm(raised)
        values = raised * factor
    return float(factor)
