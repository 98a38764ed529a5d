"""Radial weights of edges: the network itself, or splines through it.

A radial network is evaluated for every edge and layer, and for large models its products with the last kernel are a
third of a force call. All edges of a layer share one function of one variable, though, so that a table serves: quintic
B-splines through the network at ``INTERVALS_PER_A`` points per Å, six rows gathered for each edge. The table is made
from the parameters within the same program, so gradients with respect to them pass through it.

Two things keep single precision. Points lie at multiples of a power of two, so an edge's place within its interval is
exact. And slopes have splines of their own, through the derivative of the network: differences of rounded values would
lose two digits of the forces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.nn import bspline
from mlipjax.nn.primitives import spline
from mlipjax.typing import Array

INTERVALS_PER_A = 64
"""Intervals per Å. With the published Nequix weights the splines are off by 1e-7 of the largest weight, and their
slopes by 1e-6 (distances above 0.8 Å): as much as single precision leaves of the network."""

MIN_EDGES = 1536
"""From how many slots on a network with 64 hidden units is worth a table on a CPU; fewer units need more slots."""

_UNITS = 64

RadialWeights = Callable[[Any, Array], tuple[Any, Array]]
"""From a state and the rows of n atoms to the state for the next atoms and radial weights (n K, columns)."""


@flax.struct.dataclass
class RadialBasis:
    """Edges whose radial weights are computed by the network.

    Attributes:
        rows: (N, K, B) radial basis, zero in unused slots.
    """

    rows: Array

    def weights(self, kernels: Sequence[Array]) -> tuple[RadialWeights, Any]:
        """Return the radial weights as a function of some atoms' ``rows`` (n, K, B), and its first state."""

        def weights(state: Any, rows: Array) -> tuple[Any, Array]:
            # flat: XLA:CPU copies and transposes to form the kernel gradient of a product of (n, K, ...) arrays
            return state, hidden_layers(kernels, rows.reshape(-1, rows.shape[-1])) @ kernels[-1]

        return weights, None

    def hidden(self, kernels: Sequence[Array]) -> tuple[Array, Array]:
        """Return factors of the radial weights: hidden units (N, K, H), and a kernel (H, columns)."""
        units = hidden_layers(kernels, self.rows.reshape(-1, self.rows.shape[-1]))
        return units.reshape(*self.rows.shape[:2], -1), kernels[-1]


@flax.struct.dataclass
class RadialTable:
    """Edges whose radial weights are looked up.

    Attributes:
        rows: (N, K) distances in intervals of the table; unused slots lie beyond its end, where all rows are zero.
        basis: (M, B) radial basis at the points of the table.
        slopes: (M, B) its derivative there, per interval.
        pieces: intervals of each spline; one ends and the next begins where the basis has a kink in its slope.
    """

    rows: Array
    basis: Array
    slopes: Array
    pieces: tuple[int, ...] = flax.struct.field(pytree_node=False)

    def weights(self, kernels: Sequence[Array]) -> tuple[RadialWeights, Any]:
        """Return the radial weights as a function of some atoms' ``rows`` (n, K), and its first state."""
        from scipy.linalg import block_diag

        solve = jnp.asarray(block_diag(*map(bspline.collocation_inverse, self.pieces)), self.basis.dtype)
        hidden = jax.jvp(functools.partial(hidden_layers, kernels), (self.basis,), (self.slopes,))
        # splines of the hidden units, which are few, become those of the weights; zero rows serve unused slots
        values, slopes = (jnp.pad(solve @ x @ kernels[-1], ((0, bspline.DEGREE + 1), (0, 0))) for x in hidden)
        # the state: blocks of atoms add their gradients up in it, in turn
        ledgers = spline.ledger_of(values), spline.ledger_of(slopes)
        values, slopes = jax.lax.stop_gradient((values, slopes))

        def weights(ledgers: Any, rows: Array) -> tuple[Any, Array]:
            found, ledgers = spline.evaluate(values, slopes, ledgers, rows.reshape(-1))
            return ledgers, found

        return weights, ledgers


@flax.struct.dataclass
class RadialEdges:
    """Inputs of the radial weights of edges.

    Attributes:
        basis: for the network: a ``RadialBasis``, or something else with ``rows`` of edges, and their ``weights`` or
            ``hidden`` units.
        table: what CPUs take instead, where it is worth it. Elsewhere none has been measured.
    """

    basis: Any
    table: RadialTable | None = None


def radial_edges(
    basis: Callable[[Array], Array],
    distance: Array,
    used: Array,
    cutoff: float,
    widest: int,
    kinks: tuple[float, ...] = (),
) -> RadialEdges:
    """Prepare the radial weights of edges.

    Args:
        basis: from distances (...) in Å to the radial basis (..., B), zero from the cutoff on.
        distance: (N, K) Å, positive also in unused slots.
        used: (N, K) mask of slots.
        cutoff: Å.
        widest: units before the last kernel. The network's cost for an edge grows with it, that of a table doesn't.
        kinks: Å, ascending, where the slope of the basis has a kink.

    Returns:
        The basis of every edge, and for many edges in single precision a table.
    """
    plain = RadialBasis(jnp.where(used[..., None], basis(distance), 0.0))
    few = distance.size * widest < MIN_EDGES * _UNITS
    # no spline follows a kink within an interval
    fits = not kinks or all(float(end * INTERVALS_PER_A).is_integer() for end in (*kinks, cutoff))
    if distance.dtype != jnp.float32 or few or not fits:
        return RadialEdges(plain)
    return RadialEdges(plain, tabulated(basis, distance, used, cutoff, kinks))


def tabulated(
    basis: Callable[[Array], Array], distance: Array, used: Array, cutoff: float, kinks: tuple[float, ...] = ()
) -> RadialTable:
    """Prepare the table of all radial networks up to ``cutoff``; arguments as for ``radial_edges``."""
    ends = np.ceil(np.array([0.0, *kinks, cutoff]) * INTERVALS_PER_A).astype(int)
    pieces = tuple(np.diff(ends).tolist())
    places = np.concatenate([start + bspline.points(size) for start, size in zip(ends, pieces, strict=False)])
    # no distance is zero: the basis divides by it
    points = jnp.asarray(np.maximum(places, 1e-3) / INTERVALS_PER_A, distance.dtype)
    rows, slopes = jax.jvp(basis, (points,), (jnp.full_like(points, 1.0 / INTERVALS_PER_A),))
    place = distance * float(INTERVALS_PER_A)
    for kink in kinks:
        # a spline has more coefficients than intervals
        place = jnp.where(distance < kink, place, place + float(bspline.DEGREE))
    beyond = float(ends[-1] + bspline.DEGREE * len(pieces))
    return RadialTable(jnp.where(used & (distance < cutoff), place, beyond), rows, slopes, pieces)


def hidden_layers(kernels: Sequence[Array], basis: Array) -> Array:
    """Evaluate all but the last layer of a radial network: (E, B) to (E, hidden)."""
    hidden = basis
    for kernel in kernels[:-1]:
        hidden = jax.nn.silu(hidden @ kernel)
    return hidden
