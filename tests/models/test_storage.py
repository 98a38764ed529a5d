import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mlipjax import files, tree
from mlipjax.models import storage

CONFIG = {
    "architecture": "nequip",
    "cutoff": 0.1 + 0.2,
    "species": [1, 8],
    "e0s": {"pbe": [-1 / 3, -1e6 / 7]},
}


def parameters(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "layer_0": {
            "linear": {"kernel": rng.normal(size=(3, 5)).astype(np.float32)},
            "scale": np.float64(1 / 3),
        },
        "readout": {"kernel": np.asfortranarray(rng.normal(size=(4, 2)))},
    }


def assert_same(first, second):
    first, second = tree.flatten_paths(first), tree.flatten_paths(second)
    assert first.keys() == second.keys()
    for path in first:
        assert np.asarray(first[path]).dtype == np.asarray(second[path]).dtype
        np.testing.assert_array_equal(first[path], second[path], strict=True)


def load(folder, template):
    config, leaves = storage.read_model(folder)
    return config, storage.fill_params(template, leaves, str(folder))


def test_round_trip_is_bit_exact(tmp_path):
    folder = tmp_path / "runs" / "model"
    storage.write_model(folder, CONFIG, parameters())
    config, params = load(folder, parameters(1))
    assert config == CONFIG
    assert_same(params, parameters())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "params.safetensors"]
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    storage.write_model(folder, config, params)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_device_arrays_transposes_and_numpy_in_the_configuration(tmp_path):
    kernel = jnp.arange(6, dtype=jnp.float32).reshape(2, 3)
    config = {"e0s": np.array([1 / 3, 2.0]), "cutoff": np.float64(1 / 7), "n_layers": np.int64(2)}
    storage.write_model(tmp_path, config, {"kernel": kernel, "transposed": np.asarray(kernel).T})
    config, leaves = storage.read_model(tmp_path)
    assert config == {"e0s": [1 / 3, 2.0], "cutoff": 1 / 7, "n_layers": 2}
    np.testing.assert_array_equal(leaves["transposed"], np.asarray(kernel).T)


def test_other_files_in_the_folder_stay(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    storage.write_model(tmp_path, CONFIG, parameters())
    assert (tmp_path / "results.json").read_text() == "{}"
    assert storage.is_model_folder(tmp_path)


class Killed(BaseException):
    pass


def killed_save(monkeypatch, folder, killed_at, config, params):
    """Save, but die half-way through writing ``killed_at``, or right before something is renamed to it."""
    write_bytes, replace = files.Path.write_bytes, files.os.replace

    def dying_write(path, content):
        write_bytes(path, content[: len(content) // 2] if path.name == killed_at else content)
        if path.name == killed_at:
            raise Killed

    def dying_replace(source, target):
        if target.name == killed_at:
            raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files.Path, "write_bytes", dying_write)
        patch.setattr(files.os, "replace", dying_replace)
        patch.setattr(files.Path, "unlink", lambda *args, **kwargs: None)  # the dead do not tidy up
        with pytest.raises(Killed):
            storage.write_model(folder, config, params)


MOMENTS = ["config.json.tmp", "params.safetensors.tmp", "params.safetensors", "config.json"]


@pytest.mark.parametrize("second", MOMENTS[:3])
@pytest.mark.parametrize("first", MOMENTS)
def test_a_kill_at_any_moment_leaves_a_whole_model(tmp_path, monkeypatch, first, second):
    storage.write_model(tmp_path, {"version": 0}, parameters(0))
    killed_save(monkeypatch, tmp_path, first, {"version": 1}, parameters(1))
    version = 1 if first == "config.json" else 0  # the tensors are new as soon as they are renamed
    config, params = load(tmp_path, parameters())
    assert config == {"version": version}
    assert_same(params, parameters(version))

    killed_save(monkeypatch, tmp_path, second, {"version": 2}, parameters(2))
    config, params = load(tmp_path, parameters())
    assert config == {"version": version}
    assert_same(params, parameters(version))

    storage.write_model(tmp_path, {"version": 3}, parameters(3))
    assert load(tmp_path, parameters())[0] == {"version": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "params.safetensors"]


def test_templates_may_be_shapes_only(tmp_path):
    storage.write_model(tmp_path, CONFIG, parameters())
    template = jax.eval_shape(lambda: jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), parameters()))
    assert_same(load(tmp_path, template)[1], parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda leaves: leaves.pop("layer_0/scale"), "lacks parameter 'layer_0/scale'"),
        (lambda leaves: leaves.update({"layer_9/x": np.zeros(2)}), "has an unknown parameter 'layer_9/x'"),
        (
            lambda leaves: leaves.update({"readout/kernel": np.zeros((2, 4))}),
            r"'readout/kernel' has shape \(2, 4\), the model needs \(4, 2\)",
        ),
        (lambda leaves: leaves["readout/kernel"].fill(np.nan), "'readout/kernel' is NaN"),
    ],
)
def test_wrong_leaves_are_named(change, message):
    leaves = tree.flatten_paths(parameters())
    change(leaves)
    with pytest.raises(ValueError, match=message):
        storage.fill_params(parameters(), leaves, "file")


