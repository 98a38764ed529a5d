"""Pallas kernels of ``messages`` and of their pullback: what lies between neighbour table and sums stays in registers.

A program works on some slots of one atom and some channels of one irrep. It gathers the senders' features, multiplies
the radial network's hidden units with a few columns of its last kernel, couples both with the harmonics (the couplings
are constants, zeros left out), and sums over slots. Nothing is added up in memory, so results are the same bit by bit
in every call. The pullback leaves the senders' shares in their slots: the reverse table finds them there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from mlipjax.nn.primitives.message_terms import Branch, Term, branches, by_pairs
from mlipjax.typing import Array

FORWARD = 16, 32
"""Slots (at most) and channels of a program: so many numbers of each kind fit the registers of its threads."""

BACKWARD = 32, 16

UNITS = 16
"""Hidden units multiplied at once."""

ATOMS = 4
"""Atoms of a program, in turn: the columns of the radial kernel then stay in the cache of its core."""


class _Slots(NamedTuple):
    """Slots of a program: their atom and index, whether they exist, and the senders."""

    atom: Array
    index: Array
    there: Array
    senders: Array


def _slots(atom: Array, block: Any, neighbors: Any, size: int) -> _Slots:
    index = block * size + jnp.arange(size)
    there = index < neighbors.shape[1]
    return _Slots(atom, index, there, triton.load(neighbors.at[atom, index], mask=there, other=0))


def _columns(kernel: Any, units: Array, term: Term, channels: Array, mul: int) -> Array:
    """Columns of the last radial kernel, in the shape of ``units`` and ``channels`` together."""
    mask = (units < kernel.shape[0]) & (channels < mul)
    return triton.load(kernel.at[units, term.column + channels], mask=mask, other=0.0)


def _weights(plan: Any, refs: Any, slots: _Slots, term: Term, channels: Array, mul: int) -> Array:
    """Radial weights (slots, channels)."""
    hidden, kernel = refs

    def share(number: Any) -> Array:
        units = number * UNITS + jnp.arange(UNITS)
        mask = slots.there[:, None] & (units < hidden.shape[2])[None, :]
        rows = triton.load(hidden.at[slots.atom, slots.index[:, None], units[None, :]], mask=mask, other=0.0)
        columns = _columns(kernel, units[:, None], term, channels[None, :], mul)
        return jnp.dot(rows, columns, precision=plan.precision)

    # a loop: all of it at once needs more registers than there are
    none = jnp.zeros((slots.index.shape[0], channels.shape[0]), kernel.dtype)
    return jax.lax.fori_loop(0, -(-hidden.shape[2] // UNITS), lambda number, total: total + share(number), none)


def _features(ref: Any, slots: _Slots, channels: Array, branch: Branch) -> list[Array]:
    """Components (slots, channels) of the senders' features."""
    mask = slots.there[:, None] & (channels < branch.mul)[None, :]
    return [
        triton.load(ref.at[slots.senders[:, None], m, channels[None, :]], mask=mask, other=0.0)
        for m in range(branch.dim)
    ]


def _harmonics(ref: Any, slots: _Slots, term: Term) -> dict[int, Array]:
    """The path's harmonics (slots, 1)."""
    needed = sorted({product[1] for product in term.products})
    return {
        m: triton.load(ref.at[slots.atom, slots.index, term.harmonic + m], mask=slots.there, other=0.0)[:, None]
        for m in needed
    }


def _coupled(harmonics: dict[int, Array], terms: list[tuple[int, float]]) -> Array:
    """An element (slots, 1) of the coupling matrices."""
    return _sum([coefficient * harmonics[m] for m, coefficient in terms])


def _sum(parts: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, parts)


