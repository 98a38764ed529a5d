"""Values that can be the label of a structure, and values that cannot."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.oracles import BadLabelError, check_labels, make_labels
from mlipjax.system import Labels

N = 8
FORCES = np.random.default_rng(0).normal(size=(N, 3))
TENSOR = np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T


@pytest.mark.parametrize(
    "forces",
    [
        FORCES,
        FORCES.tolist(),
        FORCES.astype(np.float32),
        np.ones((N, 3), int),
        jnp.asarray(FORCES),
        np.ma.array(FORCES),
    ],
    ids=["array", "lists", "float32", "integers", "jax", "nothing masked"],
)
def test_real_numbers_of_the_right_shape_are_copied_as_float64(forces):
    labels = make_labels(N, np.float32(-3.0), forces, TENSOR)
    assert labels.forces.dtype == labels.energy.dtype == labels.stress.dtype == np.float64
    np.testing.assert_array_equal(labels.forces, np.asarray(forces))
    assert (labels.energy, labels.energy_weight, labels.forces_weight, labels.stress_weight) == (-3.0, 1.0, 1.0, 1.0)


def test_a_buffer_that_its_owner_overwrites_later_is_copied():
    buffer = FORCES.copy()
    labels = make_labels(N, 0.0, buffer)
    buffer[:] = 0.0
    np.testing.assert_array_equal(labels.forces, FORCES)
    buffer.setflags(write=False)
    make_labels(N, 0.0, buffer)


@pytest.mark.parametrize("stress", [TENSOR, TENSOR.ravel(), TENSOR[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]])
def test_stress_comes_as_a_tensor_or_in_voigt_order(stress):
    np.testing.assert_array_equal(make_labels(N, 0.0, FORCES, stress).stress, TENSOR)


def test_what_is_missing_has_no_weight():
    labels = make_labels(N, None, FORCES)
    assert (labels.energy_weight, labels.forces_weight, labels.stress_weight) == (0.0, 1.0, 0.0)


def with_value(value, shape):
    array = np.zeros(shape, np.asarray(value).dtype)
    array[..., -1] = value
    return array


BAD_NUMBERS = {
    "nan": np.nan,
    "infinite": np.inf,
    "absurd": 1e300,
    "complex": 1.0 + 0.0j,
    "text": "1.0",
    "objects": None,
    "truth values": True,
}


@pytest.mark.parametrize("value", BAD_NUMBERS.values(), ids=BAD_NUMBERS)
@pytest.mark.parametrize("name", ["energy", "forces", "stress"])
def test_numbers_that_are_none_are_refused_by_name(name, value):
    given = {"energy": 0.0, "forces": FORCES, "stress": TENSOR}
    shape = {"energy": (1,), "forces": (N, 3), "stress": (3, 3)}[name]
    with pytest.raises(BadLabelError, match=name):
        make_labels(N, **{**given, name: with_value(value, shape)})


@pytest.mark.parametrize("shape", [(7, 3), (9, 3), (1, 3), (3,), (24,), (8, 1), (8, 6), (3, 8), (1, 8, 3), (0,), ()])
def test_forces_of_another_shape_are_refused(shape):
    with pytest.raises(BadLabelError, match=r"forces: found shape .*, expected \(8, 3\)"):
        make_labels(N, 0.0, np.zeros(shape))


@pytest.mark.parametrize(
    "change",
    [
        {"energy": np.zeros(N)},
        {"energy": np.zeros((1, 1))},
        {"stress": np.zeros(3)},
        {"stress": np.zeros((6, 6))},
        {"stress": 0.0},
        {"forces": [[0.0, 0.0, 0.0]] * 7 + [[0.0, 0.0]]},
        {"forces": np.ma.masked_greater(FORCES, 0.0)},
        {"forces": {"forces": FORCES}},
        {"energy": lambda: 0.0},
    ],
)
def test_other_shapes_and_things_are_refused(change):
    with pytest.raises(BadLabelError, match=next(iter(change))):
        make_labels(N, **{"energy": 0.0, "forces": FORCES, "stress": TENSOR, **change})


def test_labels_of_an_oracle_are_checked_with_their_weights():
    good = Labels.create(N, -1.0, FORCES, weight=0.5)
    assert check_labels(good, N, required=("energy", "forces")).forces_weight == 0.5
    # whatever has no weight is not read
    assert not check_labels(dataclasses.replace(good, stress=np.nan), N).stress.any()
    for bad, message in (
        (None, "NoneType, expected Labels"),
        ((1.0, FORCES), "tuple, expected Labels"),
        (Labels.create(N, -1.0), "no forces"),
        (dataclasses.replace(good, energy=np.nan), "energy is not finite"),
        (dataclasses.replace(good, forces=FORCES[:7]), r"found shape \(7, 3\)"),
        (dataclasses.replace(good, energy_weight=-1.0), "weight of the energy is -1"),
        (dataclasses.replace(good, forces_weight=np.nan), "weight of the forces"),
    ):
        with pytest.raises(BadLabelError, match=message):
            check_labels(bad, N, required=("energy", "forces"))


def test_labels_are_never_made_of_complex_numbers_or_text():
    for value in (1j, "1.0", [None]):
        with pytest.raises(ValueError, match="energy must be real numbers"):
            Labels.create(N, value)
