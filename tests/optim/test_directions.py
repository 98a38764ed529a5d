import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlipjax.losses import LossWeights
from mlipjax.optim import Adam, Group, Hyper, Muon, Optimizer, OptimizerConfig
from mlipjax.optim.directions import orthogonalized

SHAPES = {"kernel": (6, 16), "tall": (16, 6), "elements": (3, 8, 5), "scale": (7,), "readout": (6, 1)}


def gradients(n, scale=1.0):
    rng = np.random.default_rng(0)
    return [{name: jnp.array(scale * rng.normal(size=shape)) for name, shape in SHAPES.items()} for _ in range(n)]


def updates_of(transformation, grads):
    state, found = transformation.init(grads[0]), []
    for gradient in grads:
        updates, state = transformation.update(gradient, state)
        found.append(updates)
    return found


@pytest.mark.parametrize("shape", [(8, 8), (4, 30), (30, 4), (3, 10, 6)])
@pytest.mark.parametrize("scale", [1e-5, 1.0])
def test_singular_vectors_stay_and_singular_values_become_alike(shape, scale):
    matrices = scale * np.random.default_rng(1).normal(size=shape)
    left, _, right = np.linalg.svd(matrices, full_matrices=False)
    values = np.swapaxes(left, -1, -2) @ np.asarray(orthogonalized(jnp.array(matrices))) @ np.swapaxes(right, -1, -2)
    diagonal = np.diagonal(values, axis1=-2, axis2=-1)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.2
    np.testing.assert_allclose(values, diagonal[..., None] * np.eye(diagonal.shape[-1]), atol=1e-6)


def test_a_kernel_moves_as_optax_moves_it_and_the_rest_by_adam():
    grads = gradients(6)
    found = updates_of(Muon().transformation(), grads)
    matrices = ("kernel", "tall", "elements")

    def dimensions(tree):
        return {name: optax.contrib.MuonDimensionNumbers(-2, -1) if name in matrices else None for name in tree}

    theirs = optax.contrib.muon(-1.0, muon_weight_dimension_numbers=dimensions, consistent_rms=1.0)
    state = theirs.init(grads[0])
    adam = updates_of(Adam().transformation(), grads)
    for number, (gradient, updates) in enumerate(zip(grads, found, strict=True)):
        expected, state = theirs.update(gradient, state, gradient)
        for name in matrices:
            if number == 0:
                np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5)
            # later ones differ by the correction for the bias of their mean
            cosine = np.vdot(updates[name], expected[name]) / np.sqrt(
                np.vdot(updates[name], updates[name]) * np.vdot(expected[name], expected[name])
            )
            assert cosine > 0.97
            rms = np.sqrt(np.mean(np.asarray(updates[name]) ** 2))
            assert 0.6 < rms < 1.2
        for name in ("scale", "readout"):
            np.testing.assert_array_equal(updates[name], adam[number][name])


def test_the_size_of_gradients_does_not_matter():
    small, large = (updates_of(Muon().transformation(), gradients(3, scale)) for scale in (1e-3, 1.0))
    for a, b in zip(small, large, strict=True):
        for name in ("kernel", "elements"):
            np.testing.assert_allclose(a[name], b[name], rtol=1e-6)


def test_elements_have_matrices_of_their_own():
    grads = gradients(2)
    other = [{**gradient, "elements": gradient["elements"].at[0].set(0.0)} for gradient in grads]
    for a, b in zip(*(updates_of(Muon().transformation(), each) for each in (grads, other)), strict=True):
        np.testing.assert_array_equal(b["elements"][0], 0.0)
        np.testing.assert_array_equal(a["elements"][1:], b["elements"][1:])


@pytest.mark.parametrize("direction", [Adam(), Muon()], ids=["adam", "muon"])
def test_steps_have_finite_derivatives_where_a_gradient_is_zero(direction):
    optimizer = Optimizer(OptimizerConfig(((".*", Group()),), total_steps=10, direction=direction))

    def moved(scale, rate):
        gradient = jax.tree.map(lambda leaf: scale * leaf, gradients(1)[0])
        hyper = Hyper(rate, 1.0, (1.0,), LossWeights())
        updates, _ = optimizer.update(gradient, optimizer.init(gradient), hyper)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(updates))

    assert moved(0.0, 0.1) == 0.0
    assert np.isfinite(jax.grad(moved, argnums=(0, 1))(0.0, 0.1)).all()


def test_frozen_parameters_have_no_state_and_no_step():
    optimizer = Optimizer(OptimizerConfig((("scale", None), (".*", Group())), total_steps=10, direction=Muon()))
    gradient = gradients(1)[0]
    updates, state = optimizer.update(
        optimizer.split(gradient)[0], optimizer.init(gradient), Hyper(1.0, 1.0, (0.0, 1.0), LossWeights())
    )
    assert updates["scale"] is None
    assert sum(leaf.shape == SHAPES["scale"] for leaf in jax.tree.leaves(state)) == 0


def test_adam_is_to_the_bit_what_it_was_before_there_was_a_choice():
    grads = gradients(4)
    optimizer = Optimizer(OptimizerConfig(((".*", Group()),), total_steps=10, schedule="constant", clip=1e9))
    state = optimizer.init(grads[0])
    adam = updates_of(optax.scale_by_adam(eps=0.0, eps_root=1e-16), grads)
    for gradient, expected in zip(grads, adam, strict=True):
        updates, state = optimizer.update(gradient, state, Hyper(1.0, 1.0, (1.0,), LossWeights()))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, -b), updates, expected)
