"""Equivariant convolution over a dense neighbour table.

For path ``p = (l1, l2 -> l3)`` an atom ``i`` receives

    M_p[i, m3, c] = sum_k R_p[i, k, c] sum_{m1, m2} C[m1, m2, m3] Y_l2,m2[i, k] x_l1[j(i,k), m1, c]

(NequIP: Batzner et al., Nat. Commun. 13, 2453 (2022), eq. 9). ``C`` and ``Y`` do not depend on the channel, so they
are contracted first into a small matrix per edge, and the sum over neighbours *and* ``m1`` is one matrix product per
atom, (2l3+1, K (2l1+1)) x (K (2l1+1), C).

On CPUs the time goes into memory traffic, not arithmetic: products of features and radial weights are 16 kB per edge
for a Nequix layer. Blocks of a few atoms are therefore worked off one after the other, their intermediates stay in
the cache, and the backward pass recomputes them. For 64 atoms and 48 slots this is 3 times faster than one pass
over all edges and needs 1/18 of the memory. Other platforms take all edges at once, and keep what the backward pass
needs, as long as they are few enough for their memory. The platform is that for which a program is lowered: both ways
are traced, and one is compiled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mlipjax.defaults import Backend
from mlipjax.graph import GraphBatch
from mlipjax.nn.irreps import Irrep, Irreps, Path, tensor_product_paths
from mlipjax.nn.linear import Chunks, EquivariantLinear, EquivariantRMSNorm, SpeciesLinear, gate, gated_irreps
from mlipjax.nn.primitives.messages import messages, weighted_sums
from mlipjax.nn.radial import RadialKernels, RadialNetwork
from mlipjax.nn.radial_table import RadialEdges
from mlipjax.typing import Array

EDGES_PER_BLOCK = 192
"""Edges worked on at a time on CPUs: in a Nequix layer they are 3 MB of intermediates, the size of a core's cache."""

BYTES_AT_ONCE = 2 * 2**30
"""Products of radial weights and features of a layer on accelerators, above which edges are worked off in blocks."""


def convolve(
    features: Sequence[Array],
    neighbors: Array,
    edges: RadialEdges,
    harmonics: Sequence[Array],
    radial_kernels: Sequence[Any],
    paths: Sequence[Path],
    outputs: Irreps,
) -> list[Array]:
    """Sum the messages of all neighbours, path by path.

    Args:
        features: one (N, 2l+1, C) array per input irrep.
        neighbors: (N, K) indices.
        edges: what the radial weights of (N, K) edges are computed from; those of unused slots are zero.
        harmonics: (N, K, 2l+1) per degree.
        radial_kernels: kernels of the radial network, or what ``edges`` need in their place; the last one has one
            column per path and channel.
        paths: ordered by output irrep.
        outputs: output irreps.

    Returns:
        One (N, 2l+1, channels of all paths to it) array per output irrep.
    """

    def total(edges: Any, work_off: WorkOff, features: Any, *others: Any) -> list[Array]:
        neighbors, harmonics, radial_kernels = others
        degrees = [out.l for out in outputs]
        radial_weights, state = edges.weights(radial_kernels)

        def block(state: Any, neighbors: Array, rows: Array, *harmonics: Array) -> tuple[Any, list[Array]]:
            state, weights = radial_weights(state, rows)
            return state, weighted_sums(paths, degrees, neighbors, harmonics, weights, features)

        return work_off(block, state, (neighbors, edges.rows, *harmonics))

    given = list(features), neighbors, list(harmonics), list(radial_kernels)
    if edges.table is None and neighbors.size <= EDGES_PER_BLOCK:
        return total(edges.basis, _in_blocks(neighbors.size), *given)
    of_an_edge = sum(path.mul * features[path.source].shape[1] for path in paths) * features[0].dtype.itemsize
    n_edges = BYTES_AT_ONCE // of_an_edge
    elsewhere = _at_once if neighbors.size <= n_edges else _in_blocks(n_edges)
    return jax.lax.platform_dependent(
        edges,
        *given,
        cpu=lambda edges, *given: total(edges.table or edges.basis, _in_blocks(EDGES_PER_BLOCK), *given),
        default=lambda edges, *given: total(edges.basis, elsewhere, *given),
    )


def convolve_by_kernels(
    features: Sequence[Array],
    table: tuple[Array, Array],
    edges: RadialEdges,
    harmonics: Sequence[Array],
    radial_kernels: Sequence[Any],
    paths: Sequence[Path],
    outputs: Irreps,
) -> list[Array]:
    """``convolve`` for neighbours and reverse edges ``table`` (N, K) each, by kernels of this package's own."""
    return messages(paths, outputs, table, harmonics, edges.basis.hidden(radial_kernels), features)


def convolution(backend: Backend, graph: GraphBatch) -> Callable[..., list[Array]]:
    """``convolve`` over the table of a graph, as a backend does it: to be called without the second argument."""
    if backend == "pallas":
        return functools.partial(convolve_by_kernels, table=(graph.neighbors, graph.reverse))
    return functools.partial(convolve, neighbors=graph.neighbors)


