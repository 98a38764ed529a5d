"""MACE: parity with mace-torch, symmetries, and what the rest of the package expects of a potential."""

import dataclasses
import functools
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.io import read
from tiny_mace import TINY

import mlipjax
from mlipjax import tree
from mlipjax.calculator import Calculator
from mlipjax.graph import batch_graphs
from mlipjax.models import mace
from mlipjax.nn import irreps as ir
from mlipjax.notices import Notice

GOLDENS = Path(__file__).parent / "goldens"


def structures(file="structures.extxyz"):
    return [mlipjax.System.from_ase(atoms) for atoms in read(GOLDENS / file, ":")]


SIZES = {"n_atoms": 12, "n_neighbors": 24, "n_graphs": 3}
"""Padded sizes of all structures for ``TINY``: one program to compile."""


def prediction(potential, params, systems, dtype=np.float64, head=0, sizes=SIZES):
    graph = batch_graphs(systems, potential.cutoff, dtype=dtype, **sizes)
    graph = dataclasses.replace(graph, head=np.full_like(graph.head, head))
    params = jax.tree.map(lambda leaf: np.asarray(leaf, dtype), params)
    return jax.device_get(_compiled(potential)(params, graph))


@functools.cache
def _compiled(potential):
    return jax.jit(potential.apply)


def check_parity(name, tolerance=(1e-8, 1e-7, 1e-8), folder=GOLDENS, file="structures.extxyz"):
    """Energies (relative to the interaction energy), forces and stress of all structures and heads."""
    potential, params = mlipjax.load(folder / f"{name}.model")
    expected = json.loads((folder / f"{name}.json").read_text())
    assert potential.heads == tuple(expected)
    systems = structures(file)
    for head, rows in enumerate(expected.values()):
        found = prediction(potential, params, systems, head=head, sizes={})
        start = 0
        for i, (system, row) in enumerate(zip(systems, rows, strict=True)):
            interaction = row["energy"] - potential.reference_energy(system.atomic_numbers, head)
            assert abs(interaction) > 1e-3  # a relative error of about nothing would mean little
            np.testing.assert_allclose(found.energy[i], interaction, rtol=tolerance[0], atol=0.0)
            forces = found.forces[start : start + system.n_atoms]
            np.testing.assert_allclose(forces, row["forces"], rtol=0.0, atol=tolerance[1])
            if "stress" in row:
                np.testing.assert_allclose(found.stress[i], row["stress"], rtol=0.0, atol=tolerance[2])
            start += system.n_atoms
    return potential, params


def test_parity_with_mace_torch():
    potential, params = check_parity("mpa0")
    assert potential.config.interactions == ("density", "density_residual")
    assert potential.config.zbl
    assert potential.config.product_basis == "ordered"
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float64"}


STRICT = (1e-9, 1e-7, 1e-8)


def test_parity_of_nonlinear_interactions():
    potential, params = check_parity("mh1", STRICT)
    assert potential.config.interactions == ("nonlinear", "nonlinear")
    assert potential.config.edge_irreps == "2x0e + 2x1o"
    assert potential.heads == ("omat_pbe", "omol", "matpes_r2scan")
    assert not np.allclose(*potential.e0s[:2])
    # a head of its own has the numbers that it has among the others
    atoms = structures()[2].to_ase()
    expected = json.loads((GOLDENS / "mh1.json").read_text())["matpes_r2scan"][2]
    atoms.calc = Calculator(potential, params, head="matpes_r2scan")
    np.testing.assert_allclose(atoms.get_potential_energy(), expected["energy"], rtol=1e-6)


@pytest.mark.slow
def test_parity_of_a_model_that_asks_for_charge_and_spin():
    with pytest.warns(Notice, match=r"omol0\.model asks for total charge and spin: .* neutral singlet"):
        potential, _ = check_parity("omol0", STRICT)
    assert (potential.config.n_layers, potential.config.correlation) == (3, (2, 2, 2))
    assert potential.config.edge_features(0) == ir.parse("4x0e")


@pytest.mark.slow
def test_parity_of_all_options_of_nonlinear_interactions():
    with pytest.warns(Notice, match="neutral singlet"):
        potential, params = check_parity("nonlinear_options", STRICT)
    config = potential.config
    assert config.edge_irreps_first
    assert config.last_readout_only
    assert config.readout_biases
    assert config.zbl
    assert params["layer_1"]["product"]["0e_2"].shape[0] == 1
    # what is read off the embedding alone is part of the isolated atoms
    assert not np.allclose(*potential.e0s)


def test_parity_of_a_model_that_mace_torch_fine_tuned():
    potential, _ = check_parity("finetuned", STRICT, file="finetuned.extxyz")
    assert potential.heads == ("pt_head", "Default")
    assert potential.config.nonlinear