def _blocks(n_slots: int, most: int) -> tuple[int, int]:
    """Slots of a program, a power of two that a product bears, and blocks of them."""
    size = min(most, max(16, pl.next_power_of_2(n_slots)))
    return size, -(-n_slots // size)


def forward(plan: Any, operands: Sequence[Array], features: Sequence[Array], interpret: bool) -> list[Array]:
    """Messages (N, 2l+1, channels of all paths to it) of every output irrep.

    Args:
        plan: ``messages.Plan``.
        operands: neighbours (N, K), harmonics (N, K, all components), hidden units (N, K, H) and kernel (H, columns).
        features: (N, 2l+1, C) per input irrep.
        interpret: whether to run without a GPU, slowly.
    """
    neighbors, harmonics, hidden, radial_kernel = operands
    all_branches = branches(plan.paths, plan.sources, plan.targets, FORWARD[1])
    blocks = _blocks(neighbors.shape[1], FORWARD[0])

    def kernel(*refs: Any) -> None:
        groups = refs[:4], refs[4 : 4 + len(features)], refs[4 + len(features) :]
        group, tile = pl.program_id(0), pl.program_id(1)
        for branch in all_branches:
            begin, end = branch.tiles
            work = functools.partial(_forward_branch, plan, branch, tile - begin, blocks, groups)
            pl.when((tile >= begin) & (tile < end))(_for_atoms(group, refs[0], work))

    shapes = [
        jax.ShapeDtypeStruct((neighbors.shape[0], 2 * l + 1, width), hidden.dtype)
        for l, width in zip(plan.targets, plan.widths, strict=True)
    ]
    grid = pl.cdiv(neighbors.shape[0], ATOMS), all_branches[-1].tiles[1]
    of_tiles = [all_branches[-1].tiles[1] * x.nbytes for x in (neighbors, harmonics, hidden)]
    traffic = grid[0] * radial_kernel.nbytes + sum(of_tiles) + _gathered(all_branches, neighbors, hidden.dtype)
    return _call(kernel, grid, shapes, traffic, interpret)(*operands, *features)


def _gathered(all_branches: Sequence[Branch], neighbors: Array, dtype: Any) -> int:
    """Bytes of senders' features."""
    return neighbors.size * sum(branch.dim * branch.mul for branch in all_branches) * jnp.dtype(dtype).itemsize


def _call(
    kernel: Callable[..., None], grid: tuple[int, ...], shapes: Any, read: int, interpret: bool
) -> Callable[..., Any]:
    """``read``: bytes that the programs of the grid read, what one of them reads again not counted."""
    written = sum(shape.size * shape.dtype.itemsize for shape in shapes)
    return pl.pallas_call(
        kernel, out_shape=shapes, grid=grid, interpret=interpret, metadata={"bytes": str(read + written)},
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=1),
    )  # fmt: skip


def _for_atoms(group: Array, neighbors: Any, work: Callable[[Any], None]) -> Callable[[], None]:
    """Do ``work`` for the atoms of a program."""
    first, n_atoms = group * ATOMS, neighbors.shape[0]

    def one(number: Any, nothing: Any) -> Any:
        work(first + number)
        return nothing

    def all_of_them() -> None:
        jax.lax.fori_loop(0, jnp.minimum(ATOMS, n_atoms - first), one, jnp.int32(0))

    return all_of_them


def _forward_branch(plan: Any, branch: Branch, tile: Array, blocks: tuple[int, int], groups: Any, atom: Array) -> None:
    size, n_blocks = blocks
    (neighbors, harmonics, *radial), features, outputs = groups
    channels = tile * FORWARD[1] + jnp.arange(FORWARD[1])
    places = [(term, m) for term in branch.terms for m in range(outputs[term.target].shape[1])]

    def block(number: Any, sums: Sequence[Array]) -> list[Array]:
        slots = _slots(atom, number, neighbors, size)
        gathered = _features(features[branch.source], slots, channels, branch)
        shares = []
        for term in branch.terms:
            weights = _weights(plan, radial, slots, term, channels, branch.mul)
            weighted = [weights * x for x in gathered]
            factors = _harmonics(harmonics, slots, term)
            pairs = by_pairs(term, first=2)
            for m in range(outputs[term.target].shape[1]):
                own = [_coupled(factors, c) * weighted[m1] for (m1, m3), c in pairs.items() if m3 == m]
                shares.append(jnp.sum(_sum(own), axis=0))
        return [a + b for a, b in zip(sums, shares, strict=True)]

    sums = [jnp.zeros(FORWARD[1], radial[1].dtype) for _ in places]
    sums = block(0, sums) if n_blocks == 1 else jax.lax.fori_loop(0, n_blocks, block, sums)
    for (term, m), total in zip(places, sums, strict=True):
        triton.store(outputs[term.target].at[atom, m, term.channel + channels], total, mask=channels < branch.mul)


class Wanted(NamedTuple):
    """Arguments whose cotangents are asked for."""

    harmonics: bool
    hidden: bool
    kernel: bool
    features: bool


