import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy.interpolate import BSpline, make_interp_spline

from mlipjax.nn.spline import DEGREE, collocation_inverse, evaluate, lookup, points, spread

INTERVALS, COLUMNS = 9, 3
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(INTERVALS + DEGREE, COLUMNS))
PLACES = np.array([0.0, 0.3, 1.0, 4.75, 4.8, 8.999])
INDEX, FRACTION = np.floor(PLACES).astype(np.int32), PLACES % 1.0
ROWS = RNG.normal(size=(len(PLACES), COLUMNS))


FACTOR = RNG.normal(size=len(PLACES))


def of_places(places, values=TABLE, slopes=TABLE):
    return evaluate(values, slopes, places)


def test_evaluation_equals_scipy():
    spline = BSpline(np.arange(-DEGREE, INTERVALS + DEGREE + 1.0), TABLE, DEGREE)
    np.testing.assert_allclose(of_places(PLACES), spline(PLACES), atol=1e-12)


def test_the_derivative_is_that_of_the_splines_for_slopes():
    slopes = RNG.normal(size=TABLE.shape)
    (_, first), (_, second) = (
        jax.jvp(function, (PLACES,), (np.ones_like(PLACES),))
        for function in (
            lambda x: of_places(x, slopes=slopes),
            lambda x: jax.jvp(lambda y: of_places(y, slopes=slopes), (x,), (jnp.ones_like(x),))[1],
        )
    )
    spline = BSpline(np.arange(-DEGREE, INTERVALS + DEGREE + 1.0), slopes, DEGREE)
    np.testing.assert_allclose(first, spline(PLACES), atol=1e-12)
    np.testing.assert_allclose(second, spline.derivative()(PLACES), atol=1e-12)


def test_coefficients_of_values_reproduce_a_polynomial_and_interpolate_anything():
    places = points(INTERVALS)
    values = np.stack([places**5 - 3.0 * places**2, np.sin(places)], axis=1)
    found = of_places(PLACES, collocation_inverse(INTERVALS) @ values)
    np.testing.assert_allclose(found[:, 0], PLACES**5 - 3.0 * PLACES**2, rtol=1e-11, atol=1e-9)
    # not-a-knot ends of scipy's instead of points between knots
    usual = make_interp_spline(np.arange(INTERVALS + 1.0), np.sin(np.arange(INTERVALS + 1.0)), k=DEGREE)
    assert np.abs(found[:, 1] - np.sin(PLACES)).max() < np.abs(usual(PLACES) - np.sin(PLACES)).max() < 0.1


FUNCTIONS = {
    "lookup": (lookup, TABLE),
    "spread": (lambda *args: spread(*args, len(TABLE)), ROWS),
}


@pytest.mark.parametrize("order", range(DEGREE + 2))
def test_lookup_equals_derivatives_of_scipy(order):
    spline = BSpline(np.arange(-DEGREE, INTERVALS + DEGREE + 1.0), TABLE, DEGREE)
    expected = spline.derivative(order)(PLACES) if order <= DEGREE else np.zeros_like(ROWS)
    found = lookup(TABLE, FACTOR, INDEX, FRACTION, order)
    np.testing.assert_allclose(found, FACTOR[:, None] * expected, atol=1e-12)


@pytest.mark.parametrize("order", [0, 2])
def test_spread_is_the_transpose_of_lookup(order):
    there = jnp.vdot(ROWS, lookup(TABLE, FACTOR, INDEX, FRACTION, order))
    back = jnp.vdot(spread(ROWS, FACTOR, INDEX, FRACTION, len(TABLE), order), TABLE)
    assert there == pytest.approx(float(back), rel=1e-12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_agree_with_finite_differences_in_both_modes(name):
    function, first = FUNCTIONS[name]
    inside = np.clip(FRACTION, 0.1, 0.9)
    check_grads(lambda x, c, f: jnp.sin(function(x, c, INDEX, f)), (first, FACTOR, inside), order=3, rtol=1e-5)


@pytest.mark.parametrize("axes", [(0, None, None, None), (1, 0, 0, 0), (None, None, 0, None), (None, 1, None, 1)])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_batch_equals_single_calls(name, axes):
    function, first = FUNCTIONS[name]
    n, e = 4, len(PLACES)
    every = [
        RNG.normal(size=(n, *first.shape)),
        RNG.normal(size=(n, e)),
        RNG.integers(0, INTERVALS, size=(n, e)).astype(np.int32),
        RNG.uniform(size=(n, e)),
    ]
    given = [x[0] if a is None else np.moveaxis(x, 0, a) for x, a in zip(every, axes, strict=True)]
    found = jax.jit(jax.vmap(function, axes))(*given)
    for i in range(n):
        one = function(*(x[0] if a is None else x[i] for x, a in zip(every, axes, strict=True)))
        np.testing.assert_allclose(found[i], one, atol=1e-12)
