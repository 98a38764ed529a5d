"""Uniform quintic B-splines with many columns, looked up fast on a CPU and differentiable to any order.

A value is a sum of six neighbouring rows of a table of coefficients. JAX would make that of gathers, which XLA:CPU
evaluates again for every user of the result, and transpose them to scatters, which take four times as long as a loop
that adds rows in place. The sum and its transpose are therefore primitives:

- ``read`` returns the table next to what was looked up;
- ``deposit`` adds rows to a table in place;
- ``_rate`` looks the derivative up. It has rules of its own for partial evaluation: reverse mode doesn't know the
  derivative's factor in the forward pass, but must know the table that is passed on (``_pass_p`` there).

Whoever passes the returned table on, from one lookup to the next, gets a transpose that adds everything to one table,
instead of a table of zeros for each lookup that is then added to the others. Derivatives by the place are the same
operations with the next derivative of the B-splines.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.extend
import jax.numpy as jnp
from jax.interpreters import ad, batching, mlir, xla
from jax.interpreters import partial_eval as pe

from mlipjax.nn.bspline import DEGREE, pieces
from mlipjax.typing import Array

Ledgers = tuple[Array, Array]

_PLACES_READ, _PLACES_ADDED = 32, 8
"""Places per turn of a loop, which costs as much as a place with a thousand columns."""


def evaluate(values: Array, slopes: Array, ledgers: Ledgers, places: Array) -> tuple[Array, Ledgers]:
    """Evaluate splines whose derivative is given by splines of its own.

    Args:
        values: (M, P) coefficients; interval ``i`` has rows ``i`` to ``i + 5``. Not differentiated.
        slopes: (M, P) coefficients of the derivative per interval. That of ``values`` is the same function, but with
            the rounding of differences. Not differentiated.
        ledgers: (M, P) of ``values`` and of ``slopes``, of which only the tangents are used. See ``ledger_of``.
        places: (E,) in intervals, from 0 to M - 5.

    Returns:
        (E, P), and the ledgers for the next evaluation. Derivatives by ``places`` are those of ``slopes``.
    """
    index = jnp.floor(places)
    return _evaluate(values, slopes, ledgers, index.astype(jnp.int32), places - index)


@jax.custom_jvp
def ledger_of(values: Array) -> Array:
    """Return zeros with the tangent of ``values``, to pass from one evaluation to the next."""
    return jnp.zeros_like(values)


ledger_of.defjvp(lambda primals, tangents: (ledger_of(*primals), *tangents))


@jax.custom_jvp
def _evaluate(values: Array, slopes: Array, ledgers: Ledgers, index: Array, fraction: Array) -> tuple[Array, Ledgers]:
    del slopes
    return lookup(values, jnp.ones_like(fraction), index, fraction), ledgers


def _evaluate_jvp(primals: Any, tangents: Any) -> Any:
    values, slopes, ledgers, index, fraction = primals
    *_, (of_values_dot, of_slopes_dot), _, fraction_dot = tangents
    value, ledgers = _evaluate(values, slopes, ledgers, index, fraction)
    parts = []
    if not isinstance(of_values_dot, jax.custom_derivatives.SymbolicZero):
        part, of_values_dot = read(of_values_dot, jnp.ones_like(fraction), index, fraction)
        parts.append(part)
    if not isinstance(fraction_dot, jax.custom_derivatives.SymbolicZero):
        part, of_slopes = _rate(slopes, ledgers[1], fraction_dot, index, fraction, 0)
        parts.append(part)
        ledgers = ledgers[0], of_slopes
    return (value, ledgers), (_total(parts, value), (of_values_dot, of_slopes_dot))


def _total(parts: Sequence[Array], like: Array) -> Array:
    return functools.reduce(jnp.add, parts) if parts else jnp.zeros_like(like)


_evaluate.defjvp(_evaluate_jvp, symbolic_zeros=True)


def lookup(table: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> Array:
    """Return what ``read`` looks up, without the table."""
    return read(table, factor, index, fraction, order)[0]


def read(table: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> tuple[Array, Array]:
    """Evaluate splines, or their derivatives per interval.

    Args:
        table: (M, P) coefficients; interval ``i`` has rows ``i`` to ``i + 5``.
        factor: (E,) of each place's value.
        index: (E,) interval of each place, int32; its rows must exist.
        fraction: (E,) place within the interval, 0 to 1.
        order: of the derivative.

    Returns:
        (E, P), and ``table``.
    """
    return tuple(_read_p.bind(table, factor, index, fraction, order=order))


def deposit(table: Array, rows: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> Array:
    """Add rows (E, P) to ``table`` with the shares that ``read`` takes: its transpose."""
    return _deposit_p.bind(table, rows, factor, index, fraction, order=order)


def read_plainly(table: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> tuple[Array, Array]:
    """Meaning of ``read``, left to JAX."""
    rows = table[index[:, None] + jnp.arange(DEGREE + 1)[None, :]]
    return jnp.sum(_shares(factor, fraction, order)[..., None] * rows, axis=1), table


def deposit_plainly(table: Array, rows: Array, factor: Array, index: Array, fraction: Array, order: int = 0) -> Array:
    """Meaning of ``deposit``, left to JAX."""
    added = _shares(factor, fraction, order)[..., None] * rows[:, None]
    return table.at[index[:, None] + jnp.arange(DEGREE + 1)[None, :]].add(added)


def rate_plainly(slopes: Array, ledger: Array, factor: Array, index: Array, fraction: Array) -> tuple[Array, Array]:
    """Meaning of ``rate``, left to JAX: ``ledger`` lends its tangent and takes the cotangent of ``slopes``."""
    table = jax.lax.stop_gradient(slopes) + (ledger - jax.lax.stop_gradient(ledger))
    return read_plainly(table, factor, index, fraction)[0], ledger


_read_p, _deposit_p, _rate_p, _pass_p = (
    jax.extend.core.Primitive(f"spline_{name}") for name in ("read", "deposit", "rate", "pass")
)
_read_p.multiple_results = _rate_p.multiple_results = True


def _read(table: Array, factor: Array, index: Array, fraction: Array, *, order: int) -> list[Array]:
    # in a loop, even if a short one: without it, XLA evaluates splines again for every user of the result
    chunk = max(size for size in range(1, _PLACES_READ + 1) if len(index) % size == 0)

    def some(places: tuple[Array, Array]) -> Array:
        index, shares = places
        rows = [table.at[index + i].get(mode="promise_in_bounds") for i in range(DEGREE + 1)]
        return functools.reduce(jnp.add, [shares[:, i : i + 1] * row for i, row in enumerate(rows)])

    shares = _shares(factor, fraction, order).reshape(-1, chunk, DEGREE + 1)
    rows = jax.lax.map(some, (index.reshape(-1, chunk), shares)).reshape(len(index), table.shape[1])
    return [rows, table]


def _deposit(table: Array, rows: Array, factor: Array, index: Array, fraction: Array, *, order: int) -> Array:
    def add(table: Array, place: tuple[Array, Array, Array]) -> tuple[Array, None]:
        row, shares, start = place
        window = jax.lax.dynamic_slice_in_dim(table, start, DEGREE + 1, allow_negative_indices=False)
        window = window + shares[:, None] * row[None, :]
        return jax.lax.dynamic_update_slice_in_dim(table, window, start, 0, allow_negative_indices=False), None

    return jax.lax.scan(add, table, (rows, _shares(factor, fraction, order), index), unroll=_PLACES_ADDED)[0]


def _shares(factor: Array, fraction: Array, order: int) -> Array:
    """Derivatives of an interval's six B-splines at ``fraction`` (E,), times ``factor`` (E,): (E, 6)."""
    polynomials = [reversed(column.tolist()) for column in pieces(order).T]
    zero = jnp.zeros_like(fraction)
    return jnp.stack(
        [factor * functools.reduce(lambda total, c: total * fraction + c, p, zero) for p in polynomials], axis=1
    )


