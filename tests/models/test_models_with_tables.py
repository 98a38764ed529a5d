"""Whole models in single precision with splines of their radial weights."""

import jax
import numpy as np
import pytest
from ase.build import bulk
from jax.flatten_util import ravel_pytree

import mlipjax
from mlipjax import tree
from mlipjax.graph import batch_graphs
from mlipjax.models.mace import MACEConfig, mace
from mlipjax.models.nequip import NequIPConfig, nequip
from mlipjax.nn import radial_table


def random_nequip():
    config = NequIPConfig((11, 17), cutoff=4.5, hidden_irreps="8x0e + 4x1o", lmax=1, n_layers=2, radial_hidden=(16,))
    potential = nequip(config)
    return potential, potential.init(jax.random.key(0))


def random_mace():
    config = MACEConfig(
        species=(11, 17), cutoff=4.5, hidden_irreps="8x0e", lmax=1, interactions=("residual",), correlation=(2,)
    )
    potential = mace(config)
    return potential, potential.init(jax.random.key(0))


@pytest.mark.parametrize("make", [random_nequip, random_mace])
def test_forces_stress_and_gradients_are_as_exact_as_with_the_network(make, monkeypatch):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=0)
    potential, params = make()
    graph = batch_graphs([mlipjax.System.from_ase(atoms)], potential.cutoff)

    def run(dtype):
        def predict(params, graph):
            found = potential.apply(params, graph)
            return {"forces": found.forces, "stress": found.stress}

        def loss(params, graph):
            return (predict(params, graph)["forces"] ** 2).sum()

        args = tree.cast(params, dtype), tree.cast(graph, dtype)
        return jax.jit(lambda *args: {**predict(*args), "gradient": ravel_pytree(jax.grad(loss)(*args))[0]})(*args)

    exact = run("float64")
    monkeypatch.setattr(radial_table, "MIN_EDGES", 10**9)
    without = run("float32")
    monkeypatch.setattr(radial_table, "MIN_EDGES", 0)
    with_tables = run("float32")
    for name, value in exact.items():
        rms = [np.sqrt(np.mean((x[name] - value) ** 2)) for x in (with_tables, without)]
        # nine components of stress are few: its rounding is a matter of luck
        assert 0.0 < rms[0] < 2.0 * rms[1] + 1e-6 * np.abs(value).max(), name
        # or no table was used
        assert rms[0] != rms[1]


@pytest.mark.parametrize("slots", [0, 10**9])
def test_radial_networks_need_no_hidden_layer(slots, monkeypatch):
    monkeypatch.setattr(radial_table, "MIN_EDGES", slots)
    potential = nequip(NequIPConfig((14,), cutoff=4.0, hidden_irreps="4x0e", lmax=1, n_layers=1, radial_hidden=()))
    graph = tree.cast(batch_graphs([mlipjax.System.from_ase(bulk("Si"))], potential.cutoff), "float32")
    params = potential.init(jax.random.key(0))
    single = potential.apply(tree.cast(params, "float32"), graph).energy
    exact = potential.apply(tree.cast(params, "float64"), tree.cast(graph, "float64")).energy
    np.testing.assert_allclose(single, exact, rtol=1e-5)