WorkOff = Callable[[Any, Any, Sequence[Array]], list[Array]]
"""Applies a function (state, rows) -> (state, results) to the rows of all atoms, in one way or another."""


def _at_once(function: Any, state: Any, rows: Sequence[Array]) -> list[Array]:
    return function(state, *rows)[1]


def _in_blocks(n_edges: int) -> WorkOff:
    return functools.partial(_scan_blocks, edges_per_block=n_edges)


def _scan_blocks(function: Any, state: Any, rows: Sequence[Array], edges_per_block: int) -> list[Array]:
    """Apply ``function`` to a state and blocks of rows, in turn; recompute it in the backward pass."""
    n, slots = rows[0].shape[:2]
    size = min(n, max(1, edges_per_block // slots))
    n_blocks = -(-n // size)
    # equal blocks waste less than full blocks and a remainder
    size = -(-n // n_blocks)
    function = jax.checkpoint(function, prevent_cse=n_blocks == 1)
    if n_blocks == 1:
        return function(state, *rows)[1]
    padding = n_blocks * size - n

    def split(x: Array) -> Array:
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(n_blocks, size, *x.shape[1:])

    _, blocks = jax.lax.scan(lambda state, block: function(state, *block), state, tuple(split(x) for x in rows))
    return [x.reshape(n_blocks * size, *x.shape[2:])[:n] for x in blocks]


def radial_network(config: Any, n_weights: int, name: str | None = None) -> RadialKernels | RadialNetwork:
    """The kernels of a layer's radial network with so many weights, in the convention of ``config``."""
    sizes = (config.radial_basis_size, *config.radial_hidden)
    if config.activation_gain:
        return RadialKernels((*sizes, n_weights), config.activation_gain, name=name)
    return RadialNetwork(sizes, n_weights, config.radial_gain, name=name)


class InteractionLayer(nn.Module):
    """One NequIP layer: linear map, message, sum over neighbours, linear map, skip, optional norm, gate.

    ``config`` supplies the sizes (``NequIPConfig``), ``backend`` says how messages are summed.
    """

    config: Any
    inputs: Irreps
    outputs: Irreps
    backend: Backend = "dense"

    @nn.compact
    def __call__(
        self,
        graph: GraphBatch,
        chunks: Chunks,
        species: Array,
        edges: RadialEdges,
        harmonics: Sequence[Array],
        head_rows: tuple[Any, Any] = (None, None),
    ) -> list[Any]:
        """Map chunks (N, 2l+1, C) of ``inputs`` to chunks of ``outputs``.

        Args:
            graph: neighbours.
            chunks: features of the atoms; none if ``inputs`` are the one-hot element.
            species: (N,) element rows.
            edges, harmonics: see ``convolve``.
            head_rows: what each atom's energy head adds to the even scalars in the two linear maps.
        """
        config, packed = self.config, self.backend != "dense"
        n_species = len(config.species)
        inputs, pre_gate = self.inputs, gated_irreps(self.outputs)
        if not chunks:
            up: list[Any] = [SpeciesLinear(n_species, n_species, name="linear_up")(species)]
            skip: list[Any] = [SpeciesLinear(n_species, pre_gate[0].mul, config.per_species_skip, name="skip")(species)]
            skip += [None] * (len(pre_gate) - 1)
        else:
            linear_up = EquivariantLinear(inputs, inputs, n_labels=config.n_labels, name="linear_up")
            up = linear_up(chunks, label_rows=head_rows[0])
            per_species = n_species if config.per_species_skip else None
            one_hot = bool(config.activation_gain)
            linear_skip = EquivariantLinear(inputs, pre_gate, per_species, one_hot_fan_in=one_hot, name="skip")
            skip = linear_skip(chunks, species)

        paths = tensor_product_paths(inputs, config.lmax, self.outputs, config.parity)
        kernels = radial_network(config, sum(path.mul for path in paths), name="radial")()
        if packed:
            # here it costs a kernel less for every irrep
            kernels = [*kernels[:-1], kernels[-1] * config.avg_n_neighbors**-0.5]
        sums = convolution(self.backend, graph)(
            up, edges=edges, harmonics=harmonics, radial_kernels=kernels, paths=paths, outputs=self.outputs
        )
        collected = tuple(
            Irrep(sum(path.mul for path in paths if path.target == i), out.l, out.p)
            for i, out in enumerate(self.outputs)
        )
        if not packed:
            sums = [m * config.avg_n_neighbors**-0.5 for m in sums]
        linear_down = EquivariantLinear(collected, pre_gate, n_labels=config.n_labels, name="linear_down")
        down = linear_down(sums, label_rows=head_rows[1])
        total = [a if b is None else a + b for a, b in zip(down, skip, strict=True)]
        if config.layer_norm:
            total = EquivariantRMSNorm(pre_gate, packed=packed, name="norm")(total)
        return gate(total, self.outputs, config.activation_gain)