def _terms(factor: Array, factor_dot: Any, fraction_dot: Any, order: int) -> list[tuple[Array, int]]:
    """Factor and order of the terms of a derivative: by the factor, and by the place."""
    terms = [] if type(factor_dot) is ad.Zero else [(factor_dot, order)]
    return terms if type(fraction_dot) is ad.Zero else [*terms, (factor * fraction_dot, order + 1)]


def _read_rule(primals: Any, tangents: Any, *, order: int) -> Any:
    table, factor, index, fraction = primals
    table_dot, factor_dot, _, fraction_dot = tangents
    parts = []
    if type(table_dot) is not ad.Zero:
        part, table_dot = read(table_dot, factor, index, fraction, order)
        parts.append(part)
    terms = _terms(factor, factor_dot, fraction_dot, order)
    parts += [lookup(table, share, index, fraction, degree) for share, degree in terms]
    value, table = read(table, factor, index, fraction, order)
    return (value, table), (_total(parts, value), table_dot)


def _read_transpose(cts: Any, table: Any, factor: Any, index: Any, fraction: Any, *, order: int) -> list[Any]:
    ct_rows, ct_table = cts
    if not ad.is_undefined_primal(table):
        return [None, _by_factor(ct_rows, table, factor, index, fraction, order), None, None]
    if type(ct_rows) is not ad.Zero:
        ct_table = deposit(ad.instantiate_zeros(ct_table), ct_rows, factor, index, fraction, order)
    return [ct_table, None, None, None]


