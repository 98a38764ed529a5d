import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_nequip import SMALLEST, graph_of, random_params, skewed_crystal

import mlipjax
from mlipjax import tree
from mlipjax.models import nequip
from mlipjax.models.build import potential_from_config, potential_to_config

CONFIG = dataclasses.replace(
    SMALLEST,
    cutoff=0.1 + 3.7,
    scale=(1 / 3, 0.1, 2.0),
    shift=(0.0, -1 / 7, 1e-9),
    heads=("pbe", "xtb"),
    per_species_skip=True,
)
E0S = np.random.default_rng(0).normal(size=(2, 3)) * 1e4


def make(dtype=np.float64):
    potential = nequip(CONFIG, E0S)
    return potential, random_params(potential, dtype=dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_bit_exact(tmp_path, dtype):
    potential, params = make(dtype)
    mlipjax.save(tmp_path / "model", potential, params)
    loaded, loaded_params = mlipjax.load(str(tmp_path / "model"))
    assert loaded.config == CONFIG
    assert (loaded.cutoff, loaded.species, loaded.heads) == (CONFIG.cutoff, CONFIG.species, CONFIG.heads)
    np.testing.assert_array_equal(loaded.e0s, E0S, strict=True)
    before, after = tree.flatten_paths(params), tree.flatten_paths(loaded_params)
    assert before.keys() == after.keys()
    for path, leaf in after.items():
        assert isinstance(leaf, jax.Array)
        np.testing.assert_array_equal(leaf, before[path], strict=True)


def test_a_loaded_potential_predicts_the_same_bits(tmp_path):
    potential = nequip(dataclasses.replace(CONFIG, n_layers=1), E0S)
    params = random_params(potential)
    mlipjax.save(tmp_path, potential, params)
    loaded, loaded_params = mlipjax.load(tmp_path)
    graph = graph_of(skewed_crystal(), cutoff=CONFIG.cutoff)
    first = jax.jit(potential.apply, static_argnames="stress")(params, graph, stress=False)
    second = jax.jit(loaded.apply, static_argnames="stress")(loaded_params, graph, stress=False)
    for value, expected in zip(jax.tree.leaves(second), jax.tree.leaves(first), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_parameters_with_nan_are_not_saved(tmp_path):
    potential, params = make()
    params["readout_xtb"]["kernel"][0] = np.nan
    with pytest.raises(ValueError, match="parameter 'readout_xtb/kernel' is NaN"):
        mlipjax.save(tmp_path / "model", potential, params)
    assert not (tmp_path / "model").exists()


def test_parameters_of_another_potential_are_refused(tmp_path):
    potential, params = make()
    mlipjax.save(tmp_path, potential, {name: value for name, value in params.items() if name != "readout_xtb"})
    with pytest.raises(ValueError, match="lacks parameter 'readout_xtb/kernel'"):
        mlipjax.load(tmp_path)


def test_saved_models_can_be_loaded_without_64_bit_mode(tmp_path):
    potential, params = make()
    mlipjax.save(tmp_path, potential, params)
    with jax.enable_x64(False):
        loaded, loaded_params = mlipjax.load(tmp_path)
        leaf = loaded_params["readout_pbe"]["kernel"]
    assert leaf.dtype == jnp.float32
    np.testing.assert_allclose(leaf, params["readout_pbe"]["kernel"], rtol=1e-7)
    np.testing.assert_array_equal(loaded.e0s, E0S)


def test_what_cannot_be_loaded_is_explained_in_one_line(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"torch")
    (tmp_path / "empty").mkdir()
    for path, error, message in [
        (tmp_path / "absent.nqx", FileNotFoundError, "does not exist; give a model's name"),
        ("folder/model", FileNotFoundError, "does not exist; give a model's name"),
        (
            tmp_path / "model.pt",
            ValueError,
            "is neither a .nqx file, a .model file of mace-torch, a .pth file of SevenNet, nor",
        ),
        (tmp_path / "empty", ValueError, "not a saved model"),
        ("no-such-model", ValueError, "no model is called 'no-such-model'"),
    ]:
        with pytest.raises(error, match=message) as info:
            mlipjax.load(path)
        assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "found format 2, architecture 'nequip': written by another version"),
        (lambda d: d.update(architecture="gap"), "found format 1, architecture 'gap'"),
        (lambda d: d["config"].update(depth=3), "unknown configuration fields depth for architecture nequip"),
        (lambda d: d["e0s"].pop("xtb"), "e0s are missing for head 'xtb'"),
    ],
)
def test_descriptions_of_another_version_are_refused(change, message):
    description = json.loads(json.dumps(potential_to_config(make()[0])))
    assert potential_from_config(description).config == CONFIG
    change(description)
    with pytest.raises(ValueError, match=message):
        potential_from_config(description)


def test_only_registered_architectures_can_be_saved(tmp_path):
    potential = make()[0].replace(config="something else")
    with pytest.raises(ValueError, match="no architecture is registered for a configuration of type str"):
        mlipjax.save(tmp_path, potential, {})