def backward(
    plan: Any,
    wanted: Wanted,
    operands: Sequence[Array],
    features: Sequence[Array],
    cotangents: Sequence[Array],
    interpret: bool,
) -> dict[str, Any]:
    """Cotangents of what ``forward`` takes, those of senders and of the kernel edge by edge.

    Args:
        plan, operands, features, interpret: see ``forward``.
        wanted: which.
        cotangents: of the messages.

    Returns:
        What is wanted of "harmonics" (B, N, K, all components) and "hidden" (B, N, K, H), to be summed over the input
        irreps that have paths; "kernel": cotangents (N, K, columns) of the radial weights; "features": (N, K,
        components and channels of all input irreps).
    """
    neighbors, harmonics, hidden, radial_kernel = operands
    all_branches = branches(plan.paths, plan.sources, plan.targets, BACKWARD[1])
    blocks, edges = _blocks(neighbors.shape[1], BACKWARD[0]), neighbors.shape
    shapes = {
        "harmonics": (len(all_branches), *harmonics.shape),
        "hidden": (len(all_branches), *hidden.shape),
        "kernel": (*edges, radial_kernel.shape[1]),
        "features": (*edges, sum(x.shape[1] * x.shape[2] for x in features)),
    }
    shapes = {name: shapes[name] for name, asked in wanted._asdict().items() if asked}
    ends = np.cumsum([4, len(features), len(cotangents)])

    def kernel(*refs: Any) -> None:
        groups = [refs[start:end] for start, end in zip([0, *ends], [*ends, len(refs)], strict=True)]
        outputs = dict(zip(shapes, groups[3], strict=True))
        group, own, block = (pl.program_id(axis) for axis in range(3))
        for number, branch in enumerate(all_branches):
            of_slots = functools.partial(_slots, block=block, neighbors=refs[0], size=blocks[0])
            work = functools.partial(_backward_branch, plan, number, branch, groups[:3], outputs, of_slots)
            pl.when(own == number)(_for_atoms(group, refs[0], work))

    grid = pl.cdiv(neighbors.shape[0], ATOMS), len(all_branches), blocks[1]
    outputs = [jax.ShapeDtypeStruct(shape, hidden.dtype) for shape in shapes.values()]
    of_slots = neighbors.nbytes + harmonics.nbytes + (hidden.nbytes if wanted.harmonics or wanted.features else 0)
    of_atoms = blocks[1] * (grid[0] * radial_kernel.nbytes + sum(x.nbytes for x in cotangents))
    traffic = len(all_branches) * of_slots + of_atoms + _gathered(all_branches, neighbors, hidden.dtype)
    found = _call(kernel, grid, outputs, traffic, interpret)(*operands, *features, *cotangents)
    return dict(zip(shapes, found, strict=True))


