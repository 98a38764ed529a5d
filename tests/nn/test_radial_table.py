import itertools

import jax
import jax.numpy as jnp
import numpy as np

from mlipjax.nn.radial import bessel_basis, bessel_frequencies, polynomial_envelope, xplor_envelope
from mlipjax.nn.radial_table import MIN_EDGES, hidden_layers, radial_edges, tabulated

CUTOFF = 4.5
KERNELS = [
    np.random.default_rng(i).normal(size=shape) * (2.0 / shape[0]) ** 0.5
    for i, shape in enumerate(itertools.pairwise((8, 32, 32, 20)))
]
DISTANCE = np.random.default_rng(3).uniform(0.8, CUTOFF + 0.3, size=(7, 40))
USED = np.random.default_rng(4).uniform(size=DISTANCE.shape) < 0.8


def basis(distance):
    frequencies = jnp.asarray(bessel_frequencies(8, CUTOFF).astype(distance.dtype))
    return bessel_basis(distance, frequencies, CUTOFF) * polynomial_envelope(distance, CUTOFF, 6.0)[..., None]


def network(distance, kernels=KERNELS):
    return hidden_layers(kernels, basis(distance).reshape(-1, 8)) @ kernels[-1]


def table(distance, used, kernels=KERNELS):
    edges = tabulated(basis, distance, used, CUTOFF)
    weights, state = edges.weights(kernels)
    return weights(state, edges.rows)[1]


def cast(tree, dtype):
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), tree)


def slopes_of(function, distance):
    return jax.jvp(function, (distance,), (jnp.ones_like(distance),))[1]


def test_weights_and_their_derivatives_equal_the_network():
    everywhere = np.ones_like(USED)
    exact, found = network, lambda r: table(r, everywhere)
    # third derivatives differ at the cutoff, where those of the envelope jump
    for tolerance, order in ((1e-7, 0), (1e-6, 1), (2e-4, 2)):
        scale = np.abs(exact(DISTANCE)).max()
        np.testing.assert_allclose(found(DISTANCE), exact(DISTANCE), atol=tolerance * scale, err_msg=str(order))
        exact, found = (lambda r, f=f: slopes_of(f, r) for f in (exact, found))


def test_a_kink_in_the_slope_is_where_one_spline_ends_and_the_next_begins():
    def switched(distance):
        frequencies = jnp.asarray(bessel_frequencies(8, CUTOFF).astype(distance.dtype))
        return bessel_basis(distance, frequencies, CUTOFF) * xplor_envelope(distance, 3.25, CUTOFF)[..., None]

    def error(kinks):
        def found(distance):
            edges = tabulated(switched, distance, np.ones_like(USED), CUTOFF, kinks)
            weights, state = edges.weights(KERNELS)
            return weights(state, edges.rows)[1]

        def exact(distance):
            return hidden_layers(KERNELS, switched(distance).reshape(-1, 8)) @ KERNELS[-1]

        places = DISTANCE.copy()
        places[0, :3] = 3.25, 3.25 - 1e-9, 3.25 + 1e-9
        difference = slopes_of(found, places) - slopes_of(exact, places)
        return np.abs(difference).max() / np.abs(slopes_of(exact, places)).max()

    assert error((3.25,)) < 1e-6
    # one spline through the kink shows that there is one
    assert error(()) > 1e-4


def test_single_precision_loses_nothing_that_the_network_keeps():
    everywhere = np.ones_like(USED)
    kernels = cast(KERNELS, np.float32)
    # at distances that single precision holds exactly
    places = np.clip(DISTANCE, 0.8, CUTOFF).astype(np.float32)

    def errors(derive):
        truth = derive(network)(places.astype(np.float64))
        singles = (lambda r: network(r, kernels), lambda r: table(r, everywhere, kernels))
        return [np.sqrt(np.mean((derive(f)(jnp.asarray(places)) - truth) ** 2)) for f in singles]

    for derive in (lambda f: f, lambda f: lambda r: slopes_of(f, r)):
        of_network, of_table = errors(derive)
        assert 0.0 < of_table < 2.0 * of_network


def test_gradients_of_kernels_equal_those_of_the_network():
    cotangent = np.random.default_rng(5).normal(size=(DISTANCE.size, 20))

    def of_slopes(weights):
        def total(kernels):
            return jnp.vdot(cotangent, slopes_of(lambda r: weights(r, kernels), jnp.asarray(DISTANCE)) ** 2)

        return jax.jit(jax.grad(total))(KERNELS)

    everywhere = np.ones_like(USED)
    pairs = zip(of_slopes(lambda r, k: table(r, everywhere, k)), of_slopes(network), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_unused_slots_and_edges_beyond_the_cutoff_contribute_exactly_nothing():
    out = ~(USED & (DISTANCE < CUTOFF)).reshape(-1)
    weights, slopes = table(DISTANCE, USED), slopes_of(lambda r: table(r, USED), DISTANCE)
    assert np.all(weights[out] == 0.0)
    assert np.all(slopes[out] == 0.0)
    assert np.all(np.any(weights[~out] != 0.0, axis=1))


def test_a_table_serves_many_edges_in_single_precision_only():
    def has_table(n, dtype, kinks=()):
        distance = jnp.full((n, 64), 2.0, dtype)
        return radial_edges(basis, distance, distance > 0.0, CUTOFF, 64, kinks).table is not None

    many = MIN_EDGES // 64
    assert has_table(many, np.float32)
    assert not has_table(many - 1, np.float32)
    assert not has_table(many, np.float64)
    assert has_table(many, np.float32, (3.25,))
    assert not has_table(many, np.float32, (3.3,))
