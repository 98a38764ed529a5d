"""Equivariant linear maps, normalisation and gates on features stored as one (N, 2l+1, C) array per irrep."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.nn.irreps import Irrep, Irreps
from mlipjax.typing import Array

Chunks = Sequence[Any]
"""One (N, 2l+1, C) array per irrep; ``None`` stands for zero."""


class EquivariantLinear(nn.Module):
    """Mix the channels of every irrep that input and output share: ``y_l = x_l W_l / sqrt(fan_in)``.

    Kernels have unit variance at initialisation, the scale is in the forward pass (e3nn's convention). With
    ``n_species`` every element has kernels of its own.

    Attributes:
        inputs, outputs: irreps; an output without an input of its kind is returned as ``None``.
        n_species: number of per-element kernels, or ``None`` for shared ones.
        n_labels: length of a one-hot vector that stands beside the even scalars among the inputs.
        one_hot_fan_in: whether per-element kernels are those of a tensor product with the one-hot element, all of
            whose components count in the fan-in (e3nn's ``FullyConnectedTensorProduct``).
    """

    inputs: Irreps
    outputs: Irreps
    n_species: int | None = None
    n_labels: int = 0
    one_hot_fan_in: bool = False

    @nn.compact
    def __call__(self, chunks: Chunks, species: Array | None = None, label_rows: Array | None = None) -> list[Any]:
        """Map chunks (N, 2l+1, C_in) to (N, 2l+1, C_out).

        Args:
            chunks: one array per irrep of ``inputs``.
            species: (N,) index of per-element kernels.
            label_rows: (N, C_out of the even scalars) rows of the kernel that the one-hot vectors choose.
        """
        by_kind = {irrep.kind: (irrep.mul, x) for irrep, x in zip(self.inputs, chunks, strict=True)}
        result: list[Any] = []
        for out in self.outputs:
            fan_in, x = by_kind.get(out.kind, (0, None))
            if x is None:
                result.append(None)
                continue
            shape = (fan_in, out.mul) if self.n_species is None else (self.n_species, fan_in, out.mul)
            kernel = self.param(out.label, nn.initializers.normal(1.0), shape)
            # flat for the reason given in convolve
            mixed = x.reshape(-1, fan_in) @ kernel if self.n_species is None else x @ kernel[species]
            mixed = mixed.reshape(*x.shape[:-1], out.mul)
            if self.n_species and self.one_hot_fan_in:
                fan_in *= self.n_species
            if self.n_labels and out.kind == (0, 1):
                fan_in += self.n_labels
                mixed = mixed if label_rows is None else mixed + label_rows[:, None, :]
            result.append(mixed * fan_in**-0.5)
        return result


class SpeciesLinear(nn.Module):
    """A linear map of the one-hot element vector to scalars: a row of a table per element.

    Attributes:
        n_species: number of elements.
        features: output channels.
        per_species: whether a kernel per element is stored (of which only the element's own row is used).
    """

    n_species: int
    features: int
    per_species: bool = False

    @nn.compact
    def __call__(self, species: Array) -> Array:
        """Map element rows (N,) to scalars (N, 1, features)."""
        shape = (self.n_species, self.features)
        if self.per_species:
            table = self.param("0e", nn.initializers.normal(1.0), (self.n_species, *shape))
            rows = table[species, species]
        else:
            rows = self.param("0e", nn.initializers.normal(1.0), shape)[species]
        return rows[:, None, :] * self.n_species**-0.5


class EquivariantRMSNorm(nn.Module):
    """Divide all irreps of an atom by one common root-mean-square norm, then scale each channel.

    As in Nequix, ``norm^2 = sum_l 1/(n_irreps (2l+1)^2) sum_{m,c} x_lmc^2``: a *sum* over channels (not a mean).
    Balances degrees as the RMS norm of eSEN/EquiformerV2 does.

    Attributes:
        irreps: of the features.
        epsilon: below the root.
        packed: whether all irreps are summed together, with fewer kernels on a GPU, or one after the other.
    """

    irreps: Irreps
    epsilon: float = 1e-12
    packed: bool = False

    @nn.compact
    def __call__(self, chunks: Chunks) -> list[Any]:
        """Normalise chunks (N, 2l+1, C); ``None`` chunks count as zero."""
        parts = [(x, len(self.irreps) * i.dim**2) for i, x in zip(self.irreps, chunks, strict=True) if x is not None]
        if self.packed:
            squares = jnp.concatenate([(x * x / share).reshape(len(x), -1) for x, share in parts], axis=1)
            norm = jnp.sum(squares, axis=1)[:, None, None]
        else:
            norm = sum(jnp.sum(x * x, axis=(-2, -1), keepdims=True) / share for x, share in parts)
        inverse = jax.lax.rsqrt(norm + self.epsilon)
        inverses: list[Any] = [inverse] * len(chunks)
        if self.packed:
            sizes = [0 if x is None else x[0].size for x in chunks]
            everywhere = jnp.broadcast_to(inverse[:, 0], (len(inverse), sum(sizes)))
            parts = jnp.split(everywhere, np.cumsum(sizes)[:-1], axis=1)
            inverses = [None if x is None else part.reshape(x.shape) for part, x in zip(parts, chunks, strict=True)]

        def scaled(irrep: Irrep, x: Any, inverse: Any) -> Any:
            scale = self.param(f"scale_{irrep.label}", nn.initializers.ones, (irrep.mul,))
            return x * inverse * scale[None, None, :]

        given = zip(self.irreps, chunks, inverses, strict=True)
        return [None if x is None else scaled(irrep, x, own) for irrep, x, own in given]


def gated_irreps(outputs: Irreps) -> Irreps:
    """Irreps a layer must produce before ``gate``: ``outputs`` plus one even scalar per gated channel."""
    gates = sum(irrep.mul for irrep in outputs if irrep.l > 0 or irrep.p < 0)
    return tuple(irrep._replace(mul=irrep.mul + gates) if irrep.kind == (0, 1) else irrep for irrep in outputs)


def gate(chunks: Chunks, outputs: Irreps, gain: float = 0.0, sigmoid_gain: float = 0.0) -> list[Any]:
    """Activate scalars with SiLU and multiply every other channel with an activated scalar of its own.

    Args:
        chunks: features with irreps ``gated_irreps(outputs)``; the even scalars hold the gates last.
        outputs: irreps after the gate, even scalars first.
        gain: factor after SiLU; 0 divides by ``silu_norm``.
        sigmoid_gain: factor after the sigmoid of the scalars that multiply others; 0 gives them SiLU too.
    """
    scalars = chunks[0]
    if scalars is None or outputs[0].kind != (0, 1):
        raise ValueError("a gate needs even scalars ('MULx0e') in the irreps")
    activated = jax.nn.silu(scalars)
    activated = activated * gain if gain else activated / silu_norm()
    start = outputs[0].mul
    result: list[Any] = [activated[..., :start]]
    gates = jax.nn.sigmoid(scalars) * sigmoid_gain if sigmoid_gain else activated
    for irrep, x in zip(outputs[1:], chunks[1:], strict=True):
        result.append(None if x is None else x * gates[..., start : start + irrep.mul])
        start += irrep.mul
    return result


@functools.cache
def silu_norm() -> float:
    """Root mean square of SiLU under a unit normal, on e3nn's grid of 1 000 001 quantiles.

    The grid (rather than the integral) is what published weights were trained with.
    """
    from scipy.special import expit, ndtri

    x = ndtri(np.linspace(0.0, 1.0, 1_000_003)[1:-1])
    return float(np.sqrt(np.mean((x * expit(x)) ** 2)))
