"""One MACE layer (messages, symmetric powers, skip connection) and the readout of all layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mlipjax.defaults import Backend
from mlipjax.graph import GraphBatch
from mlipjax.nn.convolution import convolution
from mlipjax.nn.irreps import Irrep, Irreps, tensor_product_paths
from mlipjax.nn.linear import Chunks, EquivariantLinear, SpeciesLinear, gate, gated_irreps
from mlipjax.nn.pair_network import ElementPairs, EnvelopedEdges, NormedLayer, PairNetwork, apply_layers
from mlipjax.nn.radial import RadialKernels
from mlipjax.nn.radial_table import RadialEdges
from mlipjax.nn.symmetric_contraction import coupling_paths, independent_basis, path_matrix, symmetric_contraction
from mlipjax.typing import Array

DENSITY_HIDDEN = 64
"""Hidden units of the density of non-linear interactions, in every published model."""


class MACELayer(nn.Module):
    """Messages of all neighbours, their symmetric powers, a linear map, and the skip connection.

    ``config`` supplies the sizes (``MACEConfig``), ``backend`` says how messages are summed. The first layer
    (``layer`` 0) takes a table with one row per element instead of one per atom.
    """

    config: Any
    layer: int
    inputs: Irreps
    outputs: Irreps
    backend: Backend = "dense"

    @nn.compact
    def __call__(
        self, graph: GraphBatch, chunks: Chunks, species: Array, edges: RadialEdges, harmonics: Sequence[Array]
    ) -> list[Any]:
        """Map chunks (N or n_species, 2l+1, C) of ``inputs`` to chunks (N, 2l+1, C) of ``outputs``."""
        config, n_species = self.config, len(self.config.species)
        interaction, of_elements = config.interactions[self.layer], self.layer == 0
        up = EquivariantLinear(self.inputs, config.edge_features(self.layer), name="linear_up")(chunks)
        skip: list[Any] = [None] * len(self.outputs)
        if interaction == "nonlinear":
            skip = EquivariantLinear(self.inputs, self.outputs, name="skip")(chunks)
        elif interaction.endswith("residual"):
            rows = jnp.arange(n_species) if of_elements else species
            skip = EquivariantLinear(self.inputs, self.outputs, n_species, name="skip")(chunks, rows)
            # kernels per element are normalised by the number of elements too
            skip = [None if x is None else x * n_species**-0.5 for x in skip]
        if of_elements:
            up, skip = ([None if x is None else x[species] for x in table] for table in (up, skip))

        messages = self._messages(graph, up, species, edges, harmonics)
        kinds = self._targets()
        if interaction == "nonlinear":
            messages = self._activated(messages, up)
        elif not interaction.endswith("residual"):
            messages = EquivariantLinear(kinds, kinds, n_species, name="skip")(messages, species)
            messages = [x * n_species**-0.5 for x in messages]
        powers = SymmetricPowers(config, config.correlation[self.layer], len(self.outputs), name="product")(
            jnp.concatenate(messages, axis=1), species
        )
        result = EquivariantLinear(self.outputs, self.outputs, name="linear_out")(powers)
        return [x if s is None else x + s for x, s in zip(result, skip, strict=True)]

    def _targets(self) -> Irreps:
        """Irreps of the messages."""
        return tuple(Irrep(self.outputs[0].mul, l, (-1) ** l) for l in range(self.config.lmax + 1))

    def _messages(
        self, graph: GraphBatch, up: Chunks, species: Array, edges: RadialEdges, harmonics: Sequence[Array]
    ) -> list[Any]:
        """Sum over neighbours, mixed and normalised: (N, 2l+1, C) for l = 0..lmax, with gates if there are any."""
        config, targets = self.config, self._targets()
        nonlinear = config.interactions[self.layer] == "nonlinear"
        paths = tensor_product_paths(config.edge_features(self.layer), config.lmax, targets)
        n_weights = sum(path.mul for path in paths)
        if nonlinear:
            edges, kernels, divisor = self._of_pairs(graph, species, edges, n_weights)
        else:
            sizes = (config.radial_basis_size, *config.radial_hidden, n_weights)
            kernels, divisor = RadialKernels(sizes, config.activation_gain, name="radial")(), self._divisor(edges)
        messages = convolution(self.backend, graph)(
            up, edges=edges, harmonics=harmonics, radial_kernels=kernels, paths=paths, outputs=targets
        )
        collected = tuple(
            Irrep(sum(path.mul for path in paths if path.target == i), t.l, t.p) for i, t in enumerate(targets)
        )
        mixed = gated_irreps(targets) if nonlinear else targets
        return [x / divisor for x in EquivariantLinear(collected, mixed, name="linear_down")(messages)]

    def _divisor(self, edges: RadialEdges) -> Any:
        """Number of neighbours, or a density of them that is learned, (N, 1, 1)."""
        config = self.config
        if not config.interactions[self.layer].startswith("density"):
            return config.avg_n_neighbors
        kernel = self.param("density", nn.initializers.normal(1.0), (config.radial_basis_size, 1))
        logits = (edges.basis.rows @ kernel)[..., 0] * config.radial_basis_size**-0.5
        return jnp.sum(jnp.tanh(logits * logits), axis=-1)[:, None, None] + 1.0

    def _of_pairs(
        self, graph: GraphBatch, species: Array, edges: RadialEdges, n_weights: int
    ) -> tuple[RadialEdges, list[NormedLayer], Array]:
        """Edges and layers of a network that knows both elements, and the density (N, 1, 1) that another one learns."""
        config = self.config
        basis, envelope = edges.basis.rows[..., :-1], edges.basis.rows[..., -1]
        sender, receiver = (
            SpeciesLinear(len(config.species), self.inputs[0].mul, name=f"elements_{end}")
            for end in ("sender", "receiver")
        )
        every = jnp.arange(len(config.species))
        pairs = ElementPairs(sender(every)[:, 0, :], receiver(every)[:, 0, :], species, graph.neighbors)
        layers, first = PairNetwork((*config.radial_hidden, n_weights), name="radial")(basis, pairs)
        rows = jnp.concatenate([first, envelope[..., None]], axis=-1)
        logits = apply_layers(*PairNetwork((DENSITY_HIDDEN, 1), name="density")(basis, pairs))[..., 0]
        density = jnp.sum(jnp.tanh(logits * logits) * envelope, axis=-1)
        slope = self.param("density_slope", nn.initializers.zeros, ())
        offset = self.param("density_offset", nn.initializers.constant(20.0), ())
        return RadialEdges(EnvelopedEdges(rows)), layers, (density * slope + offset)[:, None, None]

    def _activated(self, messages: Chunks, up: Chunks) -> list[Any]:
        """Add the atom's own features to its messages, gate the sum and mix its channels."""
        config, targets = self.config, self._targets()
        own = EquivariantLinear(config.edge_features(self.layer), gated_irreps(targets), name="linear_own")(up)
        total = [m if x is None else m + x for m, x in zip(messages, own, strict=True)]
        gated = gate(total, targets, config.activation_gain, config.gate_gain)
        return EquivariantLinear(targets, targets, name="linear_mix")(gated)


