"""Directions of an optimiser's steps: from clipped gradients to steps of about unit size, before the learning rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Protocol

import jax
import jax.numpy as jnp
import optax

from mlipjax.precision import exact
from mlipjax.typing import Array

ADAM_EPS = 1e-8
_TINY = 1e-16
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Direction(Protocol):
    """A value, so that optimisers with equal directions share compiled programs."""

    def transformation(self) -> optax.GradientTransformation:
        """Transformation of gradients, in trees with ``None`` for frozen leaves."""
        ...


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba, arXiv 1412.6980) with its ``eps`` inside the root: ``m / sqrt(v + eps²)``.

    Attributes:
        b1, b2: decay of the means of gradients and of their squares, per step.
    """

    b1: float = 0.9
    b2: float = 0.999

    def transformation(self) -> optax.GradientTransformation:
        """``optax.scale_by_adam``."""
        return optax.scale_by_adam(b1=self.b1, b2=self.b2, eps=0.0, eps_root=ADAM_EPS**2)


ADAM = Adam()


@dataclasses.dataclass(frozen=True)
class Muon:
    """Muon (Jordan et al. 2024; Liu et al., arXiv 2502.16982): steps of kernels are made orthogonal.

    Adam's steps are as large in directions that hardly matter as in those that do, parameter by parameter; here it is
    all singular directions of a kernel that move alike, so that no few of them take the whole step. The kernels of an
    equivariant network mix the channels of one irrep each (or, in radial networks, act on invariants), so the steps
    keep it equivariant. What is no matrix (scales, readouts of one number) goes by Adam.

    ``optax.contrib.muon`` divides by the norm of a gradient, which has no derivative where a gradient is zero (kernels
    of elements that are not there); training is differentiated here.

    Attributes:
        momentum: decay of the sum of gradients (with Nesterov's look ahead), per step.
        adam: of what is no matrix.
    """

    momentum: float = 0.95
    adam: Adam = ADAM

    def transformation(self) -> optax.GradientTransformation:
        """Matrices are the last two axes; in front of them are elements, each with a matrix of its own."""

        def kind(leaf: Array) -> str:
            return "matrix" if leaf.ndim >= 2 and min(leaf.shape[-2:]) > 1 else "other"

        matrices = optax.chain(
            optax.trace(self.momentum, nesterov=True),
            optax.stateless_with_tree_map(lambda gradient, _: _orthogonal_step(jnp.asarray(gradient))),
        )
        parts: dict[Hashable, optax.GradientTransformation] = {"matrix": matrices, "other": self.adam.transformation()}
        return optax.partition(parts, lambda tree: jax.tree.map(kind, tree))


def _orthogonal_step(matrices: Array) -> Array:
    """``orthogonalized`` with a root mean square near 1, so that learning rates mean what they do for Adam."""
    return max(matrices.shape[-2:]) ** 0.5 * orthogonalized(matrices)


@exact
def orthogonalized(matrices: Array) -> Array:
    """Matrices (..., m, n) with the same singular vectors, and singular values of 0.7 to 1.2 in place of all but 0.

    Five steps of a Newton-Schulz iteration, ``X <- a X + (b A + c A²) X`` with ``A = X Xᵀ``, whose coefficients make
    small singular values grow fastest.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = jnp.swapaxes(matrices, -1, -2) if tall else matrices
    x = x / jnp.sqrt(jnp.sum(x**2, axis=(-2, -1), keepdims=True) + _TINY)
    a, b, c = _NEWTON_SCHULZ

    def iterate(_: int, x: Array) -> Array:
        square = x @ jnp.swapaxes(x, -1, -2)
        return a * x + (b * square + c * square @ square) @ x

    # a loop compiles once what is computed five times, and keeps XLA from merging the steps into slower products
    x = jax.lax.fori_loop(0, 5, iterate, x)
    return jnp.swapaxes(x, -1, -2) if tall else x
