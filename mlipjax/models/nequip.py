"""NequIP: an E(3)-equivariant message-passing potential in the dense neighbour layout.

Architecture of Batzner et al., Nat. Commun. 13, 2453 (2022), with the variations of Nequix (Koker et al., 2025,
arXiv 2508.16067): optional equivariant RMS norm, SiLU gates, shared or per-element skip connections. With the same
weights it computes what Nequix computes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlipjax.graph import GraphBatch
from mlipjax.models import limits
from mlipjax.nn import irreps as ir
from mlipjax.nn.convolution import InteractionLayer
from mlipjax.nn.radial import bessel_basis, polynomial_envelope
from mlipjax.nn.radial_table import radial_edges
from mlipjax.nn.readouts import VECTORS
from mlipjax.nn.spherical import spherical_harmonics
from mlipjax.potential import Potential
from mlipjax.typing import Array


@dataclasses.dataclass(frozen=True)
class NequIPConfig:
    """Everything that fixes a NequIP potential besides its parameters.

    Attributes:
        species: atomic numbers, ascending.
        cutoff: Å.
        hidden_irreps: features between layers, such as ``"32x0e + 16x1o"``; even scalars are required.
        lmax: highest degree of the spherical harmonics.
        n_layers: message-passing layers; the last one keeps scalars only.
        radial_basis_size, radial_hidden, radial_gain: Bessel functions, hidden sizes and initial variance gain of
            the radial networks.
        envelope_p: exponent of the polynomial envelope.
        layer_norm: whether every layer ends with an equivariant RMS norm.
        per_species_skip: whether skip connections have weights of their own for every element.
        avg_n_neighbors: mean number of neighbours in the training data; messages are divided by its root.
        scale: eV, factor of every head's output, one number or one per element.
        shift: eV, added to every atom, one number or one per element.
        heads: names of the energy heads.
    """

    species: tuple[int, ...]
    cutoff: float = 6.0
    hidden_irreps: str = "64x0e + 32x1o + 16x2e"
    lmax: int = 2
    n_layers: int = 3
    radial_basis_size: int = 8
    radial_hidden: tuple[int, ...] = (64, 64)
    radial_gain: float = 4.0
    envelope_p: float = 6.0
    layer_norm: bool = True
    per_species_skip: bool = False
    avg_n_neighbors: float = 30.0
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    heads: tuple[str, ...] = ("energy",)

    def __post_init__(self) -> None:
        limits.check_config({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        hidden = ir.parse(self.hidden_irreps)
        limits.check_work(self.n_layers, hidden, self.lmax)
        if hidden[:1] == () or hidden[0].kind != (0, 1):
            raise ValueError(f"hidden_irreps needs even scalars ('MULx0e'), found {self.hidden_irreps!r}")
        for name in ("scale", "shift"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.species):
                raise ValueError(
                    f"{name} needs one number or one per element ({len(self.species)}), found {len(value)}"
                )

    def layer_irreps(self, layer: int) -> ir.Irreps:
        """Irreps after a layer: those of ``hidden_irreps`` that its paths reach, scalars only after the last one."""
        hidden = ir.parse(self.hidden_irreps)
        if layer == self.n_layers - 1:
            return hidden[:1]
        # the first layer makes no irreps of unnatural parity such as 1e: a species is a scalar
        inputs = self.layer_irreps(layer - 1) if layer > 0 else (ir.Irrep(1, 0, 1),)
        reached = {path.target for path in ir.tensor_product_paths(inputs, self.lmax, hidden)}
        return tuple(irrep for target, irrep in enumerate(hidden) if target in reached)


class NequIP(nn.Module):
    """The network: edges in, per-atom head energies (N, H) in eV and scalar features of all layers (N, F) out."""

    config: NequIPConfig

    @property
    def feature_sizes(self) -> tuple[int, ...]:
        """Scalar channels of each layer."""
        return tuple(self.config.layer_irreps(layer)[0].mul for layer in range(self.config.n_layers))

    @nn.compact
    def __call__(self, graph: GraphBatch, vectors: Array, species: Array) -> tuple[Array, Array]:
        """Evaluate on edge vectors (N, K, 3) Å, zero in unused slots, and element rows (N,)."""
        config = self.config
        squared = jnp.sum(vectors * vectors, axis=-1)
        # an unused slot gets distance 1 and a zero basis: finite values and exactly zero gradients
        distance = jnp.sqrt(jnp.where(graph.edge_mask, squared, 1.0))
        widest = (config.radial_basis_size, *config.radial_hidden)[-1]
        edges = radial_edges(self._basis, distance, graph.edge_mask, config.cutoff, widest)
        harmonics = spherical_harmonics(vectors / distance[..., None], config.lmax)

        chunks: list[Any] = []
        scalars = []
        inputs: ir.Irreps | None = None
        polar_vectors = None
        for layer in range(config.n_layers):
            outputs = config.layer_irreps(layer)
            chunks = InteractionLayer(config, inputs, outputs, name=f"layer_{layer}")(
                graph, chunks, species, edges, harmonics
            )
            inputs = outputs
            scalars.append(chunks[0][:, 0, :])
            if (polar := [x for irrep, x in zip(outputs, chunks, strict=True) if irrep.kind == (1, -1)]) != []:
                polar_vectors = polar[0]
        if polar_vectors is not None:
            # a no-op unless asked for: property heads for vectors read them
            self.sow(VECTORS, "vectors", polar_vectors)
        energies = [
            nn.Dense(1, use_bias=False, kernel_init=nn.initializers.normal(1.0), name=f"readout_{head}")(scalars[-1])
            for head in config.heads
        ]
        head_energies = jnp.concatenate(energies, axis=-1) * scalars[-1].shape[-1] ** -0.5
        scale, shift = (_per_atom(value, species, vectors.dtype) for value in (config.scale, config.shift))
        return head_energies * scale + shift, jnp.concatenate(scalars, axis=-1)

    def _basis(self, distance: Array) -> Array:
        config = self.config
        envelope = polynomial_envelope(distance, config.cutoff, config.envelope_p)
        return bessel_basis(distance, config.radial_basis_size, config.cutoff) * envelope[..., None]


def _per_atom(value: float | tuple[float, ...], species: Array, dtype) -> Array:
    table = np.atleast_1d(np.asarray(value, np.float64)).astype(dtype)
    return jnp.asarray(table)[species if len(table) > 1 else jnp.zeros_like(species)][:, None]


def nequip(config: NequIPConfig, e0s: np.ndarray | None = None) -> Potential:
    """Build a NequIP potential.

    Args:
        config: architecture.
        e0s: (n_species,) or (n_heads, n_species) isolated-atom energies in eV; zero by default.

    Raises:
        ValueError: if ``e0s`` does not fit the species and heads.
    """
    return Potential.create(NequIP(config), e0s)
