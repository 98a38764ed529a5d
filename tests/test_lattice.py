"""Nearest images and reduced bases against searches over very many images, in lattice vectors chosen at random."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from ase.geometry import find_mic, is_minkowski_reduced
from hypothesis import given, settings
from hypothesis import strategies as st

from mlipjax.lattice import (
    completed,
    heights,
    inverse,
    minimum_image,
    nearest_translations,
    reduced,
    share_of_period,
    shortest_period,
)

LATTICES = {
    "cubic": np.eye(3) * 4.0,
    "fcc": np.array([[0, 2, 2], [2, 0, 2], [2, 2, 0.0]]),
    "bcc": np.array([[-2, 2, 2], [2, -2, 2], [2, 2, -2.0]]),
    "hexagonal": np.array([[3, 0, 0], [-1.5, 1.5 * np.sqrt(3), 0], [0, 0, 5.0]]),
    "triclinic": np.array([[3.1, 0, 0], [0.7, 4.3, 0], [-1.1, 0.4, 5.2]]),
    "needle": np.array([[2.0, 0, 0], [0.3, 30.0, 0], [0.1, 0.2, 2.1]]),
}
PERIODICITIES = [pbc for pbc in itertools.product((True, False), repeat=3) if any(pbc)]


def skewed(seed, steps=6, size=3):
    """Integer matrix of determinant ±1: whole multiples of rows added to other rows, rows permuted and turned round."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(3, dtype=int)[rng.permutation(3)]
    for _ in range(steps):
        i, j = rng.permutation(3)[:2]
        matrix[i] += rng.integers(-size, size + 1) * matrix[j]
    return matrix * rng.choice([-1, 1], 3)[:, None]


@pytest.mark.parametrize("name", LATTICES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_the_nearest_image_does_not_depend_on_the_lattice_vectors(name, seed):
    lattice = LATTICES[name]
    cell = skewed(seed) @ lattice
    rng = np.random.default_rng(seed)
    vectors = rng.uniform(-30, 30, (20, 3))
    known = find_mic(vectors, lattice, True)[1]
    found = minimum_image(vectors, cell, (True,) * 3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), known, atol=1e-8)
    steps = (found - vectors) @ np.linalg.inv(lattice)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    basis, matrix = reduced(cell)
    assert is_minkowski_reduced(basis, True) or np.allclose(np.sort(np.linalg.norm(basis, axis=1)), _lengths(lattice))
    assert abs(round(np.linalg.det(matrix))) == 1
    np.testing.assert_allclose(matrix @ cell, basis, atol=1e-8)


def _lengths(lattice):
    return np.sort(np.linalg.norm(reduced(lattice)[0], axis=1))


@pytest.mark.parametrize("name", LATTICES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_all_images_that_are_equally_near_are_found(name, seed):
    """Of points of high symmetry, which have up to eight; by a search over 15^3 images of the shortest basis."""
    lattice, cell = LATTICES[name], skewed(seed) @ LATTICES[name]
    around = np.array(list(itertools.product(range(-7, 8), repeat=3))) @ lattice
    points = np.array([[0.5, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5], [1 / 3, 2 / 3, 0.5], [0.25] * 3, [0, 0, 0]])
    vectors = points @ lattice
    for vector, translations in zip(vectors, nearest_translations(vectors, cell, (True,) * 3), strict=True):
        lengths = np.linalg.norm(vector + around, axis=1)
        images = vector + translations @ cell
        np.testing.assert_allclose(np.linalg.norm(images, axis=1), lengths.min(), atol=1e-6)
        assert len(images) == np.sum(lengths < lengths.min() + 1e-4)
        assert len(np.unique(np.round(images, 4) + 0.0, axis=0)) == len(images)


@pytest.mark.parametrize("pbc", PERIODICITIES)
def test_open_directions_have_no_images_whatever_stands_in_the_cell(pbc):
    rng = np.random.default_rng(1)
    lattice = LATTICES["triclinic"]
    vectors = rng.uniform(-20, 20, (50, 3))
    periodic = np.array(pbc)
    around = np.array(list(itertools.product(*(range(-8, 9) if along else [0] for along in pbc)))) @ lattice
    known = np.array([np.linalg.norm(vector + around, axis=1).min() for vector in vectors])
    for nonsense in (0.0, lattice[np.argmax(periodic)], lattice.sum(axis=0)):
        cell = lattice.copy()
        cell[~periodic] = nonsense
        found = minimum_image(vectors, cell, pbc)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), known, atol=1e-9)
        for vector, translations in zip(vectors, nearest_translations(vectors, cell, pbc), strict=True):
            assert not translations[:, ~periodic].any()
            nearest = np.linalg.norm(vector + translations[0] @ completed(cell, pbc))
            assert nearest == pytest.approx(np.linalg.norm(minimum_image(vector, cell, pbc)))
    assert np.array_equal(minimum_image(vectors, np.zeros((3, 3)), (False,) * 3), vectors)


def test_a_half_way_vector_has_another_image_as_short():
    cell = skewed(5) @ LATTICES["hexagonal"]
    halfway = 0.5 * LATTICES["hexagonal"][0]
    assert share_of_period(halfway, cell, (True,) * 3) == pytest.approx(0.5)
    assert share_of_period(0.6 * halfway, cell, (True,) * 3) == pytest.approx(0.3)
    assert share_of_period(halfway, cell, (False,) * 3) == 0.0


def test_periods_and_heights():
    assert shortest_period(skewed(9) @ LATTICES["fcc"], (True,) * 3) == pytest.approx(np.sqrt(8))
    assert shortest_period(np.zeros((3, 3)), (False,) * 3) == np.inf
    np.testing.assert_allclose(heights(LATTICES["hexagonal"]), [1.5 * np.sqrt(3), 1.5 * np.sqrt(3), 5.0])
    with pytest.raises(ValueError, match="linearly dependent"):
        reduced(np.array([[1.0, 0, 0], [2, 0, 0], [0, 0, 1]]))


@pytest.mark.parametrize("name", LATTICES)
def test_inverses(name):
    lattices = np.stack([skewed(seed) @ LATTICES[name] for seed in range(5)])
    np.testing.assert_allclose(inverse(lattices) @ lattices, np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-9)
    single = inverse(jnp.asarray(LATTICES[name], jnp.float32), jnp)
    np.testing.assert_allclose(single, np.linalg.inv(LATTICES[name]), atol=1e-6)
