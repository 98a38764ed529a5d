"""Products of coupling matrices (n, a, b) with messages (n, b, c) where ``a`` = 2l+1 is small.

The product itself is an ordinary one. The cotangent of its second operand is not: a sum over ``a``, at most seven
terms, for each of b x c numbers. XLA:CPU hands it to a general matrix product, which spends most of its time on
packing; a plain sum of outer products takes half of it. Written as such in the transpose of ``jnp.matmul`` it would
be evaluated again for every user of the result, so the products here are primitives, closed under differentiation:

    product(C, W) = C W,    expand(C, A) = C^T A,    outer(A, W) = A W^T.

Like any product of JAX they have a precision, by default that of the scope in which they are traced, and keep it in
their derivatives.
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


def product(matrices: Array, messages: Array, precision: str | None = None) -> Array:
    """Multiply (n, a, b) with (n, b, c) to (n, a, c)."""
    return _product_p.bind(matrices, messages, precision=_of_scope(precision))


def expand(matrices: Array, sums: Array, precision: str | None = None) -> Array:
    """Multiply the transpose of (n, a, b) with (n, a, c) to (n, b, c)."""
    return _expand_p.bind(matrices, sums, precision=_of_scope(precision))


def outer(sums: Array, messages: Array, precision: str | None = None) -> Array:
    """Multiply (n, a, c) with the transpose of (n, b, c) to (n, a, b)."""
    return _outer_p.bind(sums, messages, precision=_of_scope(precision))


def _of_scope(precision: str | None) -> str | None:
    # now: the scope has ended when a primitive is lowered
    own = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    return own if precision is None else precision


_product_p, _expand_p, _outer_p = (
    jax.extend.core.Primitive(f"coupling_{name}") for name in ("product", "expand", "outer")
)


def product_plainly(matrices: Array, messages: Array, precision: str | None = None) -> Array:
    """Meaning of ``product``, left to JAX."""
    return jnp.matmul(matrices, messages, precision=precision)


def expand_plainly(matrices: Array, sums: Array, precision: str | None = None) -> Array:
    """Meaning of ``expand``, left to JAX."""
    return jnp.einsum("nab,nac->nbc", matrices, sums, precision=precision)


def outer_plainly(sums: Array, messages: Array, precision: str | None = None) -> Array:
    """Meaning of ``outer``, left to JAX."""
    return jnp.einsum("nac,nbc->nab", sums, messages, precision=precision)


def _expand_by_sum(matrices: Array, sums: Array, precision: str | None) -> Array:
    if matrices.shape[1] == 1 or 0 in matrices.shape:
        return expand_plainly(matrices, sums, precision)

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

    def batch(args: Any, dims: Any, **params: Any) -> tuple[Array, int]:
        n = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        first, second = (batching.bdim_at_front(x, d, n) for x, d in zip(args, dims, strict=True))
        out = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in (first, second)), **params)
        return out.reshape(n, -1, *out.shape[1:]), 0

    def abstract(first: Any, second: Any, **_: Any) -> Any:
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
    lambda ct, _, messages, precision: outer(ct, messages, precision),
    lambda ct, matrices, _, precision: expand(matrices, ct, precision),
)
_register(
    _expand_p,
    expand_plainly,
    lambda c, a: (c[2], a[2]),
    lambda ct, _, sums, precision: outer(sums, ct, precision),
    lambda ct, matrices, _, precision: product(matrices, ct, precision),
)
_register(
    _outer_p,
    outer_plainly,
    lambda a, w: (a[1], w[1]),
    lambda ct, _, messages, precision: product(ct, messages, precision),
    lambda ct, sums, _, precision: expand(ct, sums, precision),
)
mlir.register_lowering(_expand_p, mlir.lower_fun(_expand_by_sum, multiple_results=False), platform="cpu")
