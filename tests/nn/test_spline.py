import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline, make_interp_spline

from mlipjax.nn.bspline import DEGREE, collocation_inverse, points
from mlipjax.nn.primitives.spline import evaluate, ledger_of, lookup

INTERVALS, COLUMNS = 9, 3
RNG = np.random.default_rng(0)
TABLE = RNG.normal(size=(INTERVALS + DEGREE, COLUMNS))
PLACES = np.array([0.0, 0.3, 1.0, 4.75, 4.8, 8.999])
INDEX, FRACTION = np.floor(PLACES).astype(np.int32), PLACES % 1.0
ROWS = RNG.normal(size=(len(PLACES), COLUMNS))
FACTOR = RNG.normal(size=len(PLACES))


def of_places(places, values=TABLE, slopes=TABLE):
    return evaluate(values, slopes, (ledger_of(values), ledger_of(slopes)), places)[0]


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


@pytest.mark.parametrize("order", range(DEGREE + 2))
def test_lookup_equals_derivatives_of_scipy(order):
    spline = BSpline(np.arange(-DEGREE, INTERVALS + DEGREE + 1.0), TABLE, DEGREE)
    expected = spline.derivative(order)(PLACES) if order <= DEGREE else np.zeros_like(ROWS)
    found = lookup(TABLE, FACTOR, INDEX, FRACTION, order)
    np.testing.assert_allclose(found, FACTOR[:, None] * expected, atol=1e-12)


def test_gradients_of_evaluations_in_turn_reach_the_tables_through_the_ledgers():
    slopes, weights = RNG.normal(size=TABLE.shape), RNG.normal(size=(2, len(PLACES), COLUMNS))
    shifted = PLACES[::-1] * 0.9

    def threaded(values, slopes, places):
        ledgers = ledger_of(values), ledger_of(slopes)
        fixed = jax.lax.stop_gradient((values, slopes))

        @jax.checkpoint
        def step(ledgers, x):
            found, ledgers = evaluate(*fixed, ledgers, x[0])
            return ledgers, jnp.vdot(x[1], jnp.sin(found))

        return jnp.sum(jax.lax.scan(step, ledgers, (places, weights))[1])

    def plain(values, slopes, places):
        def one(x):
            index = jax.lax.stop_gradient(jnp.floor(x)).astype(np.int32)
            fixed = jax.lax.stop_gradient(x)
            value = lookup(values, jnp.ones_like(x), index, fixed - index)
            # a function with the values and derivatives of evaluate, up to the second
            first, second = (lookup(slopes, jnp.ones_like(x), index, fixed - index, order) for order in (0, 1))
            step = (x - fixed)[:, None]
            return value + first * step + second * step**2 / 2

        return jnp.vdot(weights, jnp.sin(jnp.stack([one(x) for x in places])))

    def pushed(function):
        # the directional derivative whose gradient training takes
        return lambda *args: jax.jvp(lambda x: function(*args[:2], x), args[2:], (jnp.cos(args[2]),))[1]

    both = np.stack([PLACES, shifted])
    for derive in (lambda f: f, pushed):
        found, expected = (jax.jit(jax.grad(derive(f), argnums=(0, 1)))(TABLE, slopes, both) for f in (threaded, plain))
        for x, y in zip(found, expected, strict=True):
            assert derive is not pushed or np.abs(y).max() > 0.1
            np.testing.assert_allclose(x, y, atol=1e-12)
    found, expected = (jax.jit(jax.jacfwd(jax.grad(pushed(f))))(TABLE, slopes, both) for f in (threaded, plain))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    twice = [
        jax.jit(jax.grad(lambda *args, f=f: jnp.sum(jax.grad(f, argnums=2)(*args) ** 2), argnums=(0, 1)))(
            TABLE, slopes, both
        )
        for f in (threaded, plain)
    ]
    for x, y in zip(*twice, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-12)
