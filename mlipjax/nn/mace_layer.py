"""One MACE layer (messages, symmetric powers, skip connection) and the readout of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mlipjax.graph import GraphBatch
from mlipjax.nn.convolution import convolve
from mlipjax.nn.irreps import Irrep, Irreps, tensor_product_paths
from mlipjax.nn.linear import Chunks, EquivariantLinear
from mlipjax.nn.radial import RadialKernels
from mlipjax.nn.radial_table import RadialEdges
from mlipjax.nn.symmetric_contraction import coupling_paths, independent_basis, path_matrix, symmetric_contraction
from mlipjax.typing import Array


class MACELayer(nn.Module):
    """Messages of all neighbours, their symmetric powers, a linear map, and the skip connection.

    ``config`` supplies the sizes (``MACEConfig``). The first layer (``layer`` 0) takes a table with one row per
    element instead of one per atom.
    """

    config: Any
    layer: int
    inputs: Irreps
    outputs: Irreps

    @nn.compact
    def __call__(
        self, graph: GraphBatch, chunks: Chunks, species: Array, edges: RadialEdges, harmonics: Sequence[Array]
    ) -> list[Any]:
        """Map chunks (N or n_species, 2l+1, C) of ``inputs`` to chunks (N, 2l+1, C) of ``outputs``."""
        config, n_species = self.config, len(self.config.species)
        interaction = config.interactions[self.layer]
        up = EquivariantLinear(self.inputs, self.inputs, name="linear_up")(chunks)
        skip: list[Any] = [None] * len(self.outputs)
        if interaction.endswith("residual"):
            rows = jnp.arange(n_species) if self.layer == 0 else species
            skip = EquivariantLinear(self.inputs, self.outputs, n_species, name="skip")(chunks, rows)
        if self.layer == 0:
            up, skip = ([None if x is None else x[species] for x in table] for table in (up, skip))

        messages = self._messages(graph, up, edges, harmonics)
        if not interaction.endswith("residual"):
            kinds = tuple(Irrep(self.outputs[0].mul, l, (-1) ** l) for l in range(config.lmax + 1))
            messages = EquivariantLinear(kinds, kinds, n_species, name="skip")(messages, species)
            messages = [x * n_species**-0.5 for x in messages]
        powers = SymmetricPowers(config, config.correlation[self.layer], len(self.outputs), name="product")(
            jnp.concatenate(messages, axis=1), species
        )
        result = EquivariantLinear(self.outputs, self.outputs, name="linear_out")(powers)
        # kernels per element are normalised by the number of elements too
        return [x if s is None else x + s * n_species**-0.5 for x, s in zip(result, skip, strict=True)]

    def _messages(self, graph: GraphBatch, up: Chunks, edges: RadialEdges, harmonics: Sequence[Array]) -> list[Any]:
        """Sum over neighbours, mixed and normalised: (N, 2l+1, C) for l = 0..lmax."""
        config = self.config
        targets = tuple(Irrep(self.inputs[0].mul, l, (-1) ** l) for l in range(config.lmax + 1))
        paths = tensor_product_paths(self.inputs, config.lmax, targets)
        sizes = (config.radial_basis_size, *config.radial_hidden, sum(path.mul for path in paths))
        kernels = RadialKernels(sizes, config.activation_gain, name="radial")()
        messages = convolve(up, graph.neighbors, edges, harmonics, kernels, paths, targets)
        collected = tuple(
            Irrep(sum(path.mul for path in paths if path.target == i), t.l, t.p) for i, t in enumerate(targets)
        )
        messages = EquivariantLinear(collected, targets, name="linear_down")(messages)
        if config.interactions[self.layer].startswith("density"):
            kernel = self.param("density", nn.initializers.normal(1.0), (config.radial_basis_size, 1))
            logits = (edges.basis.rows @ kernel)[..., 0] * config.radial_basis_size**-0.5
            divisor = jnp.sum(jnp.tanh(logits * logits), axis=-1)[:, None, None] + 1.0
        else:
            divisor = config.avg_n_neighbors
        return [x / divisor for x in messages]


class SymmetricPowers(nn.Module):
    """Symmetric powers of the messages up to ``correlation``, with weights per element and channel.

    Parameters are named ``<irrep>_<degree>``, (n_species, n_paths, C).
    """

    config: Any
    correlation: int
    n_outputs: int

    @nn.compact
    def __call__(self, x: Array, species: Array) -> list[Array]:
        """Map components (N, (lmax+1)^2, C) to (N, 2L+1, C) for L = 0..n_outputs-1."""
        config = self.config
        weights = []
        for l in range(self.n_outputs):
            label = Irrep(1, l, (-1) ** l).label
            weights.append(
                [self._weights(f"{label}_{nu}", l, nu, x.shape[-1])[species] for nu in range(1, self.correlation + 1)]
            )
        return symmetric_contraction(x, weights, config.lmax)

    def _weights(self, name: str, l: int, degree: int, channels: int) -> Array:
        """Weights (n_species, n_independent, C) of the independent polynomials."""
        config, ordered = self.config, self.config.product_basis == "ordered"
        n_paths = (
            coupling_paths(config.lmax, degree, l).shape[-1]
            if ordered
            else len(independent_basis(config.lmax, degree, l))
        )
        init = nn.initializers.normal(1.0 / max(n_paths, 1))
        weights = self.param(name, init, (len(config.species), n_paths, channels))
        if not ordered:
            return weights
        matrix = path_matrix(config.lmax, degree, l, config.constants)
        return jnp.einsum("pk,zkc->zpc", jnp.asarray(matrix, weights.dtype), weights)


class MACEReadout(nn.Module):
    """Energy of one head: linear in the scalars of each layer, but a small network for the last one.

    Attributes:
        network: whether the last layer has a network (it has, unless it is the only layer).
        hidden: its hidden units.
        gain: factor after SiLU.
    """

    network: bool
    hidden: int
    gain: float

    @nn.compact
    def __call__(self, scalars: Sequence[Array]) -> Array:
        """Map scalars (N, C) of every layer to (N, 1)."""
        linear = scalars[:-1] if self.network else scalars
        energy = jnp.zeros((), scalars[0].dtype)
        for layer, x in enumerate(linear):
            energy = energy + self._linear(f"layer_{layer}", x, 1)
        if self.network:
            hidden = jax.nn.silu(self._linear("hidden", scalars[-1], self.hidden)) * self.gain
            energy = energy + self._linear("output", hidden, 1)
        return energy

    def _linear(self, name: str, x: Array, outputs: int) -> Array:
        kernel = self.param(name, nn.initializers.normal(1.0), (x.shape[-1], outputs))
        return x @ kernel * x.shape[-1] ** -0.5
