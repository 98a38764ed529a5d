"""Symmetric powers of equivariant features, contracted to an irrep (MACE: Batatia et al., NeurIPS 2022, eq. 10).

Every channel ``c`` of an atom has components ``x[(l m)]``, l = 0..lmax. Its product basis of degree ``nu`` for output
``(L, M)`` is the set of equivariant polynomials

    S_p[M](x) = sum_{i j k} S[p, M, i, j, k] x_i x_j x_k        (nu = 3; likewise for 1 and 2)

and the contraction is ``sum_nu sum_p w[nu, p, c] S_p[M](x)`` with weights of the atom's element.

The published codes enumerate couplings ``((l1 l2) l12 l3) -> L`` for *ordered* factors, 23 cubic ones for lmax = 3 and
L = 0. Only the part that is symmetric in the factors acts on ``x x x``, and of that only 8 are linearly independent.
Weights are kept as published (``coupling_paths`` gives the order), and one small constant matrix maps them to weights
of the independent polynomials. Those are evaluated as trees: all pairs ``x_i x_j`` once, one matrix product for all
couplings ``(l1 l2) -> l12`` in use, then the coupling with the third factor.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from mlipjax.nn.spherical import clebsch_gordan
from mlipjax.typing import Array

MAX_CORRELATION = 3


_OTHER_SIGN = {(1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5), (1, 6, 6), (3, 4, 6)}
"""Couplings that e3nn's table for torch (0.4.4) has with the other sign than e3nn-jax, for factors up to l = 3."""


class Tree(NamedTuple):
    """The coupling ``((l1 l2) l12 l3) -> L``."""

    l1: int
    l2: int
    l12: int
    l3: int


def components(lmax: int) -> int:
    """Number of components ``(l m)`` up to ``lmax``."""
    return (lmax + 1) ** 2


def _slice(l: int) -> slice:
    return slice(l * l, (l + 1) ** 2)


@functools.cache
def coupling_paths(lmax: int, degree: int, l_out: int) -> np.ndarray:
    """Couplings of ``degree`` ordered factors to ``l_out``, in the order of MACE's ``U`` matrices.

    Factors are coupled from the left; intermediate irreps are sorted by degree and parity after each factor.

    Returns:
        (2 l_out + 1, components, ..., components, n_paths), float64, one axis of components per factor.
    """
    size = components(lmax)
    eye = np.eye(size)
    coupled = [((l, (-1) ** l), eye[_slice(l)]) for l in range(lmax + 1)]
    for _ in range(degree - 1):
        longer = []
        for (l_left, p_left), left in coupled:
            for l in range(lmax + 1):
                for l_new in range(abs(l_left - l), l_left + l + 1):
                    # normalisation and signs of the published code
                    coupling = clebsch_gordan(l_new, l_left, l) * np.sqrt(2 * l_new + 1)
                    if tuple(sorted((l_new, l_left, l))) in _OTHER_SIGN:
                        coupling = -coupling
                    product = np.zeros((2 * l_new + 1, *left.shape[1:], size))
                    product[..., _slice(l)] = np.tensordot(coupling, left, axes=(1, 0)).transpose(
                        0, *range(2, left.ndim + 1), 1
                    )
                    longer.append(((l_new, p_left * (-1) ** l), product))
        coupled = sorted(longer, key=lambda term: term[0])
    wanted = [tensor for kind, tensor in coupled if kind == (l_out, (-1) ** l_out)]
    shape = (2 * l_out + 1, *(size,) * degree)
    return np.stack(wanted, axis=-1) if wanted else np.zeros((*shape, 0))


@functools.cache
def independent_trees(lmax: int, degree: int, l_out: int) -> tuple[Tree, ...]:
    """Couplings whose symmetrised polynomials are a basis of all equivariant ones; degree 3 only.

    Preferred are couplings with a small intermediate degree: they cost least.
    """
    if degree != 3:
        raise ValueError(f"trees are for degree 3, found {degree}")
    candidates = [
        Tree(l1, l2, l12, l3)
        for l1, l2 in itertools.combinations_with_replacement(range(lmax + 1), 2)
        for l12 in range(l2 - l1, l1 + l2 + 1)
        for l3 in range(lmax + 1)
        if abs(l12 - l3) <= l_out <= l12 + l3 and (l1 + l2 + l3 - l_out) % 2 == 0
        # a vector product of a vector with itself vanishes
        if not (l1 == l2 and l12 % 2 == 1)
    ]
    chosen: list[Tree] = []
    basis: list[np.ndarray] = []
    for tree in sorted(candidates, key=lambda tree: (tree.l12, tree)):
        # one component decides: an equivariant map that vanishes for one M vanishes for all
        vector = _symmetrise(_tree_tensor(tree, lmax, l_out)[:1]).ravel()
        norm = np.linalg.norm(vector)
        for other in basis:
            vector = vector - (other @ vector) * other
        if np.linalg.norm(vector) > 1e-6 * max(norm, 1e-6):
            chosen.append(tree)
            basis.append(vector / np.linalg.norm(vector))
    return tuple(chosen)


