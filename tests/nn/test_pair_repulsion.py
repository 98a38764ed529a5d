"""Nuclear repulsion in NequIP: the formula of Ziegler, Biersack and Littmark, and nothing beyond the covalent radii."""

import dataclasses

import jax
import numpy as np
from tiny_nequip import SMALLEST, graph_of, random_params

from mlipjax.elements import covalent_radii
from mlipjax.models import nequip
from mlipjax.nn.pair_repulsion import screened_coulomb
from mlipjax.system import System


def dimer(numbers, distance):
    positions = np.array([[0.0, 0.0, 0.0], [0.0, distance, 0.0]])
    return System(positions, np.array(numbers, np.int32), np.zeros((3, 3)), (False,) * 3)


def test_screened_coulomb_is_the_published_formula():
    # ZBL of two argon atoms at 0.5 Å: screening length 0.4543 * 0.529 / (2 * 18^0.3) Å, by hand
    x = 0.5 / (0.4543 * 0.529 / (2 * 18**0.3))
    phi = 0.1818 * np.exp(-3.2 * x) + 0.5099 * np.exp(-0.9423 * x)
    phi += 0.2802 * np.exp(-0.4028 * x) + 0.02817 * np.exp(-0.2016 * x)
    expected = 14.3996 * 18 * 18 / 0.5 * phi
    np.testing.assert_allclose(screened_coulomb(0.5, (18.0, 18.0)), expected, rtol=1e-5)


def test_repulsion_is_added_within_the_covalent_radii_and_nothing_beyond():
    plain, walled = (nequip(dataclasses.replace(SMALLEST, zbl=zbl)) for zbl in (False, True))
    params = random_params(plain)
    pair = (6, 8)
    bond = float(covalent_radii(pair).sum())
    shares = np.array([0.3, 0.6, 0.9, 1.0, 1.2])
    graph = graph_of(*(dimer(pair, share * bond) for share in shares), n_atoms=16, n_graphs=5)
    added = [
        np.asarray(jax.jit(lambda p, g, m=model: m.apply(p, g, stress=False).energy)(params, graph))
        for model in (plain, walled)
    ]
    found = added[1] - added[0]
    x = np.minimum(shares, 1.0)
    envelope = 1 - 21 * x**5 + 35 * x**6 - 15 * x**7
    expected = np.array(screened_coulomb(shares * bond, (6.0, 8.0))) * envelope
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
    assert found[0] > 10.0
    assert not found[3:].any()
