"""NequIP: an E(3)-equivariant message-passing potential in the dense neighbour layout.

Architecture of Batzner et al., Nat. Commun. 13, 2453 (2022), with the variations of Nequix (Koker et al., 2025,
arXiv 2508.16067): optional equivariant RMS norm, SiLU gates, shared or per-element skip connections; and those of
SevenNet (Park et al., J. Chem. Theory Comput. 20, 4857 (2024)): an embedding of the element before the first layer,
trained radial frequencies, features without parity, energy heads that also reach into the layers. With the same
weights it computes what Nequix and SevenNet compute.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import Backend
from mlipjax.graph import GraphBatch
from mlipjax.models import limits
from mlipjax.nn import irreps as ir
from mlipjax.nn.convolution import InteractionLayer
from mlipjax.nn.linear import SpeciesLinear, gated_irreps
from mlipjax.nn.pair_repulsion import nuclear_repulsion
from mlipjax.nn.radial import (
    TrainableFrequencies,
    bessel_basis,
    bessel_frequencies,
    polynomial_envelope,
    xplor_envelope,
)
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
        trainable_frequencies: whether the frequencies of the Bessel functions are parameters.
        envelope_onset: Å where an XPLOR switch to the cutoff begins, in place of the polynomial; 0 for none.
        parity: whether features are even or odd. Without it all are "e", products of any parity are allowed, and the
            energy of a chiral structure may differ from that of its mirror image.
        solid_harmonics: whether harmonics of degree l are multiplied by the l-th power of the distance in Å.
        activation_gain: factor after every SiLU; radial kernels then have unit variance, and all elements count in the
            fan-in of per-species skips (e3nn's torch code). 0 for Nequix's: the norm of SiLU at the gates, the scale in
            the radial kernels.
        embedding: scalars that the element is mapped to before the first layer; 0 for none.
        readout_channels: channels between the two linear maps of a readout; 0 for one map.
        n_labels: sets of labels that the model was trained on at once, if their one-hot vector was an input of the
            linear maps of its layers: every head then has rows of those maps. 0 for none.
        zbl: whether a screened nuclear repulsion is added, as in MACE: nothing beyond the sum of two covalent radii.
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
    trainable_frequencies: bool = False
    envelope_onset: float = 0.0
    parity: bool = True
    solid_harmonics: bool = False
    activation_gain: float = 0.0
    embedding: int = 0
    readout_channels: int = 0
    n_labels: int = 0
    zbl: bool = False

    def __post_init__(self) -> None:
        limits.check_config({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        hidden = ir.parse(self.hidden_irreps)
        limits.check_work(self.n_layers, hidden, self.lmax, self.parity)
        if hidden[:1] == () or hidden[0].kind != (0, 1):
            raise ValueError(f"hidden_irreps needs even scalars ('MULx0e'), found {self.hidden_irreps!r}")
        if not self.parity and any(irrep.p < 0 for irrep in hidden):
            raise ValueError(f"hidden_irreps of a model without parity are all 'e', found {self.hidden_irreps!r}")
        if self.envelope_onset >= self.cutoff:
            raise ValueError(f"envelope_onset must be below the cutoff of {self.cutoff} Å, found {self.envelope_onset}")
        if self.n_labels and not self.embedding:
            raise ValueError("n_labels needs an embedding: only linear maps of features have rows of heads")
        for name in ("scale", "shift"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != len(self.species):
                raise ValueError(
                    f"{name} needs one number or one per element ({len(self.species)}), found {len(value)}"
                )

    def __repr__(self) -> str:
        # stores and checkpoints know a model by it: settings that came later, after the heads, show only where used
        fields = {f.name: (getattr(self, f.name), f.default) for f in dataclasses.fields(self)}
        later = list(fields).index("heads") + 1
        shown = [f"{name}={v!r}" for i, (name, (v, default)) in enumerate(fields.items()) if i < later or v != default]
        return f"NequIPConfig({', '.join(shown)})"

    def layer_irreps(self, layer: int) -> ir.Irreps:
        """Irreps after a layer: those of ``hidden_irreps`` that its paths reach, scalars only after the last one."""
        hidden = ir.parse(self.hidden_irreps)
        if layer == self.n_layers - 1:
            return hidden[:1]
        # the first layer makes no irreps of unnatural parity such as 1e: a species is a scalar
        reached = {p.target for p in ir.tensor_product_paths(self.input_irreps(layer), self.lmax, hidden, self.parity)}
        return tuple(irrep for target, irrep in enumerate(hidden) if target in reached)

    def input_irreps(self, layer: int) -> ir.Irreps:
        """Irreps before a layer: of the one before it, or of the element (its embedding, or the one-hot vector)."""
        return self.layer_irreps(layer - 1) if layer else (ir.Irrep(self.embedding or len(self.species), 0, 1),)


class NequIP(nn.Module):
    """The network: edges in, per-atom head energies (N, H) in eV and scalar features of all layers (N, F) out."""

    config: NequIPConfig
    backend: Backend = "dense"

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
        frequencies = None
        if config.trainable_frequencies:
            frequencies = TrainableFrequencies(config.radial_basis_size, config.cutoff, name="embedding_radial")()
        basis = functools.partial(radial_basis, config, frequencies)
        kinks = (config.envelope_onset,) if config.envelope_onset else ()
        edges = radial_edges(basis, distance, graph.edge_mask, config.cutoff, widest, kinks)
        harmonics = edge_harmonics(config, vectors, distance)

        heads = [NequIPHead(config, name=f"readout_{head}") for head in config.heads]
        chunks: list[Any] = []
        if config.embedding:
            chunks = [SpeciesLinear(len(config.species), config.embedding, name="embedding")(species)]
        scalars = []
        polar_vectors = None
        for layer in range(config.n_layers):
            inputs, outputs = config.input_irreps(layer), config.layer_irreps(layer)
            rows = _rows_of_atoms([head.rows[layer] for head in heads], graph) if config.n_labels else (None, None)
            chunks = InteractionLayer(config, inputs, outputs, self.backend, name=f"layer_{layer}")(
                graph, chunks, species, edges, harmonics, rows
            )
            scalars.append(chunks[0][:, 0, :])
            vector = (1, -1 if config.parity else 1)
            if (polar := [x for irrep, x in zip(outputs, chunks, strict=True) if irrep.kind == vector]) != []:
                polar_vectors = polar[0]
        if polar_vectors is not None:
            # a no-op unless asked for: property heads for vectors read them
            self.sow(VECTORS, "vectors", polar_vectors)
        head_energies = jnp.concatenate([head(scalars[-1]) for head in heads], axis=-1) * scalars[-1].shape[-1] ** -0.5
        scale, shift = (_per_atom(value, species, vectors.dtype) for value in (config.scale, config.shift))
        head_energies = head_energies * scale + shift
        if config.zbl:
            repulsion = nuclear_repulsion(graph, distance, species, config.species)
            head_energies = head_energies + repulsion[:, None]
        return head_energies, jnp.concatenate(scalars, axis=-1)


class NequIPHead(nn.Module):
    """All that belongs to one energy head: its readout, and its rows of the linear maps of the layers, if it has any.

    Attributes:
        config: of the model.
    """

    config: NequIPConfig

    def setup(self) -> None:
        """Name the parameters."""
        config = self.config
        # the same numbers from a key wherever double precision is allowed too
        normal = functools.partial(nn.initializers.normal(1.0), dtype=jnp.float32)
        channels, hidden = config.layer_irreps(config.n_layers - 1)[0].mul, config.readout_channels
        if hidden:
            self.kernels = [
                self.param("hidden", normal, (channels, hidden)),
                self.param("output", normal, (hidden, 1)),
            ]
        else:
            self.kernels = [self.param("kernel", normal, (channels, 1))]
        self.rows = [
            [self.param(f"layer_{layer}_{name}", normal, (size,)) for name, size in sizes.items()]
            for layer, sizes in enumerate(head_row_sizes(config))
        ]

    def __call__(self, scalars: Array) -> Array:
        """Map scalars (N, C) of the last layer to energies (N, 1), but for the factor of the first map."""
        energy = scalars @ self.kernels[0]
        for kernel in self.kernels[1:]:
            energy = energy @ kernel * kernel.shape[0] ** -0.5
        return energy


def head_row_sizes(config: NequIPConfig) -> list[dict[str, int]]:
    """Even scalars that a head adds to after the first ("up") and second ("down") linear map of every layer."""
    if not config.n_labels:
        return []
    return [
        {"up": config.input_irreps(layer)[0].mul, "down": gated_irreps(config.layer_irreps(layer))[0].mul}
        for layer in range(config.n_layers)
    ]


def _rows_of_atoms(rows_of_heads: list[Any], graph: GraphBatch) -> tuple[Any, Any]:
    """Rows (N, C) of the head that each atom's structure is evaluated with, for both maps of a layer."""
    head = graph.head[graph.graph_index]
    up, down = (jnp.stack(rows)[head] for rows in zip(*rows_of_heads, strict=True))
    return up, down


def radial_basis(config: NequIPConfig, frequencies: Array | None, distance: Array) -> Array:
    """Bessel functions times the envelope, (..., B), at distances (...) in Å.

    Args:
        config: of the model.
        frequencies: its parameters (B,) in 1/Å if they are trained.
        distance: positive.
    """
    if frequencies is None:
        multiples = bessel_frequencies(config.radial_basis_size, config.cutoff)
        frequencies = jnp.asarray(multiples.astype(distance.dtype))
    if config.envelope_onset:
        envelope = xplor_envelope(distance, config.envelope_onset, config.cutoff)
    else:
        envelope = polynomial_envelope(distance, config.cutoff, config.envelope_p)
    return bessel_basis(distance, frequencies, config.cutoff) * envelope[..., None]


def edge_harmonics(config: NequIPConfig, vectors: Array, distance: Array) -> list[Array]:
    """Spherical harmonics (..., 2l+1) of every degree, of vectors (..., 3) and their lengths (...) in Å."""
    directions = vectors if config.solid_harmonics else vectors / distance[..., None]
    return spherical_harmonics(directions, config.lmax)


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
