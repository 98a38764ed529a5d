"""The SOAP chart: invariance, closed forms of Q, the band, refusals. The descriptor itself is dscribe's."""

import numpy as np
import pytest
from ase import Atoms

from mlipjax.monitoring import soap
from mlipjax.system import System

needs_dscribe = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("dscribe") is None, reason='dscribe is not installed (extra "soap")'
)


def liquid(seed, n=12, squeeze=1.0):
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3), -1).reshape(-1, 3)[:n] * 2.2 * squeeze
    numbers = [1, 8, 8] * (n // 3)
    cell = [6.6 * squeeze] * 3
    return System.from_ase(Atoms(numbers, grid + 0.15 * rng.normal(size=(n, 3)), cell=cell, pbc=True))


@needs_dscribe
def test_vectors_do_not_change_with_rotation_and_have_the_length_of_the_formula():
    system = liquid(0)
    turned = system.to_ase()
    turned.rotate(33.0, (1.0, 2.0, 0.5), rotate_cell=True)
    plain, rotated = soap.soap_vectors([system, System.from_ase(turned)], (1, 8))
    # pairs of (element, n): 2 elements x 8 radial functions, of each l = 0..6
    assert plain.shape == (12, 16 * 17 // 2 * 7)
    np.testing.assert_allclose(rotated, plain, rtol=1e-3, atol=1e-4 * np.abs(plain).max())


@needs_dscribe
def test_q_is_what_pca_leaves_out_and_grows_under_compression():
    reference = [liquid(seed) for seed in range(8)]
    chart = soap.fit_soap(reference)
    own = np.concatenate(chart.q(reference))
    vectors = np.concatenate(soap.soap_vectors(reference, chart.species)).astype(np.float64)
    variances = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    # summed over the fitted atoms, Q is the variance beyond the kept components
    assert own.sum() == pytest.approx(variances[soap.COMPONENTS :].sum(), rel=1e-2)
    assert chart.explained == pytest.approx(variances[: soap.COMPONENTS].sum() / variances.sum(), rel=1e-2)
    new, squeezed = (np.concatenate(chart.q([liquid(99, squeeze=s)])).mean() for s in (1.0, 0.85))
    assert squeezed > 2.0 * new


@needs_dscribe
def test_an_element_that_the_reference_lacks_is_refused():
    with pytest.raises(ValueError, match=r"found \[8\] too"):
        soap.soap_vectors([liquid(0)], (1,))


def test_means_per_element_and_band():
    systems = [System.from_ase(Atoms("HHO", np.eye(3))), System.from_ase(Atoms("HH", np.eye(3)[:2]))]
    means = soap.element_means([np.array([1.0, 3.0, 5.0]), np.array([2.0, 4.0])], systems)
    np.testing.assert_array_equal(means[1], [2.0, 3.0])
    np.testing.assert_array_equal(means[8], [5.0, np.nan])
    assert soap.band(np.array([1.0, 3.0])) == (0.0, 4.0)


def test_without_dscribe_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dscribe.descriptors", None)
    with pytest.raises(ValueError, match=r"mlipjax\[soap\]"):
        soap.soap_vectors([liquid(0)], (1, 8))
