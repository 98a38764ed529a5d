"""Distances in units of an atom pair's size, and the screened nuclear repulsion of close pairs (as in MACE)."""

from __future__ import annotations

import jax.numpy as jnp

from mlipjax.nn.radial import polynomial_envelope
from mlipjax.typing import Array

_BOHR_A = 0.529
_COULOMB_EV_A = 14.3996
_SCREENING = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
"""Amplitudes and decay constants of the universal screening function (Ziegler, Biersack, Littmark 1985)."""


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


def zbl_energy(
    distance: Array, charges: tuple[Array, Array], bond: Array, envelope_p: float, exponent: float, prefactor: float
) -> Array:
    """Screened Coulomb energy of a pair in eV, half of it: each of the two atoms counts the pair.

    Ziegler, Biersack, Littmark: The Stopping and Range of Ions in Solids (1985), switched off at ``bond``.

    Args:
        distance: (...) Å, positive.
        charges: nuclear charges of the two atoms, (...) each.
        bond: (...) sum of the covalent radii in Å: beyond it the energy is zero.
        envelope_p: exponent of the polynomial envelope.
        exponent, prefactor: of the screening length; usually 0.3 and 0.4543.
    """
    one, other = charges
    scaled = distance * (one**exponent + other**exponent) / (prefactor * _BOHR_A)
    screening = sum(amplitude * jnp.exp(-decay * scaled) for amplitude, decay in _SCREENING)
    return 0.5 * _COULOMB_EV_A * one * other / distance * screening * polynomial_envelope(distance, bond, envelope_p)
