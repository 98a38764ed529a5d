"""MACE: an E(3)-equivariant message-passing potential with products of many-body order, in the dense layout.

Batatia et al., NeurIPS 2022 (arXiv 2206.07697); the universal models: Batatia et al., arXiv 2401.00096. A layer sums
messages of neighbours as NequIP does, then takes symmetric powers of each atom's sum, so that two layers see up to
13-body terms. With the same weights it computes what mace-torch computes; its parameters have NequIP's names where
they mean the same.
"""

from __future__ import annotations

import dataclasses
import functools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlipjax.defaults import Backend
from mlipjax.elements import covalent_radii
from mlipjax.graph import GraphBatch
from mlipjax.models import limits
from mlipjax.nn import irreps as ir
from mlipjax.nn.linear import SpeciesLinear
from mlipjax.nn.mace_layer import MACELayer, MACEReadout
from mlipjax.nn.pair_repulsion import zbl_energy
from mlipjax.nn.radial import polynomial_envelope
from mlipjax.nn.radial_table import RadialBasis, RadialEdges, radial_edges
from mlipjax.nn.readouts import VECTORS
from mlipjax.nn.spherical import spherical_harmonics
from mlipjax.potential import Potential
from mlipjax.reading import shown
from mlipjax.typing import Array

INTERACTIONS = ("agnostic", "residual", "density", "density_residual", "nonlinear")


