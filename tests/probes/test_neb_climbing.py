"""Climbing images on analytic surfaces: those that arrive, those that run away, and the barrier between images."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ase import Atoms
from scipy.interpolate import CubicHermiteSpline

from mlipjax.graph import VerletSpec
from mlipjax.potential import Model, Potential
from mlipjax.probes import initial_path, neb
from mlipjax.relaxation import converged_barrier
from mlipjax.relaxation.band import between_images
from mlipjax.relaxation.batch import evaluate
from mlipjax.system import System

FREE = np.array([[False] * 3, [True, True, False]])  # one atom stays, the other one moves in a plane


@dataclasses.dataclass(frozen=True)
class Surface:
    """Any energy of where one atom is beside another one, in the plane 1 Å above it."""

    energy: Callable
    feature_sizes: ClassVar[tuple[int, ...]] = (1,)

    def apply(self, variables, graph, vectors, species):
        del species
        x, y, z = jnp.moveaxis(vectors, -1, 0)
        counts = graph.edge_mask & (z > 0)  # of both directed edges the one that begins at the atom below
        energy = jnp.sum(jnp.where(counts, self.energy(variables["params"], x, y), 0.0), axis=1)[:, None]
        return energy, energy


def on_line(params, x):
    """Two minima at x = ±1 Å with a barrier between them, and ``tilt`` more energy at the second."""
    return params["barrier"] * (1.0 - x**2) ** 2 + 0.25 * params["tilt"] * (2.0 + 3.0 * x - x**3)


def bent(params, x, y):
    """The same along a parabola, in a valley of given stiffness."""
    return on_line(params, x) + 0.5 * params["stiffness"] * (y - params["bend"] * x**2) ** 2


SURFACE = Potential(Surface(bent), None, 9.0, (1,), ("energy",), np.array([[0.0]]))
STRAIGHT = {"barrier": np.float64(0.5), "tilt": np.float64(0.2), "stiffness": np.float64(5.0), "bend": np.float64(0.0)}
BENT = {"barrier": np.float64(0.5), "tilt": np.float64(0.3), "stiffness": np.float64(10.0), "bend": np.float64(2.0)}


def ends(params):
    return [System.from_ase(Atoms("H2", [[0, 0, 0], [x, params["bend"], 1]])) for x in (-1.0, 1.0)]


def band(params, n_images, **options):
    options = {"fmax": 0.01, "free": FREE, "dtype": "float64", "interpolation": "linear", **options}
    return neb(Model(SURFACE, params), ends(params), n_images=n_images, **options)


# sizes of no other test here
SPEC = VerletSpec.for_systems(ends(STRAIGHT), 9.0, skin=1.5)


def saddle(params):
    """Energy of the saddle point above the first minimum: both surfaces have the one of the line."""
    return on_line(params, np.linspace(-1.0, 1.0, 20001)).max()


@pytest.fixture(scope="module")
def astray():
    """Two images between the ends of a bent path, whose chords meet at about a right angle: one climbs out of it."""
    return band(BENT, 4, fmax=0.05)


def test_an_image_that_runs_away_costs_little_and_leaves_the_plain_band(astray):
    plain = band(BENT, 4, fmax=0.05, climb=False)
    assert plain.converged
    assert not plain.ran_away
    assert astray.ran_away
    assert not astray.climbed
    assert astray.converged
    # without the guard the image is at thousands of eV after 100 evaluations
    assert plain.steps < astray.steps < 2 * plain.steps
    np.testing.assert_array_equal(astray.positions, plain.positions)
    np.testing.assert_array_equal(astray.energies_eV, plain.energies_eV)


def test_the_verdict_says_that_the_image_ran_away(astray):
    assert astray.verdict.startswith(f"barrier {astray.interpolated_barrier_eV:.3f} eV forward")
    assert "the climbing image ran away, more images are needed" in astray.verdict
    energies = astray.energies_eV - np.array([0.0, 0.5, 0.0, 0.0])
    valley = dataclasses.replace(astray, energies_eV=energies).verdict
    assert "more images or a split at image 1, lower than both ends, are needed" in valley
    assert valley.count("lower than both ends") == 1
    assert astray.as_dict()["ran_away"] is True


def test_more_images_find_the_saddle_point_of_the_same_path():
    found = band(BENT, 9, fmax=0.02)
    assert found.converged
    assert found.climbed
    assert not found.ran_away
    assert found.barrier_eV == found.forward_barrier_eV == pytest.approx(saddle(BENT), abs=1e-3)


def test_steps_in_vain_are_not_taken_from_the_band():
    """A limit that suffices for the plain band suffices, wherever the climb went."""
    plain = band(BENT, 4, fmax=0.05, climb=False)
    limited = band(BENT, 4, fmax=0.05, max_steps=plain.steps)
    assert limited.converged
    np.testing.assert_array_equal(limited.positions, plain.positions)


def test_a_barrier_that_cannot_be_climbed_has_no_derivative():
    with jax.enable_x64(True):
        path = initial_path(ends(BENT), 4, "linear")
        images = [dataclasses.replace(ends(BENT)[0], positions=positions) for positions in path]
        barrier = converged_barrier(SURFACE, images, free=FREE, fmax=0.05, skin=4.0)
        assert np.isnan(float(barrier(BENT)))


def test_images_ends_and_band_share_one_program_and_a_second_band_compiles_nothing():
    before = evaluate._cache_size()
    band({**STRAIGHT, "tilt": np.float64(0.1)}, 4, spec=SPEC)
    assert evaluate._cache_size() == before + 1
    band(STRAIGHT, 4, fmax=0.05, climb=False, spec=SPEC)
    assert evaluate._cache_size() == before + 1


@pytest.mark.parametrize("tilt", [0.0, 0.2, -0.3])
def test_the_cubics_between_plain_images_give_the_saddle_point(tilt):
    params = {**STRAIGHT, "tilt": np.float64(tilt)}
    exact = saddle(params)
    plain = band(params, 4, climb=False)
    assert plain.converged
    assert plain.forward_barrier_eV < 0.9 * exact  # no image is near the top
    assert plain.interpolated_barrier_eV == pytest.approx(exact, rel=0.02)
    assert plain.barrier_eV == plain.interpolated_barrier_eV
    assert f"interpolated, the highest image is at {plain.forward_barrier_eV:.3f} eV" in plain.verdict
    climbed = band(params, 4)
    assert climbed.climbed
    assert climbed.barrier_eV == pytest.approx(exact, abs=1e-3)
    # the climbing image is at the top, so there is nothing above it
    assert climbed.interpolated_barrier_eV == pytest.approx(climbed.forward_barrier_eV, abs=1e-3)


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_cubics_are_those_of_scipy(array):
    rng = np.random.default_rng(0)
    gaps, energies, slopes = rng.uniform(0.5, 2.0, 4), rng.normal(size=5), rng.normal(size=5)
    ours = between_images(array(energies), array(slopes), array(gaps))
    x = np.concatenate([[0.0], np.cumsum(gaps)])
    where = x[:-1, None] + gaps[:, None] * np.linspace(0.0, 1.0, 41)
    np.testing.assert_allclose(ours, CubicHermiteSpline(x, energies, slopes)(where), atol=1e-5)