def _tree_tensor(tree: Tree, lmax: int, l_out: int) -> np.ndarray:
    size = components(lmax)
    tensor = np.zeros((2 * l_out + 1, size, size, size))
    first, second = clebsch_gordan(tree.l1, tree.l2, tree.l12), clebsch_gordan(tree.l12, tree.l3, l_out)
    tensor[:, _slice(tree.l1), _slice(tree.l2), _slice(tree.l3)] = np.einsum("abe,ecm->mabc", first, second)
    return tensor


def _symmetrise(tensor: np.ndarray) -> np.ndarray:
    """Average over permutations of all axes but the first."""
    axes = range(1, tensor.ndim)
    orders = list(itertools.permutations(axes))
    return np.mean([tensor.transpose(0, *order) for order in orders], axis=0)


def _pairs(lmax: int, l_out: int) -> list[tuple[int, int]]:
    """Independent couplings of degree 2."""
    pairs = itertools.combinations_with_replacement(range(lmax + 1), 2)
    return [(a, b) for a, b in pairs if b - a <= l_out <= a + b and (a + b - l_out) % 2 == 0]


@functools.cache
def independent_basis(lmax: int, degree: int, l_out: int) -> np.ndarray:
    """Symmetric tensors (n_independent, 2 l_out + 1, components, ...) of the polynomials that are evaluated."""
    size = components(lmax)
    if degree == 1:
        tensor = np.zeros((1, 2 * l_out + 1, size))
        tensor[0, :, _slice(l_out)] = np.eye(2 * l_out + 1)
        return tensor if l_out <= lmax else tensor[:0]
    if degree == 2:
        pairs = _pairs(lmax, l_out)
        tensors = np.zeros((len(pairs), 2 * l_out + 1, size, size))
        for tensor, (a, b) in zip(tensors, pairs, strict=True):
            tensor[:, _slice(a), _slice(b)] = clebsch_gordan(a, b, l_out).transpose(2, 0, 1)
            tensor[:] = _symmetrise(tensor)
        return tensors
    trees = independent_trees(lmax, degree, l_out)
    return np.stack([_symmetrise(_tree_tensor(tree, lmax, l_out)) for tree in trees])


def reduce_paths(paths: np.ndarray, lmax: int, l_out: int) -> np.ndarray:
    """Matrix (n_independent, n_paths) that maps weights of couplings to weights of independent polynomials.

    Args:
        paths: (2 l_out + 1, components, ..., n_paths) couplings, as ``coupling_paths``.
        lmax: highest degree of the factors.
        l_out: degree of the output.

    Raises:
        ValueError: if a coupling is not equivariant, or not in this basis' convention.
    """
    degree = paths.ndim - 2
    basis = independent_basis(lmax, degree, l_out)
    basis = basis.reshape(len(basis), -1)
    symmetric = np.stack([_symmetrise(paths[..., k]).ravel() for k in range(paths.shape[-1])], axis=-1)
    # basis tensors are not orthogonal, but few
    matrix = np.linalg.solve(basis @ basis.T, basis @ symmetric)
    residual = np.abs(basis.T @ matrix - symmetric).max(initial=0.0)
    if residual > 1e-5:
        raise ValueError(f"couplings to l = {l_out} of degree {degree} are not equivariant (off by {residual:.1e})")
    matrix[np.abs(matrix) < 1e-12] = 0.0
    return matrix


@functools.cache
def path_matrix(lmax: int, degree: int, l_out: int, dtype: str = "float64") -> np.ndarray:
    """``reduce_paths`` of ``coupling_paths`` rounded to ``dtype``, as published files store them."""
    return reduce_paths(coupling_paths(lmax, degree, l_out).astype(dtype).astype(np.float64), lmax, l_out)


class _Program(NamedTuple):
    """Constant matrices that evaluate all independent polynomials of all outputs.

    With components ``x`` (components, R): ``pairs = (first @ x) * (second @ x)``, quadratic polynomials
    ``quadratic @ pairs``, and cubic ones ``cubic @ ((couple @ pairs) * (third @ x))``.
    """

    first: np.ndarray
    second: np.ndarray
    quadratic: np.ndarray
    couple: np.ndarray
    third: np.ndarray
    cubic: np.ndarray


