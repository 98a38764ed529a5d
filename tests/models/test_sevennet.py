"""SevenNet: parity of the published and of small random checkpoints with sevenn, and what its reader refuses."""

import copy
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from ase.io import read

import mlipjax
from mlipjax import tree
from mlipjax.graph import batch_graphs
from mlipjax.models import registry
from mlipjax.models.heads import with_first_head
from mlipjax.models.importers import sevennet
from mlipjax.models.importers._unpickle import read_torch

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
    "sevennet_own": ("energy",),
    "sevennet_own_even": ("energy",),
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


SMALLEST = GOLDENS / "sevennet_even.pth"


def test_neither_torch_nor_sevenn_is_imported():
    mlipjax.load(SMALLEST)
    assert not {"torch", "sevenn", "e3nn"} & set(sys.modules)


def test_every_weight_is_used_once():
    state = read_torch(SMALLEST)["model_state_dict"]
    constants = ("output_mask", "_w3j_", "denominator", "rescale_atomic_energy")
    stored = sum(value.size for name, value in state.items() if not any(part in name for part in constants))
    potential, params = mlipjax.load(SMALLEST)
    assert tree.count(params) == stored
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}
    assert potential.species == (1, 6, 8, 14, 29)


def test_a_saved_folder_gives_back_the_same_model(tmp_path):
    potential, params = mlipjax.load(GOLDENS / "sevennet_modal.pth")
    mlipjax.save(tmp_path / "saved", potential, params)
    again, same = mlipjax.load(tmp_path / "saved")
    assert again == potential
    np.testing.assert_array_equal(again.e0s, potential.e0s)
    for path, leaf in tree.flatten_paths(same).items():
        np.testing.assert_array_equal(leaf, tree.flatten_paths(params)[path], strict=True)


def test_any_modality_can_be_the_first_head():
    potential, params = mlipjax.load(GOLDENS / "sevennet_modal.pth")
    check_parity((with_first_head(potential, "scan"), params), "sevennet_modal_scan")


def changed(monkeypatch, change):
    """Message of loading after a change of settings or tensors; ``None`` if the model is loaded nonetheless."""
    root = copy.deepcopy(read_torch(SMALLEST))
    change(root)
    monkeypatch.setattr(sevennet, "read_torch", lambda path: root)
    start = time.process_time()
    try:
        sevennet.load_sevennet(SMALLEST)
    except ValueError as error:
        message = str(error)
        assert message.startswith(str(SMALLEST))
        assert "\n" not in message
        assert time.process_time() - start < 5.0
        return message
    return None


def setting(name, value):
    return lambda root: root["config"].update({name: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("self_connection_type", "mace"), "self_connection_type = 'mace'"),
        (setting("self_connection_type", ["nequip", "nequip", "linear"]), "self_connection_type = ['nequip'"),
        (setting("self_connection_type", "nequip"), "no 0_self_connection_intro.fc_tensor_product.weight"),
        (setting("act_radial", "ssp"), "act_radial = 'ssp'"),
        (setting("act_gate", {"e": "ssp", "o": "tanh"}), "act_gate of even scalars = 'ssp'"),
        (setting("readout_as_fcn", True), "readout_as_fcn = True"),
        (setting("use_bias_in_linear", True), "use_bias_in_linear = True"),
        (setting("cutoff_function", {"cutoff_function_name": "cosine"}), "cutoff function 'cosine'"),
        (setting("irreps_manual", True), "irreps_manual = True"),
        (setting("irreps_manual", False), "values where its model needs"),
        (setting("irreps_manual", ["4x0e", "4x0e+3x1e", "4x0e+3x1e+2x2e", "4x0e"]), "4x0e + 3x1e after layer 0"),
        (lambda root: root["model_state_dict"]["1_convolution.denominator"].fill(2.0), "denominators that differ"),
        (lambda root: root["model_state_dict"].pop("reduce_hidden_to_energy.linear.weight"), "no reduce_hidden"),
        (
            lambda root: root["model_state_dict"].update({"0_self_interaction_1.linear.weight": np.zeros(15)}),
            "has 15 values where its model needs 16",
        ),
        (
            lambda root: root["model_state_dict"]["0_self_interaction_1.linear.weight"].fill(np.nan),
            "parameter 'layer_0/linear_up/0e' is NaN",
        ),
        (
            lambda root: root["model_state_dict"][
                "1_convolution.convolution._compiled_main_left_right._w3j_1_1_1"
            ].fill(0.3),
            "coupling coefficients of its own",
        ),
        (lambda root: root.pop("config"), "no checkpoint of SevenNet"),
        (lambda root: root.update(model_state_dict=[1]), "no checkpoint of SevenNet"),
    ],
)
def test_models_of_other_kinds_are_refused(monkeypatch, change, message):
    assert message in changed(monkeypatch, change)


def laughs():
    """A list of ten lists of ten lists ... that are the same."""
    inner = ["ha"]
    for _ in range(30):
        inner = [inner] * 10
    return inner


WRONG = (
    None,
    -1,
    0,
    10**30,
    10**400,
    1.5,
    float("nan"),
    "x",
    "x" * 10**6,
    [],
    {},
    [1],
    {1: 2},
    {"a": {}},
    b"x",
    laughs(),
)


def test_settings_that_no_model_has_are_refused_in_one_line(monkeypatch):
    names = (
        "_type_map irreps_manual lmax is_parity cutoff num_convolution_layer weight_nn_hidden_neurons cutoff_function"
    )
    for name in (*names.split(), "act_scalar", "version"):
        for value in WRONG:
            assert changed(monkeypatch, setting(name, value)) is not None, f"{name} = {str(value)[:20]}"