def _backward_branch(
    plan: Any, number: int, branch: Branch, inputs: Any, outputs: Any, of_slots: Callable[[Any], _Slots], atom: Array
) -> None:
    (_, harmonics, hidden, _), _, _ = inputs
    slots = of_slots(atom)
    size = slots.index.shape[0]
    components, units = range(harmonics.shape[2]), max(UNITS, pl.next_power_of_2(hidden.shape[2]))

    def tile(start: Any, sums: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        return _backward_tile(plan, branch, slots, start * BACKWARD[1] + jnp.arange(BACKWARD[1]), inputs, outputs, sums)

    dtype = hidden.dtype
    sums = jnp.zeros((size, units), dtype), [jnp.zeros(size, dtype) for _ in components]
    by_unit, by_component = jax.lax.fori_loop(0, branch.tiles[1] - branch.tiles[0], tile, sums)
    place = number, slots.atom
    if "hidden" in outputs:
        unit = jnp.arange(units)[None, :]
        mask = slots.there[:, None] & (unit < hidden.shape[2])
        triton.store(outputs["hidden"].at[(*place, slots.index[:, None], unit)], by_unit, mask=mask)
    if "harmonics" in outputs:
        for m in components:
            triton.store(outputs["harmonics"].at[(*place, slots.index, m)], by_component[m], mask=slots.there)


def _backward_tile(
    plan: Any, branch: Branch, slots: _Slots, channels: Array, inputs: Any, outputs: Any, sums: Any
) -> tuple[Array, list[Array]]:
    """Cotangents by some channels of an irrep: stores those of its own, and adds the others to ``sums``."""
    (_, harmonics, *radial), features, cotangents = inputs
    by_unit, by_component = sums[0], list(sums[1])
    for_weights = "hidden" in outputs or "kernel" in outputs
    mask = slots.there[:, None] & (channels < branch.mul)[None, :]
    gathered = _features(features[branch.source], slots, channels, branch)
    by_feature: list[list[Array]] = [[] for _ in gathered]
    for term in branch.terms:
        # left out where no other cotangent needs them
        weights: Any = None
        if "harmonics" in outputs or "features" in outputs:
            weights = _weights(plan, radial, slots, term, channels, branch.mul)
        incoming = _incoming(cotangents[term.target], slots.atom, term, channels, branch.mul)
        shares = _harmonics(harmonics, slots, term)
        pairs = by_pairs(term, first=0)
        back: dict[int, Array] = {}
        for (m1, m3), c in pairs.items():
            share = _coupled(shares, c) * incoming[m3]
            back[m1] = back[m1] + share if m1 in back else share
        for m1, share in back.items():
            if weights is not None:
                by_feature[m1].append(weights * share)
        if for_weights:
            by_weight = _sum([gathered[m1] * share for m1, share in back.items()])
            if "kernel" in outputs:
                at = outputs["kernel"].at[slots.atom, slots.index[:, None], (term.column + channels)[None, :]]
                triton.store(at, by_weight, mask=mask)
            if "hidden" in outputs:
                units = jnp.arange(by_unit.shape[1])[None, :]
                columns = _columns(radial[1], units, term, channels[:, None], branch.mul)
                by_unit = by_unit + jnp.dot(by_weight, columns, precision=plan.precision)
        if "harmonics" in outputs and weights is not None:
            _add_harmonics(by_component, term, pairs, [weights * x for x in gathered], incoming)
    if "features" in outputs:
        for m, parts in enumerate(by_feature):
            total = _sum(parts) if parts else jnp.zeros_like(gathered[0])
            column = sum(x.shape[1] * x.shape[2] for x in features[: branch.source]) + m * branch.mul
            at = outputs["features"].at[slots.atom, slots.index[:, None], (column + channels)[None, :]]
            triton.store(at, total, mask=mask)
    return by_unit, by_component


def _incoming(ref: Any, atom: Array, term: Term, channels: Array, mul: int) -> list[Array]:
    """Components (1, channels) of the cotangent of a path's messages."""
    at = [ref.at[atom, m, term.channel + channels] for m in range(ref.shape[1])]
    return [triton.load(place, mask=channels < mul, other=0.0)[None, :] for place in at]


def _add_harmonics(
    by_component: list[Array], term: Term, pairs: Any, weighted: Sequence[Array], incoming: Sequence[Array]
) -> None:
    """Add the cotangents of a path's harmonics."""
    totals: dict[int, Array] = {}
    for (m1, m3), terms in pairs.items():
        product = weighted[m1] * incoming[m3]
        for m, coefficient in terms:
            share = coefficient * product
            totals[m] = totals[m] + share if m in totals else share
    for m, total in totals.items():
        by_component[term.harmonic + m] = by_component[term.harmonic + m] + jnp.sum(total, axis=1)


def collect(shares: Array, reverse: Array, shapes: Sequence[tuple[int, ...]], interpret: bool) -> list[Array]:
    """Sum shares (N, K, components and channels) over the slots that every atom is the sender of.

    Args:
        shares: "features" of ``backward``.
        reverse: (N, K) reverse edges.
        shapes: (N, 2l+1, C) of the results.
        interpret: see ``forward``.
    """
    size, n_blocks = _blocks(reverse.shape[1], BACKWARD[0])
    starts = np.cumsum([0, *(shape[1] * shape[2] for shape in shapes)])

    def kernel(edges: Any, rows: Any, *outputs: Any) -> None:
        atom, own = pl.program_id(0), pl.program_id(1)
        for number, (output, start) in enumerate(zip(outputs, starts[:-1].tolist(), strict=True)):
            work = functools.partial(_collect_irrep, atom, edges, rows, output, start, (size, n_blocks))
            pl.when(own == number)(work)

    results = [jax.ShapeDtypeStruct(shape, shares.dtype) for shape in shapes]
    read = shares.nbytes + len(shapes) * reverse.nbytes
    rows = shares.reshape(-1, shares.shape[-1])
    return _call(kernel, (shapes[0][0], len(shapes)), results, read, interpret)(reverse, rows)


def _collect_irrep(atom: Array, edges: Any, rows: Any, output: Any, start: int, blocks: tuple[int, int]) -> None:
    (size, n_blocks), (_, dim, mul) = blocks, output.shape
    channels = jnp.arange(max(16, pl.next_power_of_2(mul)))
    for m in range(dim):
        columns = (start + m * mul + channels)[None, :]

        def add(block: Any, total: Array, columns: Array = columns) -> Array:
            slots = block * size + jnp.arange(size)
            there = slots < edges.shape[1]
            edge = triton.load(edges.at[atom, slots], mask=there, other=0)
            mask = there[:, None] & (channels < mul)[None, :]
            return total + jnp.sum(triton.load(rows.at[edge[:, None], columns], mask=mask, other=0.0), axis=0)

        total = jax.lax.fori_loop(0, n_blocks, add, jnp.zeros(channels.shape, rows.dtype))
        triton.store(output.at[atom, m, channels], total, mask=channels < mul)
