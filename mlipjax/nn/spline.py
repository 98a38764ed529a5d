"""Uniform quintic B-splines with many columns, looked up fast on a CPU and differentiable to any order.

A value is a sum of six neighbouring rows of a table of coefficients. JAX would make that of gathers, which XLA:CPU
evaluates again for every user of the result, and transpose them to scatters, which take four times as long as a loop
that adds rows in place. The sum and its transpose are therefore primitives, ``lookup`` and ``spread``, both with a
factor for each place. Each is linear in its first two arguments; their derivatives by the place are they themselves
with the next derivative of the B-splines.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.core
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching, mlir, xla

from mlipjax.typing import Array

DEGREE = 5
"""Of the splines: an interval sees one more row than this."""

_PLACES_LOOKED_UP, _PLACES_SPREAD = 32, 8
"""Places per turn of a loop, which costs as much as a place with a thousand columns."""


def evaluate(values: Array, slopes: Array, places: Array) -> Array:
    """Evaluate splines whose derivative is given by splines of its own.

    Args:
        values: (M, P) coefficients; interval ``i`` has rows ``i`` to ``i + 5``.
        slopes: (M, P) coefficients of the derivative per interval. That of ``values`` is the same function, but with
            the rounding of differences.
        places: (E,) in intervals, from 0 to M - 5.

    Returns:
        (E, P); derivatives by ``places`` are those of ``slopes``.
    """
    index = jnp.floor(places)
    return _evaluate(values, slopes, index.astype(jnp.int32), places - index)


@jax.custom_jvp
def _evaluate(values: Array, slopes: Array, index: Array, fraction: Array) -> Array:
    del slopes
    return lookup(values, jnp.ones_like(fraction), index, fraction)


def _evaluate_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (values, slopes, index, fraction), (values_dot, _, _, fraction_dot) = primals, tangents
    value, parts = _evaluate(values, slopes, index, fraction), []
    if not isinstance(values_dot, jax.custom_derivatives.SymbolicZero):
        parts.append(lookup(values_dot, jnp.ones_like(fraction), index, fraction))
    if not isinstance(fraction_dot, jax.custom_derivatives.SymbolicZero):
        parts.append(lookup(slopes, fraction_dot, index, fraction))
    return value, functools.reduce(jnp.add, parts, jnp.zeros_like(value))


_evaluate.defjvp(_evaluate_jvp, symbolic_zeros=True)


def lookup(table: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> Array:
    """Evaluate splines, or their derivatives per interval.

    Args:
        table: (M, P) coefficients; interval ``i`` has rows ``i`` to ``i + 5``.
        factor: (E,) of each place's value.
        index: (E,) interval of each place, int32; its rows must exist.
        fraction: (E,) place within the interval, 0 to 1.
        order: of the derivative.

    Returns:
        (E, P).
    """
    return _lookup_p.bind(table, factor, index, fraction, order=order)


def spread(rows: Array, factor: Array, index: Array, fraction: Array, size: int, order: int = 0) -> Array:
    """Transpose of ``lookup`` as a map of its table: (E, P) to (``size``, P)."""
    return _spread_p.bind(rows, factor, index, fraction, order=order, size=size)


_lookup_p, _spread_p = (jax.extend.core.Primitive(f"spline_{name}") for name in ("lookup", "spread"))


def _lookup(table: Array, factor: Array, index: Array, fraction: Array, *, order: int) -> Array:
    # in a loop, even if a short one: without it, XLA evaluates splines again for every user of the result
    chunk = max(size for size in range(1, _PLACES_LOOKED_UP + 1) if len(index) % size == 0)

    def some(places: tuple[Array, Array]) -> Array:
        index, shares = places
        rows = [table.at[index + i].get(mode="promise_in_bounds") for i in range(DEGREE + 1)]
        return functools.reduce(jnp.add, [shares[:, i : i + 1] * row for i, row in enumerate(rows)])

    shares = _shares(factor, fraction, order).reshape(-1, chunk, DEGREE + 1)
    return jax.lax.map(some, (index.reshape(-1, chunk), shares)).reshape(len(index), table.shape[1])


def _spread(rows: Array, factor: Array, index: Array, fraction: Array, *, order: int, size: int) -> Array:
    def add(table: Array, place: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, shares, start = place
        window = jax.lax.dynamic_slice_in_dim(table, start, DEGREE + 1, allow_negative_indices=False)
        window = window + shares[:, None] * row
        return jax.lax.dynamic_update_slice_in_dim(table, window, start, 0, allow_negative_indices=False), None

    table = jnp.zeros((size, rows.shape[1]), rows.dtype)
    places = rows, _shares(factor, fraction, order), index
    return jax.lax.scan(add, table, places, unroll=_PLACES_SPREAD)[0]


def _shares(factor: Array, fraction: Array, order: int) -> Array:
    """Derivatives of an interval's six B-splines at ``fraction`` (E,), times ``factor`` (E,): (E, 6)."""
    polynomials = [reversed(column.tolist()) for column in pieces(order).T]
    zero = jnp.zeros_like(fraction)
    return jnp.stack(
        [factor * functools.reduce(lambda total, c: total * fraction + c, p, zero) for p in polynomials], axis=1
    )


