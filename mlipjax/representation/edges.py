"""Features of pairs of atoms: the messages that a NequIP layer sends along its edges.

A NequIP model keeps no features of edges between its layers. What a layer has for an edge is the message it is about
to sum over neighbours (``nn.convolution``)::

    m_p[i, k, c] = R_p[c](r_ik) sum_m1,m2 C[m1, m2] Y_l,m2(r_ik) x_l,m1,c(j)        p = (l, l -> 0)

the product of the radial network, a function of the distance alone, and the sender's features, coupled to a scalar.
These are all invariant messages of the edge: ``sum_l mul_l`` channels. They depend on the sender's surroundings and
on the distance, and on the receiver only through these, so an edge and its reverse have different messages.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax import tree
from mlipjax.elements import symbols
from mlipjax.graph import batches_of, edge_vectors, neighbor_table
from mlipjax.models import NequIPConfig
from mlipjax.models.nequip import edge_harmonics, radial_basis
from mlipjax.nn.convolution import convolve, radial_network
from mlipjax.nn.irreps import tensor_product_paths
from mlipjax.nn.radial_table import RadialBasis, RadialEdges
from mlipjax.potential import Model, Potential
from mlipjax.precision import exact
from mlipjax.representation.classes import bonds
from mlipjax.representation.features import layer_index
from mlipjax.system import System


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Directed pairs of atoms in a list of structures.

    Attributes:
        structure: (E,) structure of each pair, ascending.
        receiver, sender: (E,) atoms, numbered within their structure.
        shift: (E, 3) lattice translation of the sender.
        classes: (E,) receiver and sender, ``"C-H"`` for a bond and ``"C..H"`` for others.
    """

    structure: np.ndarray
    receiver: np.ndarray
    sender: np.ndarray
    shift: np.ndarray
    classes: np.ndarray

    def subset(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs, by mask or ascending index."""
        return Pairs(*(getattr(self, field.name)[chosen] for field in dataclasses.fields(self)))


def choose_pairs(systems: Sequence[System], cutoff: float, *, per_structure: int = 16, seed: int = 0) -> Pairs:
    """Draw pairs closer than ``cutoff`` (Å) from every structure: up to half of them bonds, the rest no bonds.

    Args:
        systems: structures.
        cutoff: the smallest cutoff of the models to compare.
        per_structure: pairs of each structure.
        seed: of the draw.

    Raises:
        ValueError: if no two atoms are that close.
    """
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, int, int, np.ndarray, str]] = []
    for index, system in enumerate(systems):
        table = neighbor_table(system, cutoff)
        first, slot = np.nonzero(table.mask)
        second, shift = table.neighbors[first, slot], table.shifts[first, slot]
        bonded = set(map(tuple, np.column_stack(bonds(system)).tolist()))
        is_bond = np.array([tuple(pair) in bonded for pair in np.column_stack([first, second, shift]).tolist()], bool)
        for kind, sign in ((True, "-"), (False, "..")):
            members = np.flatnonzero(is_bond == kind)
            for e in np.sort(rng.permutation(members)[: per_structure // 2]):
                names = symbols(system.atomic_numbers[atom] for atom in (first[e], second[e]))
                rows.append((index, int(first[e]), int(second[e]), shift[e], sign.join(names)))
    if not rows:
        raise ValueError(f"no two atoms are closer than {cutoff} Å; there are no edges to compare.")
    structure, receiver, sender, shifts, classes = zip(*rows, strict=True)
    return Pairs(np.array(structure), np.array(receiver), np.array(sender), np.array(shifts), np.array(classes))


def edge_messages(
    model: Model,
    systems: Sequence[System],
    pairs: Pairs,
    *,
    layer: int = -1,
    dtype: Any = "float32",
    batch_size: int = 16,
) -> np.ndarray:
    """Invariant messages (E, F) of pairs in one layer.

    Args:
        model: a NequIP.
        systems: the structures the pairs were drawn from.
        pairs: closer than the potential's cutoff.
        layer: from the bottom (0, 1, ...) or the top (-1, -2, ...).
        dtype: ``"float32"`` or ``"float64"`` (needs JAX's 64-bit mode).
        batch_size: structures computed together.

    Raises:
        ValueError: for a model of another kind, or a layer it does not have.
    """
    potential, params = model.potential, tree.cast(model.params, dtype)
    if not isinstance(potential.config, NequIPConfig):
        raise ValueError(f"edge messages are known for NequIP models; this one is a {type(potential.config).__name__}.")
    index = layer_index(potential, layer)
    batches = list(batches_of(systems, potential.cutoff, batch_size=batch_size, dtype=dtype))
    count = np.bincount(pairs.structure, minlength=len(systems))
    n_pairs = max(int(count[list(indices)].sum()) for indices, _ in batches)
    parts: list[Any] = [None] * len(pairs.structure)
    for indices, graph in batches:
        starts = np.cumsum([0, *(systems[i].n_atoms for i in indices)])
        mine = np.concatenate([np.flatnonzero(pairs.structure == i) for i in indices])
        row = {structure: position for position, structure in enumerate(indices)}
        offset = starts[[row[int(s)] for s in pairs.structure[mine]]].astype(np.int64)
        vectors = _vectors(systems, pairs.subset(mine))
        padding = n_pairs - len(mine)
        found = _messages(
            potential,
            index,
            params,
            graph,
            np.pad(pairs.sender[mine] + offset, (0, padding)),
            np.pad(vectors, ((0, padding), (0, 0)), constant_values=1.0).astype(dtype),
        )
        for pair, message in zip(mine, np.asarray(found), strict=False):
            parts[pair] = message
    return np.stack(parts)


def _vectors(systems: Sequence[System], pairs: Pairs) -> np.ndarray:
    """From receiver to sender, (E, 3) Å."""
    return np.array(
        [
            systems[s].positions[j] - systems[s].positions[i] + shift @ np.asarray(systems[s].cell)
            for s, i, j, shift in zip(pairs.structure, pairs.receiver, pairs.sender, pairs.shift, strict=True)
        ]
    ).reshape(-1, 3)


@functools.partial(jax.jit, static_argnums=(0, 1))
@exact
def _messages(potential: Potential, layer: int, params: Any, graph: Any, sender: Any, vectors: Any) -> Any:
    config: NequIPConfig = potential.config
    sent = _senders(potential, layer, params, graph)
    inputs = config.input_irreps(layer)
    # paths are ordered by output, even scalars first; their columns of the last kernel are the first ones
    scalars = config.layer_irreps(layer)[:1]
    paths = tensor_product_paths(inputs, config.lmax, scalars, config.parity)
    radial = params[f"layer_{layer}"]["radial"]
    n_weights = radial[f"kernel_{len(config.radial_hidden)}"].shape[-1]
    kernels: Any = radial_network(config, n_weights).apply({"params": radial})
    kernels[-1] = kernels[-1][:, : sum(path.mul for path in paths)]
    distance = jnp.sqrt(jnp.sum(vectors**2, axis=-1))[:, None]
    frequencies = params["embedding_radial"]["frequencies"] if config.trainable_frequencies else None
    edges = RadialEdges(RadialBasis(radial_basis(config, frequencies, distance)))
    harmonics = edge_harmonics(config, vectors[:, None, :], distance)
    # every pair as an "atom" with one neighbour: the layer's own convolution then sums over nothing else
    (messages,) = convolve(sent, sender[:, None], edges, harmonics, kernels, paths, scalars)
    return messages[:, 0, :] * config.avg_n_neighbors**-0.5


def _senders(potential: Potential, layer: int, params: Any, graph: Any) -> list[Any]:
    """Chunks (N, 2l+1, C) that the atoms of a batch send in a layer: the output of its first linear map."""
    vectors = edge_vectors(graph, graph.positions, graph.cells)
    _, captured = potential.module.apply(
        {"params": params},
        graph,
        vectors,
        potential.species_index(graph.atomic_numbers),
        capture_intermediates=lambda module, _: module.name == "linear_up",
        mutable=["intermediates"],
    )
    (sent,) = captured["intermediates"][f"layer_{layer}"]["linear_up"]["__call__"]
    return list(sent) if isinstance(sent, (list, tuple)) else [sent]
