"""Products of coupling matrices (n, a, b) with messages (n, b, c) where ``a`` = 2l+1 is small.

The product itself is an ordinary one. The cotangent of its second operand is not: a sum over ``a``, at most seven
terms, for each of b x c numbers. XLA:CPU hands it to a general matrix product, which spends most of its time on
packing; a plain sum of outer products takes half of it. Written as such in the transpose of ``jnp.matmul`` it would
be evaluated again for every user of the result, so the products here are primitives, closed under differentiation:

    product(C, W) = C W,    expand(C, A) = C^T A,    outer(A, W) = A W^T.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.core
import jax.extend
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir, xla

from mlipjax.typing import Array


def product(matrices: Array, messages: Array) -> Array:
    """Multiply (n, a, b) with (n, b, c) to (n, a, c)."""
    return _product_p.bind(matrices, messages)


def expand(matrices: Array, sums: Array) -> Array:
    """Multiply the transpose of (n, a, b) with (n, a, c) to (n, b, c)."""
    return _expand_p.bind(matrices, sums)


def outer(sums: Array, messages: Array) -> Array:
    """Multiply (n, a, c) with the transpose of (n, b, c) to (n, a, b)."""
    return _outer_p.bind(sums, messages)


_product_p, _expand_p, _outer_p = (
    jax.extend.core.Primitive(f"coupling_{name}") for name in ("product", "expand", "outer")
)


def product_plainly(matrices: Array, messages: Array) -> Array:
    """What ``product`` is, left to JAX."""
    return jnp.matmul(matrices, messages)


def expand_plainly(matrices: Array, sums: Array) -> Array:
    """What ``expand`` is, left to JAX."""
    return jnp.einsum("nab,nac->nbc", matrices, sums)


def outer_plainly(sums: Array, messages: Array) -> Array:
    """What ``outer`` is, left to JAX."""
    return jnp.einsum("nac,nbc->nab", sums, messages)


def _expand_by_sum(matrices: Array, sums: Array) -> Array:
    if matrices.shape[1] == 1 or 0 in matrices.shape:
        return expand_plainly(matrices, sums)

    def total(matrices: Array, sums: Array) -> Array:
        terms = [matrices[:, a, :, None] * sums[:, a, None, :] for a in range(matrices.shape[1])]
        return functools.reduce(jnp.add, terms)

    def undefined(matrices: Array, sums: Array) -> Array:
        return jnp.full((matrices.shape[0], matrices.shape[2], sums.shape[2]), jnp.nan, sums.dtype)

    # XLA merges no operations across a condition that it can't decide, so the sum is evaluated once, into memory
    first = matrices[0, 0, 0]
    return jax.lax.cond(first == first, total, undefined, matrices, sums)


def _register(primitive: Any, impl: Any, shape: Any, by_first: Any, by_second: Any) -> None:
    """Make a bilinear ``impl`` a primitive, with the transposes (cotangent, first, second) by either argument."""

    def batch(args: Any, dims: Any) -> tuple[Array, int]:
        n = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        first, second = (batching.bdim_at_front(x, d, n) for x, d in zip(args, dims, strict=True))
        out = primitive.bind(first.reshape(-1, *first.shape[2:]), second.reshape(-1, *second.shape[2:]))
        return out.reshape(n, -1, *out.shape[1:]), 0

    def abstract(first: Any, second: Any) -> Any:
        return jax.core.ShapedArray((first.shape[0], *shape(first.shape, second.shape)), first.dtype)

    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    ad.defbilinear(primitive, by_first, by_second)
    batching.primitive_batchers[primitive] = batch


_register(
    _product_p,
    product_plainly,
    lambda c, w: (c[1], w[2]),
    lambda ct, _, messages: outer(ct, messages),
    lambda ct, matrices, _: expand(matrices, ct),
)
_register(
    _expand_p,
    expand_plainly,
    lambda c, a: (c[2], a[2]),
    lambda ct, _, sums: outer(sums, ct),
    lambda ct, matrices, _: product(matrices, ct),
)
_register(
    _outer_p,
    outer_plainly,
    lambda a, w: (a[1], w[1]),
    lambda ct, _, messages: product(ct, messages),
    lambda ct, sums, _: expand(ct, sums),
)
mlir.register_lowering(_expand_p, mlir.lower_fun(_expand_by_sum, multiple_results=False), platform="cpu")
