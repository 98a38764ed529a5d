"""A model with another head first is the same model."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, molecule, random_params

from mlipjax.models import load, nequip, save
from mlipjax.models.heads import head_index, with_first_head
from mlipjax.models.mace import MACEConfig, mace

E0S = np.array([[-1.0, -2.0, -3.0], [-10.0, -20.0, -30.0], [5.0, 6.0, 7.0]])
HEADS = ("pbe", "r2scan", "ccsd")


def nequip_model():
    return nequip(dataclasses.replace(SMALLEST, n_layers=1, hidden_irreps="4x0e", heads=HEADS), E0S)


def mace_model():
    config = MACEConfig(
        species=SMALLEST.species,
        cutoff=4.0,
        hidden_irreps="4x0e",
        lmax=1,
        interactions=("residual",),
        correlation=(2,),
        radial_hidden=(8,),
        scale=(1.0, 2.0, 3.0),
        shift=(0.1, 0.2),
        heads=HEADS,
    )
    return mace(config, E0S)


@pytest.mark.parametrize("build", [nequip_model, mace_model])
def test_the_first_head_predicts_what_it_did_in_its_old_place(build, tmp_path):
    potential = build()
    params = random_params(potential)
    chosen = with_first_head(potential, "r2scan")
    assert chosen.heads == ("r2scan", "pbe", "ccsd")
    graph = graph_of(molecule())
    system = molecule()
    before, after = jax.jit(potential.apply), jax.jit(chosen.apply)
    for name in HEADS:
        old, new = potential.heads.index(name), chosen.heads.index(name)
        expected = before(params, dataclasses.replace(graph, head=np.full_like(graph.head, old)))
        found = after(params, dataclasses.replace(graph, head=np.full_like(graph.head, new)))
        np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-12)
        np.testing.assert_allclose(found.forces, expected.forces, atol=1e-12)
        references = [p.reference_energy(system.atomic_numbers, i) for p, i in ((potential, old), (chosen, new))]
        assert references[0] == references[1]
    save(tmp_path / "model", chosen, params)
    assert load(tmp_path / "model")[0].heads == chosen.heads


def test_the_first_head_is_taken_as_it_is_and_an_unknown_one_is_refused():
    potential = nequip_model()
    assert with_first_head(potential, None) is potential
    assert with_first_head(potential, "pbe") is potential
    assert head_index(potential, "ccsd") == 2
    with pytest.raises(ValueError, match="has the heads pbe, r2scan, ccsd; found 'dft'"):
        with_first_head(potential, "dft")