@dataclasses.dataclass(frozen=True)
class MACEConfig:
    """Everything that fixes a MACE potential besides its parameters.

    Attributes:
        species: atomic numbers, ascending.
        cutoff: Å.
        hidden_irreps: features between layers, such as ``"128x0e + 128x1o"``: natural parity, equal multiplicities.
        lmax: highest degree of the spherical harmonics and of the messages.
        interactions: one per layer: "residual" adds a skip connection with weights per element, "agnostic" mixes the
            message with weights per element; "density" and "density_residual" also divide it by a learned density.
            "nonlinear" (all layers or none; arXiv 2510.25380) has radial networks that know both elements, under an
            envelope, adds the atom's own features, gates the sum, and shares its skip connection among elements.
        correlation: highest power of the messages of an atom, per layer.
        edge_irreps: what neighbours send; empty for all of their features.
        edge_irreps_first: whether the first layer too sends as many scalars as ``edge_irreps`` has.
        product_per_species: whether every element has weights of its own in the powers.
        radial_basis_size, radial_hidden: Bessel functions and hidden sizes of the radial networks.
        envelope_p: exponent of the polynomial envelope.
        bessel_frequencies: 1/Å; empty for the multiples of pi / cutoff.
        avg_n_neighbors: mean number of neighbours in the training data; messages are divided by it.
        activation_gain: factor after every SiLU; the default gives it unit second moment as e3nn's torch code does.
            Radial networks of "nonlinear" layers have none.
        gate_gain: likewise of the sigmoid of "nonlinear" layers.
        distance_transform: "none", "agnesi" or "soft".
        transform_constants: a, q, p of "agnesi", or alpha of "soft".
        zbl: whether a screened nuclear repulsion is added.
        zbl_constants: exponent and prefactor of its screening length.
        zbl_envelope_p: exponent of its polynomial envelope.
        readout_hidden: hidden units per head of the last layer's readout.
        readout_biases: whether that readout has a second hidden layer, and biases.
        last_readout_only: whether the other layers have no readout.
        scale: eV, factor of a head's output, one number or one per head; heads added later take the first one.
        shift: eV, added to every atom, likewise.
        heads: names of the energy heads.
        product_basis: "ordered" for the published weights of the powers, one per coupling of ordered factors;
            "independent" for one per linearly independent polynomial.
        constants: precision in which the weights' authors stored constants such as Bessel frequencies.
    """

    species: tuple[int, ...]
    cutoff: float = 5.0
    hidden_irreps: str = "128x0e"
    lmax: int = 3
    interactions: tuple[str, ...] = ("residual", "residual")
    correlation: tuple[int, ...] = (3, 3)
    edge_irreps: str = ""
    edge_irreps_first: bool = False
    product_per_species: bool = True
    radial_basis_size: int = 8
    radial_hidden: tuple[int, ...] = (64, 64, 64)
    envelope_p: float = 5.0
    bessel_frequencies: tuple[float, ...] = ()
    avg_n_neighbors: float = 30.0
    activation_gain: float = 1.6791767923989418
    gate_gain: float = 1.8467055342154763
    distance_transform: str = "none"
    transform_constants: tuple[float, ...] = ()
    zbl: bool = False
    zbl_constants: tuple[float, ...] = (0.3, 0.4543)
    zbl_envelope_p: float = 5.0
    readout_hidden: int = 16
    readout_biases: bool = False
    last_readout_only: bool = False
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    heads: tuple[str, ...] = ("energy",)
    product_basis: str = "ordered"
    constants: str = "float64"

    def __post_init__(self) -> None:
        limits.check_config({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        hidden = ir.parse(self.hidden_irreps)
        natural = [(l, (-1) ** l) for l in range(len(hidden))]
        if [i.kind for i in hidden] != natural or len({i.mul for i in hidden}) != 1 or len(hidden) > self.lmax + 1:
            raise ValueError(
                f"hidden_irreps must be 'Cx0e + Cx1o + ...' up to l = {self.lmax}, found {self.hidden_irreps!r}"
            )
        edge = ir.parse(self.edge_irreps) if self.edge_irreps else ()
        if [i.kind for i in edge] != natural[: len(edge)]:
            raise ValueError(f"edge_irreps must be like hidden_irreps, or fewer of them; found {self.edge_irreps!r}")
        self._check_layers()
        if len(self.bessel_frequencies) not in (0, self.radial_basis_size):
            raise ValueError(
                f"{self.radial_basis_size} Bessel frequencies are needed, found {len(self.bessel_frequencies)}"
            )
        if (couplings := (self.lmax + 1) ** (2 * max(self.correlation))) > limits.MAX_COUPLINGS:
            raise ValueError(
                f"correlation {max(self.correlation)} of messages up to lmax = {self.lmax} makes {couplings} products; "
                f"at most {limits.MAX_COUPLINGS} are possible"
            )
        needed = {"none": 0, "agnesi": 3, "soft": 1}.get(self.distance_transform)
        if needed != len(self.transform_constants):
            raise ValueError(
                "distance_transform is 'none', 'agnesi' with 3 constants or 'soft' with 1, "
                f"found {shown(self.distance_transform)} with {len(self.transform_constants)}"
            )
        if self.product_basis not in ("ordered", "independent") or self.constants not in ("float32", "float64"):
            raise ValueError(f"unknown product_basis {shown(self.product_basis)} or constants {shown(self.constants)}")

    def _check_layers(self) -> None:
        kinds = self.interactions
        if not isinstance(kinds, tuple) or len(self.correlation) != len(kinds) or not kinds:
            raise ValueError(
                f"each layer needs an interaction and a correlation, found {shown(kinds)}, {shown(self.correlation)}"
            )
        if unknown := [kind for kind in kinds if kind not in INTERACTIONS]:
            raise ValueError(f"unknown interactions {shown(unknown)}; known: {', '.join(INTERACTIONS)}")
        if "nonlinear" in kinds and len(set(kinds)) > 1:
            raise ValueError(f"all interactions are nonlinear or none is, found {shown(kinds)}")
        if self.nonlinear and not self.radial_hidden:
            raise ValueError("nonlinear interactions need hidden units in radial_hidden, found none")

    @property
    def n_layers(self) -> int:
        """Number of message-passing layers."""
        return len(self.interactions)

    @property
    def nonlinear(self) -> bool:
        """Tell whether the interactions are "nonlinear"."""
        return self.interactions[0] == "nonlinear"

    @property
    def one_radial_function(self) -> bool:
        """Tell whether the radial basis depends on the distance alone and serves the radial networks alone."""
        return self.distance_transform == "none" and set(self.interactions) <= {"agnostic", "residual"}

    def layer_irreps(self, layer: int) -> ir.Irreps:
        """Irreps after a layer: ``hidden_irreps``, scalars only after the last one."""
        hidden = ir.parse(self.hidden_irreps)
        return hidden[:1] if layer == self.n_layers - 1 else hidden

    def edge_features(self, layer: int) -> ir.Irreps:
        """Irreps that neighbours send in a layer; the features before the first one are scalars."""
        first, scalars = layer == 0, ir.parse(self.hidden_irreps)[:1]
        if not self.edge_irreps or (first and not self.edge_irreps_first):
            return scalars if first else self.layer_irreps(layer - 1)
        edge = ir.parse(self.edge_irreps)
        return edge[:1] if first else edge


class MACE(nn.Module):
    """The network: edges in, per-atom head energies (N, H) in eV and scalar features of all layers (N, F) out."""

    config: MACEConfig
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
        edges, pair_energy = self._edges(graph, distance, species)
        # edges of the published models point from the neighbour to the atom
        harmonics = spherical_harmonics(-vectors / distance[..., None], config.lmax)

        n_species = len(config.species)
        # the first layer's input is a row of a table, and so is all that depends on nothing else
        chunks = [SpeciesLinear(n_species, config.layer_irreps(0)[0].mul, name="embedding")(jnp.arange(n_species))]
        inputs = config.layer_irreps(0)[:1]
        scalars, polar_vectors = [], None
        for layer in range(config.n_layers):
            outputs = config.layer_irreps(layer)
            chunks = MACELayer(config, layer, inputs, outputs, self.backend, name=f"layer_{layer}")(
                graph, chunks, species, edges, harmonics
            )
            inputs = outputs
            scalars.append(chunks[0][:, 0, :])
            if len(chunks) > 1:
                polar_vectors = chunks[1]
        if polar_vectors is not None:
            # a no-op unless asked for: property heads for vectors read them
            self.sow(VECTORS, "vectors", polar_vectors)
        readout = functools.partial(
            MACEReadout, config.n_layers > 1, config.readout_hidden, config.activation_gain, config.readout_biases
        )
        read = scalars[-1:] if config.last_readout_only else scalars
        energies = [readout(name=f"readout_{head}")(read) for head in config.heads]
        head_energies = jnp.concatenate(energies, axis=-1) + pair_energy[:, None]
        scale, shift = (_per_head(value, len(config.heads), vectors.dtype) for value in (config.scale, config.shift))
        return head_energies * scale[None, :] + shift[None, :], jnp.concatenate(scalars, axis=-1)

    def _edges(self, graph: GraphBatch, distance: Array, species: Array) -> tuple[RadialEdges, Array]:
        """Radial weights' source for (N, K) edges, and the pair energy of each atom (N,)."""
        config, dtype = self.config, distance.dtype
        pair_energy = jnp.zeros(distance.shape[:1], dtype)
        transformed = distance
        if config.zbl or config.distance_transform != "none":
            radius = self._constant(covalent_radii(config.species), dtype)[species]
            bond = radius[:, None] + radius[graph.neighbors]
            constants = tuple(float(np.dtype(config.constants).type(value)) for value in config.transform_constants)
            if config.distance_transform == "agnesi":
                transformed = agnesi_transform(distance, bond, *constants)
            elif config.distance_transform == "soft":
                transformed = soft_transform(distance, bond, *constants)
            if config.zbl:
                charge = jnp.asarray(np.asarray(config.species, np.float64).astype(dtype))[species]
                exponent, prefactor = (float(np.dtype(config.constants).type(v)) for v in config.zbl_constants)
                pairs = zbl_energy(
                    distance,
                    (charge[:, None], charge[graph.neighbors]),
                    bond,
                    config.zbl_envelope_p,
                    exponent,
                    prefactor,
                )
                pair_energy = jnp.sum(jnp.where(graph.edge_mask, pairs, 0.0), axis=-1)
        if config.one_radial_function:
            widest = (config.radial_basis_size, *config.radial_hidden)[-1]
            edges = radial_edges(lambda r: self._basis(r, r), distance, graph.edge_mask, config.cutoff, widest)
        else:
            basis = self._basis(distance, transformed)
            edges = RadialEdges(RadialBasis(jnp.where(graph.edge_mask[..., None], basis, 0.0)))
        return edges, pair_energy

    def _basis(self, distance: Array, transformed: Array) -> Array:
        """Bessel functions (..., B) times the envelope, but beside it for "nonlinear" interactions."""
        config, dtype = self.config, distance.dtype
        envelope = polynomial_envelope(distance, config.cutoff, config.envelope_p)
        multiples = np.pi / config.cutoff * np.arange(1, config.radial_basis_size + 1)
        frequencies = self._constant(np.asarray(config.bessel_frequencies or multiples), dtype)
        prefactor = self._constant(np.sqrt(2.0 / config.cutoff), dtype)
        frequencies = jnp.expand_dims(frequencies, range(transformed.ndim))
        waves = jnp.sin(transformed[..., None] * frequencies)
        if config.nonlinear:
            basis = waves * (prefactor / transformed)[..., None]
            return jnp.concatenate([basis, envelope[..., None]], axis=-1)
        return waves * (prefactor * envelope / transformed)[..., None]

    def _constant(self, value: np.ndarray, dtype: np.dtype) -> Array:
        return jnp.asarray(np.asarray(value, self.config.constants).astype(dtype))


def _per_head(value: float | tuple[float, ...], n_heads: int, dtype: np.dtype) -> Array:
    values = list(np.atleast_1d(np.asarray(value, np.float64)))
    return jnp.asarray(np.asarray(values + values[:1] * (n_heads - len(values))).astype(dtype))


def mace(config: MACEConfig, e0s: np.ndarray | None = None) -> Potential:
    """Build a MACE potential.

    Args:
        config: architecture.
        e0s: (n_species,) or (n_heads, n_species) isolated-atom energies in eV; zero by default.

    Raises:
        ValueError: if ``e0s`` does not fit the species and heads.
    """
    return Potential.create(MACE(config), e0s)


def agnesi_transform(distance: Array, bond: Array, a: float, q: float, p: float) -> Array:
    """Map distances to (0, 1): ``1 / (1 + a s^q / (1 + s^(q-p)))`` with ``s = r / r0`` (J. Chem. Phys. 159, 164101).

    Args:
        distance: (...) Å, positive.
        bond: (...) sum of the covalent radii in Å; ``r0`` is half of it.
        a, q, p: shape; published models have 1.0805, 0.9183, 4.5791.
    """
    s = distance / (0.5 * bond)
    return 1.0 / (1.0 + a * s**q / (1.0 + s ** (q - p)))


def soft_transform(distance: Array, bond: Array, alpha: float) -> Array:
    """Leave distances beyond ``4/3 r0`` as they are and hold shorter ones near ``3/4 r0`` (r0: sum of the radii)."""
    low, high = 0.75 * bond, 4.0 / 3.0 * bond
    step = 0.5 * (1.0 + jnp.tanh(alpha / (high - low) * (distance - 0.5 * (low + high))))
    return low + (distance - low) * step
