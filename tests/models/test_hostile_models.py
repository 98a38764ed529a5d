"""Hostile and broken model files: refused in one line that names the file, in seconds and little memory."""

import os
import resource
import time

import numpy as np
import pytest
from hostile_models import (
    CONFIG,
    HEADER,
    MACE_FILE,
    SEVENNET_FILE,
    folder_cases,
    mutated,
    nqx,
    nqx_cases,
    torch_cases,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mlipjax
from mlipjax.models import NequIPConfig, nequip
from mlipjax.models.importers.nqx import _parameter_names
from mlipjax.tree import flatten_paths

LIMIT_S, LIMIT_KB = 10.0, 1_000_000


def write(path, content):
    """Write a file, or a folder of files."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return path
    path.mkdir(exist_ok=True)
    for name, part in content.items():
        (path / name).write_bytes(part)
    return path


def refuse(path):
    """Load what must be refused; return the message, the processor seconds and the memory that it took."""
    start, memory = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises((ValueError, OSError)) as error:
        mlipjax.load(path)
    seconds = time.process_time() - start
    message = str(error.value)
    assert message.startswith(str(path)), message[:300]
    assert "\n" not in message
    assert len(message) < 700
    assert seconds < LIMIT_S, message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < LIMIT_KB, message
    return message


@pytest.mark.parametrize(
    ("suffix", "cases"),
    [(".nqx", nqx_cases), (".model", torch_cases), (".pth", torch_cases), ("", folder_cases)],
    ids=["nqx", "mace", "sevennet", "own"],
)
def test_every_hostile_file_is_refused_in_one_line(tmp_path, suffix, cases):
    count = 0
    for name, content in cases():
        print(name)  # shown if it fails
        refuse(write(tmp_path / f"{count}{suffix}", content))
        count += 1
    assert count > 30


def test_a_case_without_its_fault_loads(tmp_path):
    # otherwise everything above might be refused for another reason
    potential, params = small_model()
    loaded, _ = mlipjax.load(write(tmp_path / "a.nqx", small_nqx()))
    assert loaded.config == potential.config
    mlipjax.save(tmp_path / "own", potential, params)
    assert mlipjax.load(tmp_path / "own")[0].config == potential.config
    assert NequIPConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in CONFIG["config"].items()})


def small_model():
    config = NequIPConfig(
        species=(1, 8), cutoff=4.0, hidden_irreps="2x0e + 2x1o", lmax=1, n_layers=1, radial_basis_size=4,
        radial_hidden=(4,), avg_n_neighbors=9.0,
    )  # fmt: skip
    import jax

    potential = nequip(config, np.array([-1.0, -30.0]))
    shapes = jax.eval_shape(potential.init, jax.random.key(0))
    return potential, jax.tree.map(lambda leaf: np.full(leaf.shape, 0.25, np.float32), shapes)


def small_nqx():
    potential, params = small_model()
    leaves = flatten_paths(params)
    names = _parameter_names(potential.config)[1:]
    return nqx(HEADER, [np.array([-1.0, -30.0], np.float32), *(leaves[name] for name in names)])


@pytest.mark.parametrize("suffix", ["", ".nqx", ".model"])
def test_what_is_no_file_is_refused(tmp_path, suffix):
    fifo = tmp_path / f"pipe{suffix}"
    os.mkfifo(fifo)
    assert "pipe or device" in refuse(fifo) or suffix == ""
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    assert "not a saved model" in refuse(folder)
    (folder / "params.safetensors").mkdir()
    refuse(folder)
    (tmp_path / f"gone{suffix}").symlink_to(tmp_path / "nowhere")
    with pytest.raises((ValueError, OSError), match="gone"):
        mlipjax.load(tmp_path / f"gone{suffix}")


@pytest.mark.parametrize("name", ["", " ", "universa", "~nobody-of-this-name/model", "a\0b", "x" * 5000, "[/red]"])
def test_names_of_no_model_are_refused(name):
    with pytest.raises((ValueError, OSError)) as error:
        mlipjax.load(name)
    assert "\n" not in str(error.value)
    assert name != "universa" or "did you mean universal?" in str(error.value)


SOURCES = {".nqx": small_nqx, ".model": MACE_FILE.read_bytes, ".pth": SEVENNET_FILE.read_bytes}


def check_mutations(folder, suffix, seeds):
    whole = SOURCES[suffix]()
    path = folder / f"a{suffix}"
    for seed in seeds:
        path.write_bytes(mutated(whole, np.random.default_rng(seed)))
        try:
            _, params = mlipjax.load(path)
        except (ValueError, OSError) as error:
            message = str(error)
        else:  # a flipped bit in a number is not to be seen
            message = str(path)
            assert all(np.isfinite(leaf).all() for leaf in flatten_paths(params).values())
        assert message.startswith(str(path))
        assert "\n" not in message


@pytest.mark.parametrize(("suffix", "count"), [(".nqx", 60), (".model", 40), (".pth", 40)])
def test_damaged_files_raise_nothing_else(tmp_path, suffix, count):
    check_mutations(tmp_path, suffix, range(count))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", list(SOURCES))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**63))
def test_damaged_files_raise_nothing_else_however_they_are_damaged(tmp_path, suffix, seed):
    check_mutations(tmp_path, suffix, [seed])


def test_a_damaged_folder_never_loads(tmp_path):
    mlipjax.save(tmp_path, *small_model())
    for name in ("config.json", "params.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for seed in range(100):
            content = mutated(whole, np.random.default_rng(seed))
            if content != whole:
                (tmp_path / name).write_bytes(content)
                refuse(tmp_path)
        (tmp_path / name).write_bytes(whole)
    mlipjax.load(tmp_path)