@functools.cache
def _program(lmax: int, n_outputs: int) -> _Program:
    """Matrices for outputs L = 0..n_outputs-1; rows are ordered by L, then M, then polynomial."""
    size = components(lmax)
    quadratic = [np.moveaxis(independent_basis(lmax, 2, l), 1, 0).reshape(-1, size, size) for l in range(n_outputs)]
    # factors of cubic terms: component m12 of the coupled pair, and component m3 of the third factor
    factors: dict[tuple[tuple[int, int, int], int, int], int] = {}
    entries: list[tuple[int, int, float]] = []
    row = 0
    for l_out in range(n_outputs):
        trees = independent_trees(lmax, 3, l_out)
        for m, (number, tree) in itertools.product(range(2 * l_out + 1), enumerate(trees)):
            coupling = clebsch_gordan(tree.l12, tree.l3, l_out)[..., m]
            for m12, m3 in zip(*np.nonzero(np.abs(coupling) > 1e-12), strict=True):
                key = (tree[:3], int(m12), tree.l3**2 + int(m3))
                column = factors.setdefault(key, len(factors))
                entries.append((row + m * len(trees) + number, column, float(coupling[m12, m3])))
        row += (2 * l_out + 1) * len(trees)
    cubic = np.zeros((row, len(factors)))
    for index, column, value in entries:
        cubic[index, column] = value
    couple = np.zeros((len(factors), size, size))
    for (pair, m12, _), column in factors.items():
        couple[column, _slice(pair[0]), _slice(pair[1])] = clebsch_gordan(*pair)[..., m12]

    forms = np.concatenate([*quadratic, couple])
    forms = np.triu(forms) + np.swapaxes(np.tril(forms, -1), 1, 2)
    rows, columns = np.nonzero(np.abs(forms).max(axis=0) > 1e-12)
    n_quadratic = sum(map(len, quadratic))
    eye = np.eye(size)
    return _Program(
        first=eye[rows],
        second=eye[columns],
        quadratic=forms[:n_quadratic, rows, columns],
        couple=forms[n_quadratic:, rows, columns],
        third=eye[[component for _, _, component in factors]],
        cubic=cubic,
    )


def symmetric_contraction(x: Array, weights: Sequence[Sequence[Array]], lmax: int) -> list[Array]:
    """Contract symmetric powers of the features of each atom and channel.

    Args:
        x: (N, components, C).
        weights: for every output degree L = 0, 1, ... one (N, n_independent, C) array per polynomial degree.
        lmax: highest degree in ``x``.

    Returns:
        One (N, 2L+1, C) array per output degree.
    """
    n, size, channels = x.shape
    # components first, so that every step is a product with a small matrix or elementwise; sums over the first axis
    # are products with ones too, because XLA:CPU walks down columns to reduce
    x = jnp.swapaxes(x, 0, 1).reshape(size, n * channels)
    polynomials = _polynomials(x, len(weights[0]), len(weights), lmax)
    results = []
    for l_out, per_degree in enumerate(weights):
        flat = [jnp.swapaxes(w, 0, 1).reshape(w.shape[1], n * channels) for w in per_degree]
        ones = [jnp.ones((1, len(w)), x.dtype) for w in flat]
        rows = []
        for m in range(2 * l_out + 1):
            terms = [one @ (w * degree[l_out][m]) for one, w, degree in zip(ones, flat, polynomials, strict=True)]
            rows.append(sum(terms[1:], terms[0]))
        results.append(jnp.stack([row.reshape(n, channels) for row in rows], axis=1))
    return results


def _polynomials(x: Array, degree: int, n_outputs: int, lmax: int) -> list[list[list[Array]]]:
    """Independent polynomials of each degree: (n_independent, R) arrays by L and M."""
    constants = (jnp.asarray(matrix, x.dtype) for matrix in _program(lmax, n_outputs))
    first, second, quadratic, couple, third, cubic = constants
    found = [[[x[l * l + m : l * l + m + 1] for m in range(2 * l + 1)] for l in range(n_outputs)]]
    if degree > 1:
        pairs = (first @ x) * (second @ x)
        sizes = [len(_pairs(lmax, l)) for l in range(n_outputs)]
        found.append(_by_component(quadratic @ pairs, sizes))
        if degree > 2:
            sizes = [len(independent_trees(lmax, 3, l)) for l in range(n_outputs)]
            found.append(_by_component(cubic @ ((couple @ pairs) * (third @ x)), sizes))
    return found


def _by_component(rows: Array, sizes: Sequence[int]) -> list[list[Array]]:
    """Cut rows ordered by L, M and polynomial."""
    lengths = [size for l, size in enumerate(sizes) for _ in range(2 * l + 1)]
    parts = jnp.split(rows, np.cumsum(lengths)[:-1])
    return [parts[l * l : (l + 1) ** 2] for l in range(len(sizes))]
