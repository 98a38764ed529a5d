"""The last layer of a model: the parameters that its energy is linear in, and the features that they multiply.

Energies of atoms are ``e_i = phi_i(r) . w + rest_i(r)`` with the parameters ``w`` of the linear maps that end a
readout: NequIP's one map, the second one of SevenNet's, and of MACE those of every layer with the output of the last
layer's network. The features are read off as ``phi_i = de_i/dw``, so that one rule serves every architecture: the scale
of the energy, rows of heads and adapters below are in them.
"""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp

from mlipjax import tree
from mlipjax.graph import GraphBatch
from mlipjax.potential import Potential
from mlipjax.typing import Array, Features, Float, Params, Positions

Paths = tuple[str, ...]

CHUNK = 8
"""Backward passes that run side by side; more take memory and no less time."""


def last_layer_paths(params: Params, head: str) -> Paths:
    """Paths of the parameters that the energy of a head is linear in.

    Raises:
        ValueError: if the readout of the head has no linear map at its end.
    """
    pattern = re.compile(rf"(base/)?readout_{re.escape(head)}/(kernel|output|layer_\d+)")
    found = tuple(path for path in tree.flatten_paths(params) if pattern.fullmatch(path))
    if not found:
        raise ValueError(f"no linear map ends the readout of {head!r}: error bars of the last layer do not fit.")
    return found


def atom_features(
    potential: Potential, params: Params, graph: GraphBatch, positions: Positions, paths: Paths
) -> Features:
    """Features ``de_i/dw`` of every atom, (N, F) in eV per unit of the parameters; zero for padding.

    The network below the last layer runs once: all F derivatives start at its end.

    Args:
        potential: of the model.
        params: its parameters.
        graph: structures.
        positions: (N, 3) Å.
        paths: of the last layer's parameters.
    """
    flat = tree.flatten_paths(params)

    def energies(last: dict[str, Array]) -> Array:
        return potential.node_energy(tree.unflatten_paths({**flat, **last}), graph, positions)[0]

    slopes = jax.jacfwd(energies)({path: flat[path] for path in paths})
    return jnp.concatenate([slopes[path].reshape(len(positions), -1) for path in paths], axis=-1)


def sum_features(graph: GraphBatch, features: Features) -> Float[Array, "G F"]:
    """Features of structures: sums over their atoms."""
    n_graphs = graph.cells.shape[0]
    return jax.ops.segment_sum(features, graph.graph_index, n_graphs, indices_are_sorted=True)


def force_features(
    potential: Potential, params: Params, graph: GraphBatch, paths: Paths, directions: Float[Array, "F R"]
) -> Float[Array, "R N 3"]:
    """Derivatives ``d(Phi . a_k)/dr`` of the summed features along R directions: one backward pass each.

    Structures of a batch do not touch, so that the sum over all of them gives every atom what its own has. A backward
    pass of ``CHUNK`` directions at once is what the memory is needed for; the result itself is 12 R bytes an atom.

    Args:
        potential: as ``atom_features``, and so are the next three.
        params: likewise.
        graph: likewise.
        paths: likewise.
        directions: columns ``a_k``.
    """

    def along(positions: Positions) -> Array:
        return jnp.sum(atom_features(potential, params, graph, positions, paths), axis=0) @ directions

    _, pull = jax.vjp(along, graph.positions)
    n = directions.shape[1]
    return jax.lax.map(lambda row: pull(row)[0], jnp.eye(n, dtype=directions.dtype), batch_size=min(CHUNK, n))


def force_sketch(
    potential: Potential, params: Params, graph: GraphBatch, paths: Paths, moves: Float[Array, "D N 3"]
) -> Float[Array, "D G F"]:
    """Features' derivatives along random moves of all atoms, (D, G, F): one forward pass each.

    With the 3n force features ``J`` (3n, F) of a structure and a move ``z`` of random signs, ``J^T z`` has the mean
    outer product ``J^T J``: what all forces of the structure say of the last layer, for a few passes instead of 3n
    (Hutchinson, Commun. Stat. Simul. 18, 1059 (1989)).

    Args:
        potential: as ``atom_features``, and so are the next three.
        params: likewise.
        graph: likewise.
        paths: likewise.
        moves: entries of +1 and -1.
    """

    def summed(positions: Positions) -> Array:
        return sum_features(graph, atom_features(potential, params, graph, positions, paths))

    return jax.lax.map(lambda move: jax.jvp(summed, (graph.positions,), (move,))[1], moves)


@functools.partial(jax.jit, static_argnames=("potential", "paths", "n_moves"))
def training_rows(
    potential: Potential, params: Params, graph: GraphBatch, paths: Paths, key: Array, n_moves: int
) -> tuple[Array, Array]:
    """Rows of the regression that the last layer is: energies per atom (G, F), and sketched forces (D, G, F).

    Args:
        potential: as ``atom_features``, and so are the next three.
        params: likewise.
        graph: likewise.
        paths: likewise.
        key: of the random moves.
        n_moves: D.
    """
    summed = sum_features(graph, atom_features(potential, params, graph, graph.positions, paths))
    moves = jax.random.rademacher(key, (n_moves, *graph.positions.shape), graph.positions.dtype)
    return summed / jnp.maximum(graph.n_atoms, 1)[:, None], force_sketch(potential, params, graph, paths, moves)


@functools.partial(jax.jit, static_argnames=("potential", "paths"))
def held_out_features(
    potential: Potential, params: Params, graph: GraphBatch, paths: Paths, directions: Float[Array, "F R"]
) -> tuple[Array, Array]:
    """Features of structures (G, R) and of forces (R, N, 3) along directions."""
    summed = sum_features(graph, atom_features(potential, params, graph, graph.positions, paths))
    return summed @ directions, force_features(potential, params, graph, paths, directions)
