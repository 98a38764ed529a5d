"""Both stages of pretraining, on a slice of the embedded data."""

import json

import jax
import numpy as np
import pytest

import mlipjax
from experiments.lab.embedded import pack, unpack
from experiments.pretrain import __main__ as pretrain

TINY = ["--hidden-irreps", "8x0e + 4x1o", "--n-layers", "2", "--lmax", "1", "--cutoff", "3.5", "--batch-size", "8"]


def distance(a, b):
    squares = jax.tree.map(lambda x, y: float(np.sum((np.asarray(x) - np.asarray(y)) ** 2)), a, b)
    return np.sqrt(sum(jax.tree.leaves(squares)))


@pytest.mark.slow
def test_supervised_training_goes_on_from_the_denoised_model(tmp_path):
    # few elements, so that every part of the split has all of them
    frames = [atoms for atoms in unpack(dict(np.load(pretrain.Config().data))) if set(atoms.numbers) == {1, 8}]
    data, out = tmp_path / "slice.npz", tmp_path / "run"
    np.savez(data, **pack(frames[:120]))
    arguments = ["--data", str(data), "--out", str(out), "--epochs", "2", "--denoise-epochs", "2", *TINY]
    assert pretrain.run(arguments) == 0
    _, denoised = mlipjax.load(f"{out}-denoise")
    potential, trained = mlipjax.load(out)
    fresh = potential.init(jax.random.key(0))
    assert 0.0 < distance(trained, denoised) < distance(trained, fresh)
    assert json.loads((out / "results.json").read_text())["test"]["n_frames"] > 0


def test_bad_input_is_one_line_and_no_success(tmp_path, capsys):
    assert pretrain.run(["--data", str(tmp_path / "none.npz"), "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.splitlines()) == 1
