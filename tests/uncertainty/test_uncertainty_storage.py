"""Error bars beside a model: the same bits come back, and nothing that belongs elsewhere."""

import json

import jax
import numpy as np
import pytest
from bars_case import model, posterior

from mlipjax import uncertainty
from mlipjax.potential import Model


def joined():
    potential, params = model()
    other = jax.tree.map(lambda leaf: 1.1 * leaf, params)
    return uncertainty.committee(params, [other], np.zeros((2, len(potential.species))))


def test_what_is_saved_comes_back(tmp_path):
    for estimator, method in ((posterior(), "llpr"), (joined(), "committee")):
        file = uncertainty.save_uncertainty(tmp_path, model(), estimator, {"n_train": 8})
        assert file.name == f"{method}.npz"
        found = uncertainty.load_uncertainty(tmp_path, model(), method)
        assert jax.tree.structure(found) == jax.tree.structure(estimator)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(estimator), strict=True):
            np.testing.assert_array_equal(one, other)
        with np.load(file, allow_pickle=False) as saved:
            assert json.loads(str(saved["header"]))["facts"] == {"n_train": 8}
    drawn, again = (uncertainty.load_uncertainty(tmp_path, model(), "shallow:5") for _ in range(2))
    np.testing.assert_array_equal(drawn.members["readout_energy/kernel"], again.members["readout_energy/kernel"])
    assert len(drawn.e0s) == 5


@pytest.mark.parametrize("method", ["dropout", "llpr:5", "shallow:many", "shallow:-1", ""])
def test_unknown_methods_are_refused(tmp_path, method):
    with pytest.raises(ValueError, match="choose llpr, shallow, shallow:MEMBERS or committee"):
        uncertainty.load_uncertainty(tmp_path, model(), method)


def test_other_models_and_damage_are_refused(tmp_path):
    potential, params = model()
    with pytest.raises(FileNotFoundError, match="no error bars of this kind"):
        uncertainty.load_uncertainty(tmp_path, model(), "llpr")
    file = uncertainty.save_uncertainty(tmp_path, model(), posterior(), {})
    other = Model(potential, jax.tree.map(lambda leaf: 1.1 * leaf, params))
    with pytest.raises(ValueError, match="belongs to another model"):
        uncertainty.load_uncertainty(tmp_path, other, "llpr")
    with pytest.raises(ValueError, match=r"belongs to the head 'energy', 'other' was chosen"):
        uncertainty.load_uncertainty(tmp_path, Model(potential.replace(heads=("other",)), params), "llpr")
    with np.load(file) as found:
        arrays = dict(found)
    for name, broken in {
        "ridge": np.zeros(()),
        "scale": np.array([1.0, np.nan]),
        "eigenvalues": arrays["eigenvalues"][:-1],
        "basis": arrays["basis"].astype(int),
        "header": np.asarray("{}"),
    }.items():
        np.savez(file, **{**arrays, name: broken})
        with pytest.raises(ValueError, match=r"llpr\.npz: no error bars saved by mlipjax, or damaged"):
            uncertainty.load_uncertainty(tmp_path, model(), "llpr")
    file.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="damaged"):
        uncertainty.load_uncertainty(tmp_path, model(), "llpr")
