"""Irreducible representations of O(3), as far as a potential needs them.

Features are kept as one array per irrep with the channels last, (N, 2l+1, C): sums over neighbours then are
matrix products with a contiguous channel axis.
"""

from __future__ import annotations

import dataclasses
import re
from typing import NamedTuple


class Irrep(NamedTuple):
    """``mul`` copies of the irrep of degree ``l`` and parity ``p`` (+1 even, -1 odd)."""

    mul: int
    l: int
    p: int

    @property
    def dim(self) -> int:
        """Components of one copy, 2l+1."""
        return 2 * self.l + 1

    @property
    def kind(self) -> tuple[int, int]:
        """Degree and parity without the multiplicity."""
        return self.l, self.p

    @property
    def label(self) -> str:
        """Name without the multiplicity, such as ``1o``."""
        return f"{self.l}{'e' if self.p == 1 else 'o'}"

    def __str__(self) -> str:
        return f"{self.mul}x{self.label}"


Irreps = tuple[Irrep, ...]


def parse(text: str) -> Irreps:
    """Parse ``"128x0e + 64x1o"``; repeated irreps are merged and sorted by degree, natural parity first.

    Raises:
        ValueError: for anything that is not a sum of ``MULxLP`` terms.
    """
    muls: dict[tuple[int, int], int] = {}
    for term in text.split("+"):
        match = re.fullmatch(r"(?:(\d+)x)?(\d+)([eo])", term.strip())
        if match is None:
            raise ValueError(f"irreps must look like '64x0e + 32x1o', found {text!r}")
        kind = int(match[2]), 1 if match[3] == "e" else -1
        muls[kind] = muls.get(kind, 0) + int(match[1] or 1)
    return tuple(Irrep(muls[kind], *kind) for kind in sorted(muls, key=_order) if muls[kind])


def _order(kind: tuple[int, int]) -> tuple[int, int]:
    l, p = kind
    return l, -p * (-1) ** l


@dataclasses.dataclass(frozen=True)
class Path:
    """One term of a tensor product: input irrep x spherical harmonic -> output irrep (channel by channel)."""

    source: int
    """Index of the input irrep."""
    l_edge: int
    """Degree of the spherical harmonic."""
    target: int
    """Index of the output irrep."""
    mul: int
    """Channels, those of the input irrep."""


def tensor_product_paths(inputs: Irreps, lmax: int, outputs: Irreps, parity: bool = True) -> tuple[Path, ...]:
    """All allowed paths, ordered by output irrep, then input irrep, then degree of the harmonic.

    Args:
        inputs: irreps of the features.
        lmax: highest degree of the harmonics.
        outputs: irreps that are asked for.
        parity: whether harmonics of odd degree are odd. If all count as even (SO(3) in place of O(3)), features of
            one parity couple in every way that the triangle rule allows.
    """
    paths = []
    for target, out in enumerate(outputs):
        for source, irrep in enumerate(inputs):
            for l_edge in range(lmax + 1):
                triangle = abs(irrep.l - l_edge) <= out.l <= irrep.l + l_edge
                if triangle and irrep.p * ((-1) ** l_edge if parity else 1) == out.p:
                    paths.append(Path(source, l_edge, target, irrep.mul))
    return tuple(paths)
