import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from mlipjax.nn.coupling_product import expand, outer, product

N, A, B, C = 3, 5, 8, 6
RNG = np.random.default_rng(0)
MATRICES, MESSAGES, SUMS = (RNG.normal(size=shape) for shape in ((N, A, B), (N, B, C), (N, A, C)))
PRODUCTS = {
    "product": (product, "nab,nbc->nac", (MATRICES, MESSAGES)),
    "expand": (expand, "nab,nac->nbc", (MATRICES, SUMS)),
    "outer": (outer, "nac,nbc->nab", (SUMS, MESSAGES)),
}


@pytest.mark.parametrize("terms", [1, 2, 7])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_equal_numpys(name, terms):
    function, subscripts, _ = PRODUCTS[name]
    sizes = {"n": N, "a": terms, "b": B, "c": C}
    pair = [RNG.normal(size=[sizes[i] for i in part]) for part in subscripts.split("->")[0].split(",")]
    np.testing.assert_allclose(jax.jit(function)(*pair), np.einsum(subscripts, *pair), atol=1e-13)


@pytest.mark.parametrize("name", PRODUCTS)
def test_derivatives_of_products_agree_with_finite_differences_in_both_modes(name):
    function, _, pair = PRODUCTS[name]
    check_grads(lambda x, y: jnp.sin(function(x, y)), pair, order=3, rtol=1e-5)


@pytest.mark.parametrize("axes", [(0, 0), (1, None), (None, 0)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_batches_of_products_equal_single_products(name, axes):
    function, _, pair = PRODUCTS[name]
    every = [RNG.normal(size=(4, *x.shape)) for x in pair]
    given = [x[0] if a is None else np.moveaxis(x, 0, a) for x, a in zip(every, axes, strict=True)]
    found = jax.jit(jax.vmap(function, axes))(*given)
    for i in range(4):
        one = function(*(x[0] if a is None else x[i] for x, a in zip(every, axes, strict=True)))
        np.testing.assert_allclose(found[i], one, atol=1e-13)


def test_no_atoms_and_undefined_numbers_pass_through():
    assert expand(MATRICES[:0], SUMS[:0]).shape == (0, B, C)
    broken = MATRICES.copy()
    broken[0, 0, 0] = np.nan
    assert np.isnan(expand(broken, SUMS)[0, 0]).all()