class SymmetricPowers(nn.Module):
    """Symmetric powers of the messages up to ``correlation``, with weights per element and channel.

    Parameters are named ``<irrep>_<degree>``, (n_species, n_paths, C); one row if elements share them.
    """

    config: Any
    correlation: int
    n_outputs: int

    @nn.compact
    def __call__(self, x: Array, species: Array) -> list[Array]:
        """Map components (N, (lmax+1)^2, C) to (N, 2L+1, C) for L = 0..n_outputs-1."""
        rows = species if self.config.product_per_species else jnp.zeros_like(species)
        weights = []
        for l in range(self.n_outputs):
            label = Irrep(1, l, (-1) ** l).label
            weights.append(
                [self._weights(f"{label}_{nu}", l, nu, x.shape[-1])[rows] for nu in range(1, self.correlation + 1)]
            )
        return symmetric_contraction(x, weights, self.config.lmax)

    def _weights(self, name: str, l: int, degree: int, channels: int) -> Array:
        """Weights (n_species or 1, n_independent, C) of the independent polynomials."""
        config, ordered = self.config, self.config.product_basis == "ordered"
        n_rows = len(config.species) if config.product_per_species else 1
        n_paths = (
            coupling_paths(config.lmax, degree, l).shape[-1]
            if ordered
            else len(independent_basis(config.lmax, degree, l))
        )
        init = nn.initializers.normal(1.0 / max(n_paths, 1))
        weights = self.param(name, init, (n_rows, n_paths, channels))
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
        biases: whether there is a second hidden layer, and a bias after each.
    """

    network: bool
    hidden: int
    gain: float
    biases: bool = False

    @nn.compact
    def __call__(self, scalars: Sequence[Array]) -> Array:
        """Map scalars (N, C) of every layer to (N, 1)."""
        linear = scalars[:-1] if self.network else scalars
        energy = jnp.zeros((), scalars[0].dtype)
        for layer, x in enumerate(linear):
            energy = energy + self._linear(f"layer_{layer}", x, 1)
        if self.network:
            hidden = self._activated(self._linear("hidden", scalars[-1], self.hidden))
            if self.biases:
                hidden = self._activated(
                    self._linear("middle", hidden, self.hidden) + self._bias("middle", self.hidden)
                )
                energy = energy + self._bias("output", 1)
            energy = energy + self._linear("output", hidden, 1)
        return energy

    def _activated(self, x: Array) -> Array:
        return jax.nn.silu(x) * self.gain

    def _linear(self, name: str, x: Array, outputs: int) -> Array:
        kernel = self.param(name, nn.initializers.normal(1.0), (x.shape[-1], outputs))
        return x @ kernel * x.shape[-1] ** -0.5

    def _bias(self, name: str, outputs: int) -> Array:
        return self.param(f"{name}_bias", nn.initializers.zeros, (outputs,))[None, :]
