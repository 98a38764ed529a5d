"""Property heads: what turns the features of any backbone into a number per structure, or a vector per atom.

A head is data (``PropertyHead``) and its parameters are a group ``property_<name>`` beside the backbone's own, so a
head fits every architecture whose module returns invariant features; heads for vectors also need equivariant ones,
which a backbone offers with ``self.sow(VECTORS, "vectors", x)`` (NequIP: the last layer that has polar vectors).

S3 (arXiv 2601.08486) reads properties from a network on the mean of the last layer's features: ``kind="intensive"``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mlipjax.graph import GraphBatch
from mlipjax.typing import Array, Energies, Features, Float, Key, Params

VECTORS = "vectors"
"""Flax collection in which a backbone leaves polar vectors (N, 3, C)."""

GROUP = "property_"
"""Beginning of the name of a head's parameter group."""

STATISTICS = "statistics"
"""Parameters of a scalar head that are measured, not trained: mean and standard deviation of its inputs."""


@dataclasses.dataclass(frozen=True)
class PropertyHead:
    """A head by name; all that is needed to rebuild it besides its parameters.

    The network works in standard units: an intensive property is ``mean + std · network``, an extensive one the sum
    of ``mean + std · network`` over atoms, so ``mean`` and ``std`` are those of the property *per atom* there.

    Attributes:
        name: of the property.
        kind: "intensive" (network on the mean features of a structure), "extensive" (sum of a network on every
            atom's features) or "vector" (a polar vector per atom, such as the noise to take away in denoising).
        hidden: sizes of the hidden layers.
        layers: features it reads: of the "last" layer or of "all".
        mean, std: of the training targets, in ``unit``; a vector has mean 0.
        unit: of the property, for reports.
    """

    name: str
    kind: Literal["intensive", "extensive", "vector"] = "intensive"
    hidden: tuple[int, ...] = (64, 64)
    layers: Literal["last", "all"] = "last"
    mean: float = 0.0
    std: float = 1.0
    unit: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"a property is called by letters, digits and '_', found {self.name!r}.")
        if self.kind not in ("intensive", "extensive", "vector") or self.layers not in ("last", "all"):
            raise ValueError(f"property {self.name!r}: unknown kind {self.kind!r} or layers {self.layers!r}.")
        if not self.std > 0.0 or any(size < 1 for size in self.hidden):
            raise ValueError(f"property {self.name!r}: std {self.std} and hidden sizes {self.hidden} must be positive.")
        if self.kind == "vector" and self.mean != 0.0:
            raise ValueError(f"property {self.name!r}: a mean vector other than 0 is not equivariant.")

    @property
    def group(self) -> str:
        """Name of its parameter group."""
        return GROUP + self.name

    def select(self, features: Float[Array, "N F"], last: slice) -> Float[Array, "N chosen"]:
        """Columns of ``features`` that the head reads; ``last`` are those of the last layer."""
        return features[:, last] if self.layers == "last" else features


def init_head(head: PropertyHead, key: Key, n_features: int, n_vectors: int, dtype) -> Params:
    """Return fresh parameters of a head for a backbone with so many scalar features and vector channels.

    A scalar head standardises its inputs with ``statistics``, which are never trained: mean 0 and std 1 until
    ``input_moments`` of training structures take their place. Normalised features differ little from one structure
    to the next; without this the head would take thousands of steps to see the difference.
    """
    features = jnp.zeros((1, n_features))
    params: dict[str, Any]
    if head.kind == "vector":
        params = {"network": _Vector(head.hidden).init(key, features, jnp.zeros((1, 3, n_vectors)))["params"]}
    else:
        statistics = {"mean": jnp.zeros(n_features), "std": jnp.ones(n_features)}
        params = {"network": _Network(head.hidden, 1).init(key, features)["params"], STATISTICS: statistics}
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def input_moments(head: PropertyHead, graph: GraphBatch, features: Features) -> tuple[Array, Array, Array]:
    """Count, sum and sum of squares (F',) of a scalar head's inputs in a batch, to be added up over batches.

    Args:
        head: which one.
        graph: structures.
        features: (N, F') as ``head.select`` returns; rows of padding atoms are zero.
    """
    inputs = features if head.kind == "extensive" else _pool(graph, features)
    count = jnp.sum(graph.atom_mask) if head.kind == "extensive" else jnp.sum(graph.graph_mask)
    return count, jnp.sum(inputs, axis=0), jnp.sum(inputs**2, axis=0)


def read_scalar(head: PropertyHead, params: Params, graph: GraphBatch, features: Features) -> Energies:
    """Predict an intensive or extensive property: (G,) in its unit, 0 for padding structures.

    Args:
        head: which one.
        params: its own group.
        graph: structures.
        features: (N, F') as ``head.select`` returns; rows of padding atoms are zero.
    """
    statistics = params[STATISTICS]

    def network(values: Array) -> Any:
        inputs = (values - statistics["mean"][None, :]) / statistics["std"][None, :]
        return _Network(head.hidden, 1).apply({"params": params["network"]}, inputs)

    if head.kind == "extensive":
        per_atom = head.mean + head.std * network(features)[:, 0]
        return _total(graph, jnp.where(graph.atom_mask, per_atom, 0.0))
    values = head.mean + head.std * network(_pool(graph, features))[:, 0]
    return jnp.where(graph.graph_mask, values, 0.0)


def _total(graph: GraphBatch, values: Array) -> Array:
    n_graphs = graph.cells.shape[0]
    return jax.ops.segment_sum(values, graph.graph_index, n_graphs, indices_are_sorted=True)


def _pool(graph: GraphBatch, features: Features) -> Float[Array, "G F"]:
    """Mean over the atoms of every structure, 0 for padding structures."""
    count = jnp.maximum(graph.n_atoms, 1).astype(features.dtype)
    return _total(graph, jnp.where(graph.atom_mask[:, None], features, 0.0)) / count[:, None]


def read_vector(
    head: PropertyHead, params: Params, graph: GraphBatch, features: Features, vectors: Float[Array, "N 3 C"]
) -> Float[Array, "N 3"]:
    """Predict a polar vector per atom, in the head's unit; 0 for padding atoms."""
    found: Any = _Vector(head.hidden).apply({"params": params["network"]}, features, vectors)
    return jnp.where(graph.atom_mask[:, None], head.std * found, 0.0)


class _Network(nn.Module):
    """Layers with SiLU between them."""

    hidden: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for number, size in enumerate(self.hidden):
            x = nn.silu(nn.Dense(size, param_dtype=x.dtype, name=f"hidden_{number}")(x))
        return nn.Dense(self.outputs, param_dtype=x.dtype, name="output")(x)


class _Vector(nn.Module):
    """``Σ_c g_c(scalars) v_c / sqrt(C)``: invariant gates keep the sum of vectors equivariant."""

    hidden: tuple[int, ...]

    @nn.compact
    def __call__(self, features: Array, vectors: Array) -> Array:
        channels = vectors.shape[-1]
        gates = _Network(self.hidden, channels, name="gates")(features)
        return jnp.sum(vectors * gates[:, None, :], axis=-1) * channels**-0.5