def _register(primitive: Any, impl: Any, shape: Any, transposed: Any, rows_of: Any) -> None:
    """Make ``impl`` a primitive; an option ``size`` says how many rows its result has.

    Args:
        primitive: what to register.
        impl: function of (first, factor, index, fraction, **options), linear in the first two.
        shape: shape of the result, from the arguments and options.
        transposed: transpose of ``impl`` as a map of the first argument, from (rows, factor, index, fraction, rows of
            the first argument, order).
        rows_of: rows of the table, from the first argument and options.
    """

    def by_fraction(tangent: Array, first: Any, factor: Any, *places: Any, order: int, **options: Any) -> Array:
        return primitive.bind(first, factor * tangent, *places, order=order + 1, **options)

    def transpose(ct: Any, first: Any, factor: Any, index: Any, fraction: Any, *, order: int, **options: Any) -> Any:
        by_first = ad.is_undefined_primal(first)
        wanted = first if by_first else factor
        if type(ct) is ad.Zero:
            result = ad.Zero(wanted.aval)
        elif by_first:
            result = transposed(ct, factor, index, fraction, first.aval.shape[0], order)
        else:
            rows, table = (first, ct) if "size" in options else (ct, first)
            result = jnp.sum(rows * lookup(table, jnp.ones_like(fraction), index, fraction, order), axis=1)
        return [result, None, None, None] if by_first else [None, result, None, None]

    def batch(args: Any, dims: Any, **options: Any) -> tuple[Array, int]:
        n = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        first, factor, index, fraction = (batching.bdim_at_front(x, d, n) for x, d in zip(args, dims, strict=True))
        if dims[0] is None and "size" not in options:
            stacked = args[0]  # one table for all
        else:
            # tables one below the other
            index = index + rows_of(first[0], **options) * jnp.arange(n, dtype=index.dtype)[:, None]
            stacked = first.reshape(-1, first.shape[-1])
        if "size" in options:
            options["size"] *= n
        out = primitive.bind(stacked, *(x.reshape(-1) for x in (factor, index, fraction)), **options)
        return out.reshape(n, -1, out.shape[-1]), 0

    def abstract(first: Any, factor: Any, index: Any, fraction: Any, **options: Any) -> Any:
        return jax.core.ShapedArray(shape(first, index, **options), first.dtype)

    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    ad.defjvp(
        primitive,
        lambda tangent, _, *rest, **options: primitive.bind(tangent, *rest, **options),
        lambda tangent, first, _, *rest, **options: primitive.bind(first, tangent, *rest, **options),
        None,
        by_fraction,
    )
    ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = batch


_register(
    _lookup_p,
    _lookup,
    lambda table, index, *, order: (index.shape[0], table.shape[1]),
    spread,
    lambda table, *, order: len(table),
)
_register(
    _spread_p,
    _spread,
    lambda rows, index, *, order, size: (size, rows.shape[1]),
    lambda ct, factor, index, fraction, _, order: lookup(ct, factor, index, fraction, order),
    lambda rows, *, order, size: size,
)


@functools.lru_cache(maxsize=16)
def pieces(order: int) -> np.ndarray:
    """Derivative of ``order`` of the six B-splines of an interval as polynomials: (power, spline), float64."""
    from scipy.interpolate import BSpline

    if order > DEGREE:
        return np.zeros((1, DEGREE + 1))
    element = BSpline.basis_element(np.arange(DEGREE + 2.0))
    # by Taylor series; spline j of an interval began DEGREE - j intervals ago
    starts = np.arange(DEGREE, -1.0, -1.0)
    powers = range(DEGREE + 1 - order)
    return np.array([element.derivative(order + power)(starts) / math.factorial(power) for power in powers])


def points(intervals: int) -> np.ndarray:
    """Where values fix a spline, in intervals: all knots, and middles near the ends in place of end conditions."""
    return np.sort(np.concatenate([np.arange(intervals + 1.0), [0.5, 1.5, intervals - 1.5, intervals - 0.5]]))


@functools.lru_cache(maxsize=8)
def collocation_inverse(intervals: int) -> np.ndarray:
    """Matrix (intervals + 5,)^2 from values at ``points`` to the coefficients of the spline through them, float64."""
    places = points(intervals)
    index = np.minimum(places.astype(int), intervals - 1)
    shares = (places - index)[:, None] ** np.arange(DEGREE + 1) @ pieces(0)
    matrix = np.zeros((len(places), len(places)))
    for i in range(DEGREE + 1):
        matrix[np.arange(len(places)), index + i] += shares[:, i]
    return np.linalg.inv(matrix)