def _deposit_rule(primals: Any, tangents: Any, *, order: int) -> Any:
    table, rows, factor, index, fraction = primals
    table_dot, rows_dot, factor_dot, _, fraction_dot = tangents
    terms = [(rows, *term) for term in _terms(factor, factor_dot, fraction_dot, order)]
    if type(rows_dot) is not ad.Zero:
        terms = [(rows_dot, factor, order), *terms]
    for added, share, degree in terms:
        table_dot = deposit(ad.instantiate_zeros(table_dot), added, share, index, fraction, degree)
    return deposit(table, rows, factor, index, fraction, order), table_dot


def _deposit_transpose(
    ct: Any, table: Any, rows: Any, factor: Any, index: Any, fraction: Any, *, order: int
) -> list[Any]:
    ct_table = ct_rows = ct_factor = None
    if ad.is_undefined_primal(factor):
        ct_factor = _by_factor(rows, ct, factor, index, fraction, order)
    if ad.is_undefined_primal(rows):
        ct_rows = ad.Zero(rows.aval)
        if type(ct) is not ad.Zero:
            ct_rows, ct = read(ct, factor, index, fraction, order)
    if ad.is_undefined_primal(table):
        ct_table = ct
    return [ct_table, ct_rows, ct_factor, None, None]


def _by_factor(rows: Any, table: Any, factor: Any, index: Array, fraction: Array, order: int) -> Any:
    if ad.Zero in (type(rows), type(table)):
        return ad.Zero(factor.aval)
    return jnp.sum(rows * lookup(table, jnp.ones_like(fraction), index, fraction, order), axis=1)


def _rate(
    slopes: Array, ledger: Array, factor: Array, index: Array, fraction: Array, order: int
) -> tuple[Array, Array]:
    """Look ``slopes`` up, which aren't differentiated: ``ledger`` has their tangent, and is returned."""
    return tuple(_rate_p.bind(slopes, ledger, factor, index, fraction, order=order))


def _rate_rule(primals: Any, tangents: Any, *, order: int) -> Any:
    slopes, ledger, factor, index, fraction = primals
    _, ledger_dot, factor_dot, _, fraction_dot = tangents
    value, ledger = _rate(slopes, ledger, factor, index, fraction, order)
    parts = []
    if type(ledger_dot) is not ad.Zero:
        part, ledger_dot = read(ledger_dot, factor, index, fraction, order)
        parts.append(part)
    for share, degree in _terms(factor, factor_dot, fraction_dot, order):
        part, ledger = _rate(slopes, ledger, share, index, fraction, degree)
        parts.append(part)
    return (value, ledger), (_total(parts, value), ledger_dot)


