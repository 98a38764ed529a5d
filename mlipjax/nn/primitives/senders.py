"""Gathers over a neighbour table whose transposes are gathers too, by its reverse edges.

XLA's own transpose of a gather adds up in memory, on a GPU in whatever order its threads come: sums differ in their
last bits from call to call. Here

    of_senders(x)[i, k] = x[neighbors[i, k]],    at_senders(y)[j] = sum_k y[reverse edge of (j, k)]

are each the other's transpose.
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


def of_senders(values: Array, table: tuple[Array, Array]) -> Array:
    """Give every slot the values of its sender: (N, C) to (N, K, C).

    Args:
        values: of the atoms.
        table: neighbours (N, K) and reverse edges (N, K), as in a ``GraphBatch``.
    """
    return _of_senders_p.bind(values, *table)


def in_turn(primitive: Any, args: Any, dims: Any, **params: Any) -> tuple[Any, Any]:
    """Rule of batching for a primitive: one member after the other."""
    mapped = [d is not batching.not_mapped for d in dims]
    moved = [jnp.moveaxis(x, d, 0) for x, d, own in zip(args, dims, mapped, strict=True) if own]

    def one(own: Any) -> Any:
        own = list(own)
        return primitive.bind(*(own.pop(0) if m else x for x, m in zip(args, mapped, strict=True)), **params)

    out = jax.lax.map(one, moved)
    return out, [0] * len(out) if primitive.multiple_results else 0


def _of_senders(values: Array, neighbors: Array, reverse: Array) -> Array:
    del reverse
    return values[neighbors]


def _at_senders(shares: Array, neighbors: Array, reverse: Array) -> Array:
    del neighbors
    return jnp.sum(shares.reshape(-1, shares.shape[-1])[reverse], axis=1)


_of_senders_p, _at_senders_p = (jax.extend.core.Primitive(name) for name in ("of_senders", "at_senders"))
_of_senders_p.def_abstract_eval(lambda x, table, _: jax.core.ShapedArray((*table.shape, x.shape[-1]), x.dtype))
_at_senders_p.def_abstract_eval(lambda x, *_: jax.core.ShapedArray((x.shape[0], x.shape[-1]), x.dtype))


def _register(primitive: Any, impl: Any, transpose: Any) -> None:
    def rule(primals: Any, tangents: Any) -> Any:
        out, tangent = primitive.bind(*primals), tangents[0]
        if type(tangent) is ad.Zero:
            return out, jnp.zeros_like(out)
        return out, primitive.bind(tangent, *primals[1:])

    primitive.def_impl(functools.partial(xla.apply_primitive, primitive))
    mlir.register_lowering(primitive, mlir.lower_fun(impl, multiple_results=False))
    ad.primitive_jvps[primitive] = rule
    ad.primitive_transposes[primitive] = lambda ct, x, *table: [
        ad.Zero(x.aval) if type(ct) is ad.Zero else transpose.bind(ct, *table),
        None,
        None,
    ]
    batching.primitive_batchers[primitive] = functools.partial(in_turn, primitive)


_register(_of_senders_p, _of_senders, _at_senders_p)
_register(_at_senders_p, _at_senders, _of_senders_p)
