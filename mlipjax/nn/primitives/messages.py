"""Sums of messages over neighbours as one operation, whose radial weights never reach memory on a GPU.

For path ``p = (l1, l2 -> l3)``, with the radial network's hidden units ``h`` and the columns of its last kernel ``W``,

    M_p[i, m3, c] = sum_k (h W_p)[i, k, c] sum_{m1, m2} C[m1, m2, m3] Y_l2,m2[i, k] x_l1[j(i,k), m1, c].

This is linear in each of Y, h, W and x. The primitives here are closed under the derivatives that forces and training
on forces take, all of which are evaluated by the kernels of ``message_kernels``:

    messages(Y, h, W, x),   tangent: messages with one argument replaced by its tangent, summed over arguments,
    pullback(Y, h, W, x, G): the transpose of the tangent.

The derivative of the pullback (a Hessian, in forward mode over forces) is that of the plain formula. On CPUs kernels
are interpreted, which is slow: a test of them. On GPUs they are lowered by Triton; other platforms have none.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.extend
import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad, batching, mlir, xla

from mlipjax.nn.irreps import Irreps, Path
from mlipjax.nn.primitives import message_kernels
from mlipjax.nn.primitives.coupling_product import product
from mlipjax.nn.primitives.message_kernels import Wanted
from mlipjax.nn.primitives.senders import in_turn
from mlipjax.nn.spherical import clebsch_gordan
from mlipjax.typing import Array


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is fixed of a sum of messages.

    Attributes:
        paths: ordered by output irrep.
        sources, targets: degrees of the input and output irreps.
        precision: of the products with the last radial kernel.
    """

    paths: tuple[Path, ...]
    sources: tuple[int, ...]
    targets: tuple[int, ...]
    precision: str | None

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the messages to every output irrep."""
        return tuple(sum(path.mul for path in self.paths if path.target == i) for i in range(len(self.targets)))


def messages(
    paths: Sequence[Path],
    outputs: Irreps,
    table: tuple[Array, Array],
    harmonics: Sequence[Array],
    radial: tuple[Array, Array],
    features: Sequence[Array],
) -> list[Array]:
    """Sum the messages of all neighbours, path by path.

    Args:
        paths: ordered by output irrep.
        outputs: output irreps.
        table: neighbours (N, K) and reverse edges (N, K), as in a ``GraphBatch``.
        harmonics: (N, K, 2l+1) per degree.
        radial: hidden units (N, K, H) of the radial network, zero in unused slots, and its last kernel (H, columns).
        features: one (N, 2l+1, C) array per input irrep.

    Returns:
        One (N, 2l+1, channels of all paths to it) array per output irrep.
    """
    sources = tuple((x.shape[1] - 1) // 2 for x in features)
    own = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    plan = Plan(tuple(paths), sources, tuple(out.l for out in outputs), own)
    return _messages_p.bind(*table, jnp.concatenate(harmonics, axis=-1), *radial, *features, plan=plan)


def weighted_sums(
    paths: Sequence[Path],
    targets: Sequence[int],
    neighbors: Array,
    harmonics: Sequence[Array],
    weights: Array,
    features: Sequence[Array],
) -> list[Array]:
    """Sum messages with radial weights (N K, columns) at hand; other arguments and results as of ``messages``."""
    degrees = [(x.shape[1] - 1) // 2 for x in features]
    ends = np.cumsum([path.mul for path in paths])
    # one product for all paths; cutting the kernel instead makes its gradient a sum of padded arrays
    weights_of_paths = jnp.split(weights, ends[:-1], axis=1)
    gathered = [x[neighbors] for x in features]
    sums: list[list[Array]] = [[] for _ in targets]
    for path, own in zip(paths, weights_of_paths, strict=True):
        own = own.reshape(*neighbors.shape, path.mul)
        coupled = couple(harmonics[path.l_edge], degrees[path.source], path.l_edge, targets[path.target])
        sums[path.target].append(_message(coupled, own, gathered[path.source]))
    return [jnp.concatenate(parts, axis=-1) for parts in sums]


def couple(harmonic: Array, l1: int, l2: int, l3: int) -> Array:
    """Contract harmonics of degree ``l2`` (n, K, 2l2+1) with the coupling to (n, 2l3+1, K, 2l1+1)."""
    coupling = clebsch_gordan(l1, l2, l3) * np.sqrt(2 * l3 + 1)
    matrix = harmonic @ jnp.asarray(coupling.transpose(1, 2, 0).reshape(2 * l2 + 1, -1), harmonic.dtype)
    matrix = matrix.reshape(*harmonic.shape[:2], 2 * l3 + 1, 2 * l1 + 1)
    return jnp.swapaxes(matrix, 1, 2)


def _message(coupled: Array, weights: Array, neighbors: Array) -> Array:
    """(n, m3, K, m1), (n, K, C), (n, K, m1, C) -> (n, m3, C)."""
    n, m3, k, m1 = coupled.shape
    weighted = neighbors * weights[:, :, None, :]
    return product(coupled.reshape(n, m3, k * m1), weighted.reshape(n, k * m1, -1))


def messages_plainly(plan: Plan, neighbors: Array, *operands: Array) -> list[Array]:
    """Meaning of ``messages`` for harmonics (N, K, all components), hidden units, kernel and features."""
    harmonics, hidden, kernel, *features = operands
    degrees = range(round(harmonics.shape[-1] ** 0.5))
    per_degree = [harmonics[..., l * l : (l + 1) ** 2] for l in degrees]
    weights = jnp.matmul(hidden.reshape(-1, hidden.shape[-1]), kernel, precision=plan.precision)
    return weighted_sums(plan.paths, plan.targets, neighbors, per_degree, weights, features)


_messages_p, _tangent_p, _pullback_p = (
    jax.extend.core.Primitive(f"messages{name}") for name in ("", "_tangent", "_pullback")
)
_messages_p.multiple_results = _tangent_p.multiple_results = _pullback_p.multiple_results = True


def _groups(operands: Sequence[Any]) -> list[list[Any]]:
    """Harmonics, hidden units, kernel and features, each as a list."""
    harmonics, hidden, kernel, *features = operands
    return [[harmonics], [hidden], [kernel], features]


def _flat(groups: Sequence[Sequence[Any]]) -> list[Any]:
    return [one for group in groups for one in group]


def _of_wanted(wanted: Wanted, operands: Sequence[Any]) -> list[list[Any]]:
    return [group for asked, group in zip(wanted, _groups(operands), strict=True) if asked]


def _messages(neighbors: Array, reverse: Array, *operands: Array, plan: Plan, interpret: bool = True) -> list[Array]:
    del reverse
    return message_kernels.forward(plan, (neighbors, *operands[:3]), operands[3:], interpret)


def _tangent(neighbors: Array, reverse: Array, *rest: Array, plan: Plan, wanted: Wanted) -> list[Array]:
    """``rest``: operands of ``messages``, then the tangents of those that are ``wanted``."""
    operands, tangents = rest[: 3 + len(plan.sources)], list(rest[3 + len(plan.sources) :])
    shares = []
    for number, asked in enumerate(wanted):
        if asked:
            groups = _groups(operands)
            groups[number] = [tangents.pop(0) for _ in groups[number]]
            shares.append(_messages_p.bind(neighbors, reverse, *_flat(groups), plan=plan))
    return [functools.reduce(jnp.add, parts) for parts in zip(*shares, strict=True)]


def _pullback(
    neighbors: Array, reverse: Array, *rest: Array, plan: Plan, wanted: Wanted, interpret: bool = True
) -> list[Array]:
    """``rest``: operands of ``messages``, then the cotangents of its results."""
    n_operands = 3 + len(plan.sources)
    operands, cotangents = rest[:n_operands], rest[n_operands:]
    backward = functools.partial(
        message_kernels.backward, plan, operands=(neighbors, *operands[:3]), features=operands[3:],
        cotangents=cotangents, interpret=interpret,
    )  # fmt: skip
    # in two kernels: together they need more registers than there are
    by_weights = Wanted(False, wanted.hidden, wanted.kernel, False)
    by_others = Wanted(wanted.harmonics, False, False, wanted.features)
    found = {name: x for part in (by_weights, by_others) if any(part) for name, x in backward(part).items()}
    results: list[Array] = []
    if wanted.harmonics:
        results.append(jnp.sum(found["harmonics"], axis=0))
    if wanted.hidden:
        results.append(jnp.sum(found["hidden"], axis=0))
    if wanted.kernel:
        hidden, by_weight = (x.reshape(-1, x.shape[-1]) for x in (operands[1], found["kernel"]))
        results.append(jnp.matmul(hidden.T, by_weight, precision=plan.precision))
    if wanted.features:
        shapes = [x.shape for x in operands[3:]]
        results += message_kernels.collect(found["features"], reverse, shapes, interpret)
    return results


def _pullback_plainly(neighbors: Array, *rest: Array, plan: Plan, wanted: Wanted) -> list[Array]:
    operands, cotangents = rest[: 3 + len(plan.sources)], list(rest[3 + len(plan.sources) :])
    _, pull = jax.vjp(functools.partial(messages_plainly, plan, neighbors), *operands)
    return _flat(_of_wanted(wanted, pull(cotangents)))


def _messages_rule(primals: Any, tangents: Any, *, plan: Plan) -> Any:
    out = _messages_p.bind(*primals, plan=plan)
    table, operands = primals[:2], primals[2:]
    wanted = Wanted(*(any(type(t) is not ad.Zero for t in group) for group in _groups(tangents[2:])))
    if not any(wanted):
        return out, [jnp.zeros_like(x) for x in out]
    given = [ad.instantiate_zeros(t) for t in _flat(_of_wanted(wanted, tangents[2:]))]
    return out, _tangent_p.bind(*table, *operands, *given, plan=plan, wanted=wanted)


def _differentiated(function: Any) -> Any:
    """A rule that differentiates ``function(neighbors, ..., floats)`` as JAX does."""

    def rule(primals: Any, tangents: Any, **params: Any) -> Any:
        table, operands = primals[:2], primals[2:]
        given = [ad.instantiate_zeros(t) for t in tangents[2:]]
        return jax.jvp(lambda *floats: function(*table, *floats, **params), operands, tuple(given))

    return rule


def _tangent_transpose(cts: Any, neighbors: Any, reverse: Any, *rest: Any, plan: Plan, wanted: Wanted) -> list[Any]:
    operands, tangents = rest[: 3 + len(plan.sources)], rest[3 + len(plan.sources) :]
    nothing = [None] * (2 + len(operands))
    if all(type(ct) is ad.Zero for ct in cts):
        return [*nothing, *(ad.Zero(t.aval) if ad.is_undefined_primal(t) else None for t in tangents)]
    cts = [ad.instantiate_zeros(ct) for ct in cts]
    found = _pullback_p.bind(neighbors, reverse, *operands, *cts, plan=plan, wanted=wanted)
    return [*nothing, *(x if ad.is_undefined_primal(t) else None for x, t in zip(found, tangents, strict=True))]


def _shapes(neighbors: Any, *operands: Any, plan: Plan) -> list[Any]:
    return [
        jax.core.ShapedArray((neighbors.shape[0], 2 * l + 1, width), operands[1].dtype)
        for l, width in zip(plan.targets, plan.widths, strict=True)
    ]


_messages_p.def_abstract_eval(lambda neighbors, reverse, *operands, plan: _shapes(neighbors, *operands, plan=plan))
_tangent_p.def_abstract_eval(lambda neighbors, reverse, *rest, plan, wanted: _shapes(neighbors, *rest, plan=plan))
_pullback_p.def_abstract_eval(
    lambda neighbors, reverse, *rest, plan, wanted: [
        jax.core.ShapedArray(x.shape, x.dtype) for x in _flat(_of_wanted(wanted, rest[: 3 + len(plan.sources)]))
    ]
)
for _primitive, _impl in ((_messages_p, _messages), (_tangent_p, _tangent), (_pullback_p, _pullback)):
    _primitive.def_impl(functools.partial(xla.apply_primitive, _primitive))
    batching.primitive_batchers[_primitive] = functools.partial(in_turn, _primitive)
    if _primitive is _tangent_p:
        mlir.register_lowering(_primitive, mlir.lower_fun(_impl, multiple_results=True))
        continue
    for _platform, _interpret in (("cpu", True), ("cuda", False)):
        _lowered = mlir.lower_fun(functools.partial(_impl, interpret=_interpret), multiple_results=True)
        mlir.register_lowering(_primitive, _lowered, platform=_platform)
ad.primitive_jvps[_messages_p] = _messages_rule
ad.primitive_jvps[_tangent_p] = _differentiated(_tangent)
ad.primitive_jvps[_pullback_p] = _differentiated(
    lambda neighbors, reverse, *floats, **params: _pullback_plainly(neighbors, *floats, **params)
)
ad.primitive_transposes[_tangent_p] = _tangent_transpose
