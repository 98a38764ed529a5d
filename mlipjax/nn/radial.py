"""Radial functions: Bessel basis, polynomial envelope, and the network that turns them into path weights."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlipjax.typing import Array


def bessel_frequencies(size: int, cutoff: float) -> np.ndarray:
    """Multiples ``n pi / rc`` (size,) in 1/Å, float64."""
    return np.pi / cutoff * np.arange(1, size + 1)


class TrainableFrequencies(nn.Module):
    """Frequencies of a Bessel basis as parameters, ``n pi / rc`` at initialisation."""

    size: int
    cutoff: float

    @nn.compact
    def __call__(self) -> Array:
        """Return them, (size,) 1/Å."""
        return self.param("frequencies", lambda _: jnp.asarray(bessel_frequencies(self.size, self.cutoff)))


def bessel_basis(distance: Array, frequencies: Array, cutoff: float) -> Array:
    """Spherical Bessel functions ``2/rc sin(k r) / r`` (Gasteiger et al., ICLR 2020, eq. 7).

    Nequix's prefactor ``2/rc`` is used, not the orthonormal ``sqrt(2/rc)``.

    Args:
        distance: (...) Å, positive.
        frequencies: (size,) 1/Å in the precision of ``distance``; ``bessel_frequencies`` or what became of them.
        cutoff: Å.

    Returns:
        Values (..., size).
    """
    frequencies = jnp.expand_dims(frequencies, tuple(range(distance.ndim)))
    return 2.0 / cutoff * jnp.sin(distance[..., None] * frequencies) / distance[..., None]


def xplor_envelope(distance: Array, onset: float, cutoff: float) -> Array:
    """Switch from 1 at ``onset`` to 0 at ``cutoff`` (Å) with a continuous slope at both (XPLOR's)."""
    r2, on2, off2 = distance * distance, onset**2, cutoff**2
    inside = (off2 - r2) ** 2 * (off2 + 2.0 * r2 - 3.0 * on2) / (off2 - on2) ** 3
    return jnp.where(distance < onset, 1.0, jnp.where(distance < cutoff, inside, 0.0))


def polynomial_envelope(distance: Array, cutoff: float | Array, p: float) -> Array:
    """Envelope that reaches zero at the cutoff with two zero derivatives (Gasteiger et al., ICLR 2020, eq. 8)."""
    exponent = int(p) if float(p).is_integer() else p
    x = distance / cutoff
    inside = (
        1.0
        - 0.5 * (p + 1) * (p + 2) * x**exponent
        + p * (p + 2) * x ** (exponent + 1)
        - 0.5 * p * (p + 1) * x ** (exponent + 2)
    )
    return jnp.where(x < 1.0, inside, 0.0)


class RadialNetwork(nn.Module):
    """Kernels of a network without biases from the radial basis to one weight per path and channel.

    Without biases a zero basis gives zero weights: edges beyond the cutoff, and padding, contribute exactly nothing.
    The convolution evaluates the network (SiLU between the kernels), because it recomputes it block by block.

    Attributes:
        sizes: size of the basis, then of the hidden layers.
        outputs: number of path weights.
        gain: variance gain of the hidden layers at initialisation.
    """

    sizes: tuple[int, ...]
    outputs: int
    gain: float = 4.0

    @nn.compact
    def __call__(self) -> list[Array]:
        """Return the kernels, (sizes[i], sizes[i+1]) each and (sizes[-1], outputs) at the end."""
        sizes = (*self.sizes, self.outputs)
        kernels = []
        for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            gain = self.gain if i < len(sizes) - 2 else 1.0
            init = nn.initializers.normal((gain / fan_in) ** 0.5)
            kernels.append(self.param(f"kernel_{i}", init, (fan_in, fan_out)))
        return kernels


class RadialKernels(nn.Module):
    """Kernels of a network without biases from the radial basis to one weight per path and channel.

    Parameters have unit variance at initialisation, the scale is in the forward pass (e3nn's convention); the gain of
    each activation is part of the kernel after it.
    """

    sizes: tuple[int, ...]
    gain: float

    @nn.compact
    def __call__(self) -> list[Array]:
        """Return the kernels, (sizes[i], sizes[i+1]) each."""
        kernels = []
        for i, shape in enumerate(itertools.pairwise(self.sizes)):
            kernel = self.param(f"kernel_{i}", nn.initializers.normal(1.0), shape)
            kernels.append(kernel * ((self.gain if i else 1.0) * shape[0] ** -0.5))
        return kernels
