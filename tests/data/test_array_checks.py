"""Many structures at a time pass the checks that one alone passes."""

import itertools

import numpy as np
import pytest

from mlipjax.data.checks import check_counts, check_system, check_systems
from mlipjax.data.labels import MAX_ENERGY, MAX_FORCE, MAX_STRESS, check_label_arrays


def some(rng, n):
    """Structures of 1 to 6 atoms, good and bad: flat, tiny, huge or dense cells, atoms far out or of no element."""
    counts = rng.integers(1, 7, n)
    total = int(counts.sum())
    cells = rng.normal(size=(n, 3, 3)) * rng.choice([0.3, 1.0, 4.0, 1e5, 1e7], (n, 1, 1))
    cells[rng.random(n) < 0.3, 2] = 0.0
    cells[rng.random(n) < 0.1, 0] = np.nan
    positions = rng.normal(size=(total, 3)) * rng.choice([1.0, 1e6], (total, 1), p=[0.95, 0.05])
    positions[rng.random(total) < 0.02, 1] = np.inf
    numbers = rng.choice([1, 8, 118, 0, 119], total, p=[0.5, 0.3, 0.16, 0.02, 0.02])
    pbc = rng.random((n, 3)) < rng.choice([0.0, 0.6, 1.0], (n, 1))
    return numbers, positions, counts, cells, pbc


def test_the_first_structure_that_is_none_alone_is_none_among_many():
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        numbers, positions, counts, cells, pbc = some(rng, 4)
        starts = np.concatenate([[0], np.cumsum(counts)])

        parts = [slice(*ends) for ends in itertools.pairwise(starts.tolist())]
        alone = [
            complaint(check_system, numbers[part], positions[part], cells[row], pbc[row], f"structure {row}")
            for row, part in enumerate(parts)
        ]
        expected = next(filter(None, alone), None)
        where = "structure {}".format
        assert complaint(check_systems, numbers, positions, counts, cells, pbc, where) == expected
        refused += expected is not None
    assert 100 < refused < 400


def complaint(check, *arguments):
    """The message of a check, ``None`` if it has nothing to say."""
    try:
        check(*arguments)
    except ValueError as error:
        return str(error)
    return None


def test_the_last_of_thousands_is_found():
    n = 5000
    numbers, positions, counts = np.full(2 * n, 8), np.zeros((2 * n, 3)), np.full(n, 2)
    cells, pbc = np.broadcast_to(4.0 * np.eye(3), (n, 3, 3)).copy(), np.ones((n, 3), bool)
    check_systems(numbers, positions, counts, cells, pbc, str)
    cells[-1, 2] = [4.0, 0.0, 0.1]
    with pytest.raises(ValueError, match="4999: the cell is flat"):
        check_systems(numbers, positions, counts, cells, pbc, str)


def test_a_periodic_structure_without_a_cell_is_none():
    with pytest.raises(ValueError, match="periodic along lattice vector 0, which is zero"):
        check_systems(np.array([8]), np.zeros((1, 3)), np.array([1]), None, np.ones((1, 3), bool), str)


@pytest.mark.parametrize(
    ("name", "value", "limit"),
    [("energy", 2.0 * MAX_ENERGY, "eV"), ("forces", MAX_FORCE, "eV/Å"), ("stress", MAX_STRESS, "eV/Å.3")],
)
def test_labels_are_bounded(name, value, limit):
    """The bound of a total energy grows with the atoms: here two, two and one."""
    counts = np.array([2, 2, 1])
    shapes = {"energy": (3,), "forces": (5, 3), "stress": (3, 3, 3)}
    labels = {key: np.zeros(shape) for key, shape in shapes.items()}
    weights = {key: np.ones(3) for key in shapes}
    row = 2 if name == "forces" else 1  # the third atom is the first of structure 1
    for factor in (1.0, -1.0):
        labels[name][row] = factor * value
        check_label_arrays(labels, weights, counts, str)
        labels[name][row] = factor * 1.01 * value
        with pytest.raises(ValueError, match=f"1: {name} of .* {limit}, more than any atoms have"):
            check_label_arrays(labels, weights, counts, str)
    labels[name][row] = np.nan
    with pytest.raises(ValueError, match=f"1: {name} is not finite"):
        check_label_arrays(labels, weights, counts, str)


@pytest.mark.parametrize("weight", [np.nan, -1.0, np.inf])
def test_weights_are_finite_and_not_negative(weight):
    labels = {"energy": np.zeros(2)}
    with pytest.raises(ValueError, match="1: the weight of the energy is"):
        check_label_arrays(labels, {"energy": np.array([1.0, weight])}, np.array([1, 1]), str)


@pytest.mark.parametrize(
    ("counts", "message"),
    [([], "holds no structure"), ([3, -1, 2], "structure 1: 'n_atoms' is -1"), ([2, 1], "asks for 3"),
     ([2**62, 2**62, 2**62], "structure 0: 'n_atoms' is")],
)  # fmt: skip
def test_counts_add_up(counts, message):
    with pytest.raises(ValueError, match=message):
        check_counts(np.array(counts, np.int64), {"positions": 4}, "data.npz")
    check_counts(np.array([1, 3]), {"positions": 4}, "data.npz")