@pytest.mark.slow
def test_parity_of_two_heads():
    potential, _ = check_parity("two_heads")
    assert potential.heads == ("pbe", "r2scan")
    assert potential.config.interactions == ("agnostic", "residual")
    assert not np.allclose(*potential.e0s)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mp0_small", "mp0_large", "mp0b", "one_layer", "edge_irreps"])
def test_parity_of_other_architectures(name):
    check_parity(name)


@pytest.mark.slow
def test_parity_of_a_file_in_single_precision():
    # mace-torch has rounded its coupling coefficients to single precision, we have not
    _, params = check_parity("mp0_medium", tolerance=(1e-6, 1e-6, 1e-7))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mlipjax.notices.Notice")
@pytest.mark.parametrize("name", ["mp0_small", "mp0_medium", "mp0b", "mpa0", "two_heads", "omol0"])
def test_parity_at_the_published_size(name):
    folder = Path(os.environ.get("MLIPJAX_MACE_GOLDENS", "absent"))
    if not (folder / f"full_{name}.model").is_file():
        pytest.skip("no large models in $MLIPJAX_MACE_GOLDENS; make_mace_goldens.py --full makes them")
    # of omol0 the largest force is 4e4 eV/Å, which rounds to as much
    potential, _ = check_parity(f"full_{name}", (1e-9, 1e-7, 1e-6) if name == "omol0" else (1e-8, 1e-7, 1e-8), folder)
    assert len(potential.config.species) == 89
    assert potential.config.layer_irreps(0)[0].mul >= 128


@functools.cache
def tiny():
    """(potential, params) of ``TINY``, the parameters unequal in every path."""
    potential = mace(TINY, np.array([-1.5, -30.25, -70.125]))
    rng = np.random.default_rng(5)
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    return potential, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), shapes)


def crystal(seed=0):
    """The skewed cell of the golden structures, of elements that ``TINY`` knows."""
    system = structures()[2]
    positions = system.positions + np.random.default_rng(seed).normal(0.0, 0.05, (5, 3))
    return dataclasses.replace(system, positions=positions, atomic_numbers=np.array([8, 6, 1, 6, 1], np.int32))


def test_features_are_the_scalars_of_each_layer():
    potential, params = tiny()
    assert potential.module.feature_sizes == (4, 4)
    assert potential.feature_slices == (slice(0, 4), slice(4, 8))
    assert prediction(potential, params, [crystal()]).features.shape == (12, 8)


def test_a_saved_folder_gives_back_the_same_model(tmp_path):
    potential, params = mlipjax.load(GOLDENS / "two_heads.model")
    mlipjax.save(tmp_path / "saved", potential, params)
    again, same = mlipjax.load(tmp_path / "saved")
    assert again.config == potential.config
    np.testing.assert_array_equal(again.e0s, potential.e0s)
    for path, leaf in tree.flatten_paths(same).items():
        np.testing.assert_array_equal(leaf, tree.flatten_paths(params)[path], strict=True)


def test_a_single_scale_serves_heads_that_are_added():
    potential, params = tiny()
    config = dataclasses.replace(TINY, heads=("energy", "replay"), scale=(2.0,), shift=(0.5,))
    both = {**params, "readout_replay": params["readout_energy"]}
    graph = batch_graphs([crystal()], potential.cutoff, dtype=np.float64, **SIZES)
    first, second = (
        jax.jit(mace(config).node_energy)(both, dataclasses.replace(graph, head=np.full(3, head)), graph.positions)[0]
        for head in (0, 1)
    )
    np.testing.assert_array_equal(first, second)
    plain = prediction(potential, params, [crystal()]).node_energy
    np.testing.assert_allclose(first[:5], 2.0 * plain[:5] + 0.5, rtol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": (8, 1)}, "ascending atomic numbers"),
        ({"hidden_irreps": "4x0e + 3x1o"}, "natural|'Cx0e"),
        ({"hidden_irreps": "4x0e + 4x1e"}, "'Cx0e"),
        ({"interactions": ("residual",)}, "each layer needs"),
        ({"interactions": ("residual", "attention")}, "unknown interactions"),
        ({"correlation": (3, 4)}, "between 1 and 3"),
        ({"transform_constants": ()}, "'agnesi' with 3 constants"),
        ({"bessel_frequencies": (1.0,)}, "8 Bessel frequencies"),
        ({"product_basis": "other"}, "product_basis"),
        ({"interactions": ("nonlinear", "residual")}, "all interactions are nonlinear or none"),
        ({"interactions": ("nonlinear", "nonlinear"), "radial_hidden": ()}, "hidden units in radial_hidden"),
        ({"edge_irreps": "2x1o"}, "edge_irreps must be like"),
        ({"edge_irreps": "2x0e + 2x1o + 2x2e"}, "edge_irreps must be like"),
        ({"edge_irreps": 3}, "edge_irreps must be short text"),
        ({"last_readout_only": 1}, "last_readout_only must be true or false"),
    ],
)
def test_configurations_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)
