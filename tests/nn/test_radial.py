import e3nn_jax as e3nn
import jax
import numpy as np
import pytest

from mlipjax.nn.radial import (
    RadialNetwork,
    bessel_basis,
    bessel_frequencies,
    polynomial_envelope,
    xplor_envelope,
)

CUTOFF = 4.5
DISTANCES = np.linspace(0.3, 4.4, 23)


def test_bessel_functions_equal_those_of_e3nn_up_to_the_prefactor():
    frequencies = bessel_frequencies(8, CUTOFF)
    ours = bessel_basis(DISTANCES, frequencies, CUTOFF)
    with jax.numpy_rank_promotion("allow"):
        expected = e3nn.bessel(DISTANCES, 8, CUTOFF) * (2.0 / CUTOFF) ** 0.5
    np.testing.assert_allclose(ours, expected, rtol=1e-12, atol=1e-13)
    in_single = bessel_basis(DISTANCES.astype(np.float32), frequencies.astype(np.float32), CUTOFF)
    assert in_single.dtype == np.float32


@pytest.mark.parametrize("p", [4.0, 6.0])
def test_the_envelope_equals_that_of_e3nn(p):
    ours = polynomial_envelope(DISTANCES, CUTOFF, p)
    np.testing.assert_allclose(ours, e3nn.poly_envelope(int(p) - 1, 2, CUTOFF)(DISTANCES), atol=1e-12)


def test_the_envelope_goes_from_one_to_zero_with_two_derivatives():
    def envelope(x):
        return polynomial_envelope(x, CUTOFF, 6.0)

    for function in (envelope, jax.grad(envelope), jax.grad(jax.grad(envelope))):
        assert abs(function(CUTOFF * (1.0 - 1e-12))) < 1e-9
        assert function(CUTOFF) == function(CUTOFF + 0.1) == 0.0
    assert envelope(0.0) == 1.0
    assert np.all(np.diff(envelope(DISTANCES)) < 0.0)


def test_the_switch_is_one_before_its_onset_and_has_a_slope_at_neither_end():
    def switch(x):
        return xplor_envelope(x, 3.0, CUTOFF)

    for x, expected in ((0.1, 1.0), (3.0, 1.0), (CUTOFF, 0.0), (CUTOFF + 0.1, 0.0)):
        assert switch(x) == expected
        assert jax.grad(switch)(x) == 0.0
    between = np.linspace(3.0, CUTOFF, 9)
    assert np.all(np.diff(switch(between)) < 0.0)
    assert abs(switch(CUTOFF - 1e-6)) < 1e-10


def test_exponents_need_not_be_whole():
    nearly_six = polynomial_envelope(DISTANCES, CUTOFF, 6.0 + 1e-12)
    np.testing.assert_allclose(nearly_six, polynomial_envelope(DISTANCES, CUTOFF, 6.0), atol=1e-10)


def test_kernels_have_the_sizes_and_variances_asked_for():
    network = RadialNetwork((8, 64, 32), 200, gain=4.0)
    params = network.init(jax.random.key(0))["params"]
    shapes = {name: kernel.shape for name, kernel in params.items()}
    assert shapes == {"kernel_0": (8, 64), "kernel_1": (64, 32), "kernel_2": (32, 200)}
    for name, gain in (("kernel_0", 4.0), ("kernel_1", 4.0), ("kernel_2", 1.0)):
        assert np.var(params[name]) * params[name].shape[0] == pytest.approx(gain, rel=0.25)
    for kernel, stored in zip(network.apply({"params": params}), params.values(), strict=True):
        np.testing.assert_array_equal(kernel, stored)
