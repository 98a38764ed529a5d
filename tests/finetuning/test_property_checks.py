import numpy as np
import pytest
from tiny_potential import tiny_potential

from mlipjax.data.properties import label_property
from mlipjax.finetuning.properties import check_properties
from mlipjax.notices import Notice
from mlipjax.system import System


def values(n, seed, scale=1.0, z=1):
    rng = np.random.default_rng(seed)
    systems = [System(rng.normal(size=(2, 3)), np.array([1, z]), np.zeros((3, 3)), (False,) * 3) for _ in range(n)]
    return label_property(systems, "gap", scale * rng.normal(5.0, 1.0, n))


def test_sets_of_one_unit_pass(recwarn):
    check_properties(tiny_potential(), "gap", values(60, 0), values(40, 1))
    assert not recwarn.list


@pytest.mark.parametrize("factor", [27.2114, 1.0 / 27.2114, 23.06, 96.485, 1e-3])
def test_validation_values_in_another_unit_are_refused(factor):
    with pytest.raises(ValueError, match=r"validation values of 'gap' are .* Write both in one unit"):
        check_properties(tiny_potential(), "gap", values(60, 0), values(40, 1, factor))


def test_unknown_elements_name_the_set():
    with pytest.raises(ValueError, match=r"validation structures of 'gap'.*does not know Cl"):
        check_properties(tiny_potential(), "gap", values(4, 0), values(4, 1, z=17))


def test_structures_in_both_sets_are_said():
    train = values(30, 0)
    with pytest.warns(Notice, match="5 of 5 validation structures"):
        check_properties(tiny_potential(), "gap", train, train.subset(range(5)))


@pytest.mark.parametrize("scale", [-1.0, 1000.0, 1e-3])
def test_a_few_validation_values_far_from_those_of_training_are_said(scale):
    with pytest.warns(Notice, match=r"validation values of 'gap' lie around .* check that they are the same property"):
        check_properties(tiny_potential(), "gap", values(12, 0), values(6, 1, scale))
