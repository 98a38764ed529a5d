"""A small potential saved in a folder, and structures, for tests of other people's simulation programs."""

import jax
import numpy as np
from ase import Atoms
from ase.build import molecule

from mlipjax import Calculator
from mlipjax.models import NequIPConfig, nequip, save


def saved_model(folder):
    """The calculator of a small potential for H and O, which is saved in ``folder``."""
    config = NequIPConfig((1, 8), cutoff=3.5, hidden_irreps="8x0e+4x1o", lmax=1, n_layers=2, radial_hidden=(8,))
    potential = nequip(config, np.array([[-13.6, -430.0]]))
    params = potential.init(jax.random.key(0))
    save(folder, potential, params)
    return Calculator(potential, params)


def water(n=2):
    """A box of n x n x n molecules, turned at random."""
    rng, box = np.random.default_rng(0), Atoms(cell=[3.1 * n] * 3, pbc=True)
    for place in np.ndindex(n, n, n):
        one = molecule("H2O")
        one.rotate(rng.uniform(0, 360), rng.normal(size=3))
        one.translate(3.1 * np.array(place))
        box += one
    return box
