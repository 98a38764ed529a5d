"""Repulsion of nuclei at distances that no training data has."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from mlipjax.elements import covalent_radii
from mlipjax.graph import GraphBatch
from mlipjax.nn.radial import polynomial_envelope
from mlipjax.typing import Array

_BOHR_A = 0.529
_COULOMB_EV_A = 14.3996
_SCREENING = ((0.1818, 3.2), (0.5099, 0.9423), (0.2802, 0.4028), (0.02817, 0.2016))
"""Amplitudes and decay constants of the universal screening function (Ziegler, Biersack, Littmark 1985)."""


def screened_coulomb(
    distance: Array, charges: tuple[Array, Array], exponent: float = 0.3, prefactor: float = 0.4543
) -> Array:
    """Screened Coulomb energy of a pair of nuclei in eV.

    Ziegler, Biersack, Littmark: The Stopping and Range of Ions in Solids (1985), in the units of MACE.

    Args:
        distance: (...) Å, positive.
        charges: nuclear charges of the two atoms, (...) each.
        exponent, prefactor: of the screening length.
    """
    one, other = charges
    scaled = distance * (one**exponent + other**exponent) / (prefactor * _BOHR_A)
    screening = sum(amplitude * jnp.exp(-decay * scaled) for amplitude, decay in _SCREENING)
    return _COULOMB_EV_A * one * other / distance * screening


def zbl_energy(
    distance: Array, charges: tuple[Array, Array], bond: Array, envelope_p: float, exponent: float, prefactor: float
) -> Array:
    """Half the screened Coulomb energy of a pair in eV, switched off at ``bond``: each of two atoms counts the pair.

    Args:
        distance: (...) Å, positive.
        charges: nuclear charges of the two atoms, (...) each.
        bond: (...) sum of the covalent radii in Å: beyond it the energy is zero.
        envelope_p: exponent of the polynomial envelope.
        exponent, prefactor: of the screening length; usually 0.3 and 0.4543.
    """
    whole = screened_coulomb(distance, charges, exponent, prefactor)
    return 0.5 * whole * polynomial_envelope(distance, bond, envelope_p)


def nuclear_repulsion(graph: GraphBatch, distance: Array, species: Array, elements: tuple[int, ...]) -> Array:
    """Return ``zbl_energy`` of every atom with all its neighbours, (N,) eV, with the constants of MACE.

    Args:
        graph: neighbours.
        distance: (N, K) Å, positive in unused slots too.
        species: (N,) element rows.
        elements: their atomic numbers.
    """
    charge = jnp.asarray(np.asarray(elements, distance.dtype))[species]
    radius = jnp.asarray(covalent_radii(elements).astype(distance.dtype))[species]
    charges = charge[:, None], charge[graph.neighbors]
    pairs = zbl_energy(distance, charges, radius[:, None] + radius[graph.neighbors], 5.0, 0.3, 0.4543)
    return jnp.sum(jnp.where(graph.edge_mask, pairs, 0.0), axis=-1)