def _rate_transpose(
    cts: Any, slopes: Any, ledger: Any, factor: Any, index: Any, fraction: Any, *, order: int
) -> list[Any]:
    ct = ad.Zero(factor.aval)
    if type(cts[0]) is not ad.Zero:
        rows, _ = _rate(slopes, ledger, jnp.ones_like(fraction), index, fraction, order)
        ct = jnp.sum(cts[0] * rows, axis=1)
    return [None, None, ct, None, None]


def _rate_known(trace: Any, *tracers: Any, order: int) -> list[Any]:
    """Partial evaluation: a known ledger stays known, whatever the factor is."""
    rows, ledger = trace.default_process_primitive(_rate_p, tracers, {"order": order})
    return [rows, tracers[1] if tracers[1].is_known() else ledger]


def _rate_known_in_checkpoint(_: Any, unknown: Any, staged: Any, eqn: Any) -> Any:
    """The same inside ``jax.checkpoint``: what is known, what is computed later, and how their results are classed."""
    missing = [
        x for x, there in zip(eqn.invars, staged, strict=True) if isinstance(x, jax.extend.core.Var) and not there
    ]
    if not any(unknown):
        known, unknown_out = eqn, [False, False]
    elif unknown[1]:
        known, unknown_out = None, [True, True]
    else:
        known = eqn.replace(invars=eqn.invars[1:2], outvars=eqn.outvars[1:2], primitive=_pass_p, params={})
        unknown_out = [True, False]
    return known, eqn, unknown_out, [True, True], missing


def _batch(primitive: Any, args: Any, dims: Any, *, order: int) -> tuple[Any, Any]:
    """Put the tables one below the other."""
    n = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
    table, *rest, index, fraction = (batching.bdim_at_front(x, d, n) for x, d in zip(args, dims, strict=True))
    if primitive is _read_p and dims[0] is None:
        rows = lookup(args[0], rest[0].reshape(-1), index.reshape(-1), fraction.reshape(-1), order)
        return [rows.reshape(n, -1, rows.shape[-1]), args[0]], [0, None]
    index = index + table.shape[1] * jnp.arange(n, dtype=index.dtype)[:, None]
    stacked = (x.reshape(-1, *x.shape[2:]) for x in (table, *rest, index, fraction))
    out = primitive.bind(*stacked, order=order)
    if primitive is _deposit_p:
        return out.reshape(table.shape), 0
    return [x.reshape(n, -1, x.shape[-1]) for x in out], [0, 0]


def _read_shape(table: Any, factor: Any, *_: Any, order: int) -> list[Any]:
    del order
    return [table.update(shape=(factor.shape[0], table.shape[1])), table]


def _lower_rate(slopes: Array, ledger: Array, *places: Array, order: int) -> list[Array]:
    return [_read(slopes, *places, order=order)[0], ledger]


_read_p.def_abstract_eval(_read_shape)
_deposit_p.def_abstract_eval(lambda table, *_, order: table)
_rate_p.def_abstract_eval(lambda slopes, ledger, *places, order: [_read_shape(slopes, *places, order=order)[0], ledger])
for _primitive, _impl, _rule, _transpose in (
    (_read_p, _read, _read_rule, _read_transpose),
    (_deposit_p, _deposit, _deposit_rule, _deposit_transpose),
    (_rate_p, _lower_rate, _rate_rule, _rate_transpose),
):
    _primitive.def_impl(functools.partial(xla.apply_primitive, _primitive))
    mlir.register_lowering(_primitive, mlir.lower_fun(_impl, multiple_results=_primitive.multiple_results))
    ad.primitive_jvps[_primitive] = _rule
    ad.primitive_transposes[_primitive] = _transpose
    batching.primitive_batchers[_primitive] = functools.partial(_batch, _primitive)
pe.custom_partial_eval_rules[_rate_p] = _rate_known
pe.partial_eval_jaxpr_custom_rules[_rate_p] = _rate_known_in_checkpoint

_pass_p.def_impl(lambda ledger: ledger)
_pass_p.def_abstract_eval(lambda ledger: ledger)
mlir.register_lowering(_pass_p, mlir.lower_fun(lambda ledger: ledger, multiple_results=False))
ad.deflinear2(_pass_p, lambda ct, _: [ct])
batching.defvectorized(_pass_p)