def test_models_that_cannot_be_saved_leave_the_folder_alone(tmp_path):
    broken = parameters()
    broken["readout"]["kernel"][1, 1] = np.nan
    with pytest.raises(ValueError, match="'readout/kernel' is NaN"):
        storage.write_model(tmp_path / "model", CONFIG, broken)
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        storage.write_model(tmp_path / "model", {"cutoff": float("inf")}, parameters())
    with pytest.raises(ValueError, match="cannot be written as JSON: set is not JSON"):
        storage.write_model(tmp_path / "model", {"species": {1, 8}}, parameters())
    with pytest.raises(ValueError, match="'kernel' is bfloat16"):
        storage.write_model(tmp_path / "model", CONFIG, {"kernel": jnp.zeros(3, jnp.bfloat16)})
    assert not (tmp_path / "model").exists()


def test_damaged_folders(tmp_path):
    with pytest.raises(ValueError, match="not a saved model"):
        storage.read_model(tmp_path)
    storage.write_model(tmp_path, CONFIG, parameters())
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "cutoff": 5.0}))
    with pytest.raises(ValueError, match=r"config\.json is missing, was edited"):
        storage.read_model(tmp_path)
    content = (tmp_path / "params.safetensors").read_bytes()
    (tmp_path / "params.safetensors").write_bytes(content[:-5])
    with pytest.raises(ValueError, match="damaged or not a safetensors file"):
        storage.read_model(tmp_path)
    storage.write_model(tmp_path, CONFIG, parameters())
    assert storage.read_model(tmp_path)[0] == CONFIG


def with_one_bit_flipped(content, place):
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def test_a_flipped_bit_anywhere_and_a_wrong_length_are_refused(tmp_path):
    storage.write_model(tmp_path, CONFIG, parameters())
    for name in ("params.safetensors", "config.json"):
        content = (tmp_path / name).read_bytes()
        damaged = [with_one_bit_flipped(content, place) for place in range(len(content))]
        for wrong in (*damaged, content[:-1], content + b"\0", b""):
            (tmp_path / name).write_bytes(wrong)
            with pytest.raises(ValueError, match=r"damaged|edited|not a saved model|is empty") as error:
                load(tmp_path, parameters())
            assert "\n" not in str(error.value)
            assert str(error.value).startswith(str(tmp_path))
        (tmp_path / name).write_bytes(content)
        assert_same(load(tmp_path, parameters())[1], parameters())


def test_folders_of_versions_without_a_digest_of_the_tensors_load(tmp_path):
    leaves = {path: np.array(leaf, order="C") for path, leaf in tree.flatten_paths(parameters()).items()}
    text = json.dumps(CONFIG).encode()
    (tmp_path / "config.json").write_bytes(text)
    metadata = {"config_sha256": hashlib.sha256(text).hexdigest()}
    safetensors.numpy.save_file(leaves, tmp_path / "params.safetensors", metadata=metadata)
    config, params = load(tmp_path, parameters())
    assert config == CONFIG
    assert_same(params, parameters())


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((4, 2), np.inf), "is infinite in 8 places"),
        (np.zeros((4, 2), np.int32), "is int32, not floating-point"),
        (np.full((4, 2), 1e30), "has a value of 1e"),
        (np.zeros((4, 2), complex), "is complex128, not floating-point"),
    ],
)
def test_numbers_that_can_be_no_parameters_are_refused(tmp_path, value, message):
    leaves = {**tree.flatten_paths(parameters()), "readout/kernel": value}
    with pytest.raises(ValueError, match=f"file: parameter 'readout/kernel' {message}"):
        storage.fill_params(parameters(), leaves, "file")
    with pytest.raises(ValueError, match="'readout/kernel'"):
        storage.write_model(tmp_path, CONFIG, tree.unflatten_paths(leaves))
    assert not list(tmp_path.iterdir())
