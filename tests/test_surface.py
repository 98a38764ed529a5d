"""What ``import mlipjax`` offers."""

import subprocess
import sys

import pytest

import mlipjax


def test_every_public_name_resolves():
    assert sorted(mlipjax.__all__) == sorted(set(mlipjax.__all__))
    for name in mlipjax.__all__:
        assert getattr(mlipjax, name) is not None


def test_sub_packages_are_attributes_without_an_import_of_their_own():
    code = "import mlipjax; print(mlipjax.md.__name__, mlipjax.probes.__name__, mlipjax.data.read_atoms.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mlipjax.md", "mlipjax.probes", "read_atoms"]


def test_a_name_that_is_none_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'finetunes'"):
        mlipjax.finetunes  # noqa: B018


def test_importing_the_package_loads_no_jax():
    code = "import sys, mlipjax; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_loaded_model_is_named_and_unpacks():
    model = mlipjax.load("universal")
    potential, params = model
    assert isinstance(model, mlipjax.Model)
    assert potential is model.potential
    assert params is model.params
