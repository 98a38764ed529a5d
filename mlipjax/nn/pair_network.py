"""Radial networks that know the elements of both atoms, with biases and layer norms: those of non-linear MACE.

Batatia et al., arXiv 2510.25380. The radial basis of an edge, a vector of the sender's element and one of the
receiver's are the input. Biases keep such a network from vanishing at the cutoff: an envelope multiplies what comes
out of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from mlipjax.nn.radial_table import RadialWeights
from mlipjax.typing import Array

_EPSILON = 1e-5
"""Of torch's layer norm."""


class NormedLayer(NamedTuple):
    """``silu(scale * norm(x) + shift) @ kernel + bias`` over the last axis."""

    scale: Array
    shift: Array
    kernel: Array
    bias: Array


def apply_layers(layers: Sequence[NormedLayer], x: Array) -> Array:
    """Evaluate the layers one after the other: (..., inputs of the first) to (..., outputs of the last)."""
    for layer in layers:
        kernel, bias = layer.kernel, jnp.expand_dims(layer.bias, range(x.ndim - 1))
        x = normed(layer, x) @ kernel + bias
    return x


def normed(layer: NormedLayer, x: Array) -> Array:
    """What a layer multiplies with its kernel."""
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + _EPSILON)
    # vectors on the last axis of arrays of any rank
    scale, shift = (jnp.expand_dims(v, range(x.ndim - 1)) for v in (layer.scale, layer.shift))
    return jax.nn.silu(x * scale + shift)


@flax.struct.dataclass
class EnvelopedEdges:
    """Edges whose radial weights are those of a ``PairNetwork`` times an envelope.

    Attributes:
        rows: (N, K, H + 1) inputs of the first ``NormedLayer``, then the envelope, zero in unused slots.
    """

    rows: Array

    def weights(self, layers: Sequence[NormedLayer]) -> tuple[RadialWeights, Any]:
        """Return the radial weights as a function of some atoms' ``rows`` (n, K, H + 1), and its first state."""

        def weights(state: Any, rows: Array) -> tuple[Any, Array]:
            flat = rows.reshape(-1, rows.shape[-1])
            return state, apply_layers(layers, flat[:, :-1]) * flat[:, -1:]

        return weights, None

    def hidden(self, layers: Sequence[NormedLayer]) -> tuple[Array, Array]:
        """Return factors of the radial weights: hidden units (N, K, H + 1), and a kernel with the bias as last row."""
        units, envelope = normed(layers[-1], apply_layers(layers[:-1], self.rows[..., :-1])), self.rows[..., -1:]
        kernel = jnp.concatenate([layers[-1].kernel, layers[-1].bias[None, :]])
        return jnp.concatenate([units * envelope, envelope], axis=-1), kernel


class ElementPairs(NamedTuple):
    """Vectors of the elements at both ends of every edge.

    Attributes:
        sender, receiver: (n_species, C) vectors of the elements.
        species: (N,) element rows of the atoms.
        neighbors: (N, K) indices of the senders.
    """

    sender: Array
    receiver: Array
    species: Array
    neighbors: Array

    def mapped(self, kernel: Array) -> Array:
        """Map the sender's vector beside the receiver's by a kernel (2 C, H), to (N, K, H)."""
        # products of elements, not of edges
        sent, received = self.sender @ kernel[: self.sender.shape[1]], self.receiver @ kernel[self.sender.shape[1] :]
        return sent[self.species][self.neighbors] + received[self.species][:, None, :]


class PairNetwork(nn.Module):
    """The first linear map of such a network, and the layers that follow it.

    Parameters are torch's: kernels with the variance 1 / fan_in at initialisation, zero biases.

    Attributes:
        sizes: of the hidden layers, then the number of outputs.
    """

    sizes: tuple[int, ...]

    @nn.compact
    def __call__(self, basis: Array, pairs: ElementPairs) -> tuple[list[NormedLayer], Array]:
        """Return the layers after the first map, and their input (N, K, sizes[0]) for a radial basis (N, K, B)."""
        n_basis = basis.shape[-1]
        kernel, bias = self._linear(0, n_basis + 2 * pairs.sender.shape[1], self.sizes[0])
        first = basis @ kernel[:n_basis] + pairs.mapped(kernel[n_basis:]) + bias[None, None, :]
        layers = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(self.sizes)):
            scale = self.param(f"scale_{i}", nn.initializers.ones, (fan_in,))
            shift = self.param(f"shift_{i}", nn.initializers.zeros, (fan_in,))
            layers.append(NormedLayer(scale, shift, *self._linear(i + 1, fan_in, fan_out)))
        return layers, first

    def _linear(self, number: int, fan_in: int, fan_out: int) -> tuple[Array, Array]:
        kernel = self.param(f"kernel_{number}", nn.initializers.normal(fan_in**-0.5), (fan_in, fan_out))
        return kernel, self.param(f"bias_{number}", nn.initializers.zeros, (fan_out,))
