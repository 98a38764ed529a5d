"""What the kernels of messages know before they run: paths sorted by input irrep, their columns and couplings."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from mlipjax.nn.irreps import Path
from mlipjax.nn.spherical import clebsch_gordan


class Term(NamedTuple):
    """A path as a kernel sees it: where its weights and its messages begin, and what is not zero of its coupling.

    Attributes:
        column: of the last radial kernel.
        harmonic: first component of the path's harmonics among all.
        target: output irrep.
        channel: of this output.
        products: (m1, m2, m3, coefficient).
    """

    column: int
    harmonic: int
    target: int
    channel: int
    products: tuple[tuple[int, int, int, float], ...]


class Branch(NamedTuple):
    """All paths from one input irrep.

    Attributes:
        source: input irrep.
        dim: its 2l+1.
        mul: its channels.
        tiles: first program of these paths, and the first after them.
        terms: the paths.
    """

    source: int
    dim: int
    mul: int
    tiles: tuple[int, int]
    terms: tuple[Term, ...]


@functools.cache
def branches(
    paths: tuple[Path, ...], sources: tuple[int, ...], targets: tuple[int, ...], channels: int
) -> tuple[Branch, ...]:
    """Sort paths by input irrep; ``sources`` and ``targets`` are degrees, ``channels`` those of a program."""
    columns = np.cumsum([0, *(path.mul for path in paths)])
    found, start = [], 0
    for source, l in enumerate(sources):
        own = [number for number, path in enumerate(paths) if path.source == source]
        if own:
            mul = paths[own[0]].mul
            terms = tuple(_term(paths, number, int(columns[number]), l, targets) for number in own)
            end = start + -(-mul // channels)
            found.append(Branch(source, 2 * l + 1, mul, (start, end), terms))
            start = end
    return tuple(found)


def _term(paths: tuple[Path, ...], number: int, column: int, l: int, targets: tuple[int, ...]) -> Term:
    path = paths[number]
    channel = sum(other.mul for other in paths[:number] if other.target == path.target)
    coupling = clebsch_gordan(l, path.l_edge, targets[path.target]) * np.sqrt(2 * targets[path.target] + 1)
    places = zip(*np.nonzero(np.abs(coupling) > 1e-12), strict=True)
    products = tuple((int(a), int(b), int(c), float(coupling[a, b, c])) for a, b, c in places)
    return Term(column, path.l_edge**2, path.target, channel, products)


def by_pairs(term: Term, first: int) -> dict[tuple[int, int], list[tuple[int, float]]]:
    """Harmonics and coefficients of each pair (m1, m3), ordered by m1 or by m3: what is used together lies together."""
    pairs: dict[tuple[int, int], list[tuple[int, float]]] = {}
    for m1, m2, m3, coefficient in sorted(term.products, key=lambda product: (product[first], product)):
        pairs.setdefault((m1, m3), []).append((m2, coefficient))
    return pairs
