"""Radial functions: Bessel basis, polynomial envelope, and the network that turns them into path weights."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mlipjax.typing import Array


def bessel_basis(distance: Array, size: int, cutoff: float) -> Array:
    """Spherical Bessel functions ``2/rc sin(n pi r / rc) / r`` (Gasteiger et al., ICLR 2020, eq. 7).

    Nequix's prefactor ``2/rc`` is used, not the orthonormal ``sqrt(2/rc)``. ``distance`` (...) Å must be positive.
    Returns (..., size).
    """
    frequencies = (np.pi / cutoff * np.arange(1, size + 1)).astype(distance.dtype)
    frequencies = np.expand_dims(frequencies, tuple(range(distance.ndim)))
    return 2.0 / cutoff * jnp.sin(distance[..., None] * frequencies) / distance[..., None]


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
