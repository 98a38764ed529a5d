"""SevenNet: parity of the published and of small random checkpoints with sevenn, and what its reader refuses."""

from pathlib import Path

import jax
import numpy as np
import pytest
from ase.io import read

import mlipjax
from mlipjax.graph import batch_graphs
from mlipjax.models import registry

GOLDENS = Path(__file__).parent / "goldens"


def structures():
    return [mlipjax.System.from_ase(atoms) for atoms in read(GOLDENS / "sevennet_structures.extxyz", ":")]


def check_parity(model, golden, head=0):
    """Energies (of the whole structure), forces and stresses of all structures in double precision."""
    potential, params = model
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    expected, systems = np.load(GOLDENS / f"{golden}.npz"), structures()
    graph = batch_graphs(systems, potential.cutoff, heads=[head] * len(systems), dtype=np.float64)
    found = jax.device_get(mlipjax.potential.apply(potential, params, graph))
    start = 0
    for i, system in enumerate(systems):
        energy = found.energy[i] + potential.reference_energy(system.atomic_numbers, head)
        np.testing.assert_allclose(energy, expected[f"energy_{i}"], rtol=1e-9)
        forces = found.forces[start : start + system.n_atoms]
        np.testing.assert_allclose(forces, expected[f"forces_{i}"], rtol=0.0, atol=1e-7)
        if f"stress_{i}" in expected:
            np.testing.assert_allclose(found.stress[i], expected[f"stress_{i}"], rtol=0.0, atol=1e-8)
        start += system.n_atoms
    assert len(systems) > 10


PUBLISHED = {
    "sevennet-0": ("energy",),
    "sevennet-0-22may2024": ("energy",),
    "sevennet-l3i5": ("energy",),
    "sevennet-mf-0": ("PBE", "R2SCAN"),
}
SMALL = {
    "sevennet_even": ("energy",),
    "sevennet_old": ("energy",),
    "sevennet_parities": ("energy",),
    "sevennet_modal": ("pbe", "scan", "hse"),
}


def golden_of(name, heads, head):
    return name if len(heads) == 1 else f"{name}_{heads[head]}"


@pytest.mark.parametrize("name", SMALL)
def test_parity_of_small_random_models(name):
    model = mlipjax.load(GOLDENS / f"{name}.pth")
    assert model.potential.heads == SMALL[name]
    for head in range(len(SMALL[name])):
        check_parity(model, golden_of(name, SMALL[name], head), head)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_parity_of_published_models(name):
    path = registry.find_local(registry.find_entry(name))
    if path is None:
        pytest.skip(f"the weights of {name} are not here: neither sevenn is installed nor have they been downloaded")
    model = mlipjax.load(path)
    assert model.potential.heads == PUBLISHED[name]
    for head in range(len(PUBLISHED[name])):
        check_parity(model, golden_of(name, PUBLISHED[name], head), head)
