"""Each primitive equals the plain operation beside it: values, derivatives of both modes and orders, batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlipjax.nn.bspline import DEGREE
from mlipjax.nn.primitives import coupling_product as coupling
from mlipjax.nn.primitives import spline

RNG = np.random.default_rng(0)
ATOMS, SMALL, WIDE, CHANNELS, ROWS = 3, 5, 8, 6, 14
MATRICES, MESSAGES, SUMS = (
    RNG.normal(size=(ATOMS, *shape)) for shape in ((SMALL, WIDE), (WIDE, CHANNELS), (SMALL, CHANNELS))
)
TABLE, LEDGER = RNG.normal(size=(ROWS, CHANNELS)), np.zeros((ROWS, CHANNELS))
INDEX = np.array([0, 3, 3, 4, 8], np.int32)
FACTOR, ADDED, FRACTION = RNG.normal(size=5), RNG.normal(size=(5, CHANNELS)), RNG.uniform(size=5)


def of_order(function, order):
    return functools.partial(function, order=order)


PRIMITIVES = {
    "product": (coupling.product, coupling.product_plainly, (MATRICES, MESSAGES)),
    "expand": (coupling.expand, coupling.expand_plainly, (MATRICES, SUMS)),
    "outer": (coupling.outer, coupling.outer_plainly, (SUMS, MESSAGES)),
    "rate": (lambda *x: spline._rate(*x, 0), spline.rate_plainly, (TABLE, LEDGER, FACTOR, INDEX, FRACTION)),
}
for order in (0, 2, DEGREE, DEGREE + 1):
    for name, first in (("read", (TABLE,)), ("deposit", (TABLE, ADDED))):
        pair = (of_order(getattr(spline, end), order) for end in (name, f"{name}_plainly"))
        PRIMITIVES[f"{name}, derivative {order}"] = (*pair, (*first, FACTOR, INDEX, FRACTION))


def is_real(x):
    return x.dtype.kind == "f"


def of_real(function, arguments):
    """The function of its real arguments, the integer ones given, with the sine of what it returns."""

    def real(*given):
        given = iter(given)
        found = function(*(next(given) if is_real(x) else x for x in arguments))
        return jax.tree.leaves(jax.tree.map(jnp.sin, found))

    return real, [x for x in arguments if is_real(x)]


def assert_equal(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-11)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_values_and_derivatives_of_both_modes_are_those_of_the_plain_operation(name):
    primitive, plain, arguments = PRIMITIVES[name]
    tangents = tuple(np.cos(3.0 * x) for x in arguments if is_real(x))
    if name == "rate":  # its slopes are not differentiated
        tangents = (np.zeros_like(TABLE), *tangents[1:])

    def everything(function):
        real, given = of_real(function, arguments)
        pushed = lambda *x: jax.jvp(real, x, tangents)  # noqa: E731

        def pulled(*x):
            found, pull = jax.vjp(real, *x)
            return pull([jnp.cos(2.0 * y) for y in found])[1 if name == "rate" else 0 :]

        def fourth(*x):
            return jax.jvp(lambda *y: jax.vjp(pushed, *y)[1](pushed(*y))[1:], x, tangents)

        return jax.jit(lambda *x: (pushed(*x), pulled(*x), fourth(*x)))(*given)

    assert_equal(everything(primitive), everything(plain))


@pytest.mark.parametrize("mapped", ["all", "first", "others"])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_batch_equals_the_batch_of_the_plain_operation(name, mapped):
    primitive, plain, arguments = PRIMITIVES[name]
    axes = [
        {"all": 0, "first": 0 if k == 0 else None, "others": None if k == 0 else -1}[mapped]
        for k in range(len(arguments))
    ]
    batch = [
        x if axis is None else np.stack([x, x[::-1], x] if x is INDEX else [x, 2.0 * x, x - 1.0], axis)
        for x, axis in zip(arguments, axes, strict=True)
    ]
    assert_equal(*(jax.jit(jax.vmap(function, axes))(*batch) for function in (primitive, plain)))


@pytest.mark.parametrize("terms", [1, 7])
def test_any_number_of_terms_and_no_atoms_at_all(terms):
    matrices, sums = RNG.normal(size=(2, terms, WIDE)), RNG.normal(size=(2, terms, CHANNELS))
    assert_equal(coupling.expand(matrices, sums), coupling.expand_plainly(matrices, sums))
    assert coupling.expand(matrices[:0], sums[:0]).shape == (0, WIDE, CHANNELS)


def test_undefined_numbers_pass_through():
    broken = MATRICES.copy()
    broken[0, 0, 0] = np.nan
    assert np.isnan(coupling.expand(broken, SUMS)[0, 0]).all()
