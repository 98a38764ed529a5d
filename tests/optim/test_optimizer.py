import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlipjax.losses import LossWeights
from mlipjax.optim import Group, Hyper, Optimizer, OptimizerConfig, ema_update

RULES = (("layer_0/.*", Group(power=2)), ("layer_1/.*", Group(scale=0.3)), ("readout/.*", Group()), (".*", None))
PARAMS = {
    "frozen": {"w": jnp.array([1.0, -0.0])},
    "layer_0": {"w": jnp.array([1.0, -2.0])},
    "layer_1": {"w": jnp.array([[0.5]])},
    "readout": {"w": jnp.array([3.0])},
}


def hyper(learning_rate=0.1, decay=0.5, scales=(1.0, 0.3, 1.0, 0.0)):
    return Hyper(learning_rate, decay, scales, LossWeights())


def gradients(n=4, scale=1.0):
    rng = np.random.default_rng(0)
    return [jax.tree.map(lambda leaf: jnp.array(scale * rng.normal(size=leaf.shape)), PARAMS) for _ in range(n)]


def run(optimizer, numbers, grads):
    params, state = PARAMS, optimizer.init(PARAMS)
    history = []
    for gradient in grads:
        updates, state = optimizer.update(optimizer.split(gradient)[0], state, numbers)
        params = jax.tree.map(lambda p, u: p if u is None else p + u, params, _fill(updates))
        history.append(updates)
    return params, history


def _fill(updates):
    return {name: {"w": 0.0 if updates[name]["w"] is None else updates[name]["w"]} for name in PARAMS}


def test_updates_are_adams_times_the_multiplier():
    grads = gradients()
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=10, schedule="constant", clip=1e9))
    _, history = run(optimizer, hyper(), grads)
    adam = optax.adam(0.1)
    state = adam.init(PARAMS)
    for gradient, updates in zip(grads, history, strict=True):
        expected, state = adam.update(gradient, state)
        for name, multiplier in (("layer_0", 0.25), ("layer_1", 0.3), ("readout", 1.0)):
            np.testing.assert_allclose(updates[name]["w"], multiplier * expected[name]["w"], rtol=1e-6)
        assert updates["frozen"]["w"] is None


def test_multiplier_ratios_are_exact_because_they_follow_adam():
    grads = gradients()
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=10, clip=1e9))
    _, full = run(optimizer, hyper(decay=1.0), grads)
    _, reduced = run(optimizer, hyper(decay=0.5), grads)
    for a, b in zip(full, reduced, strict=True):
        np.testing.assert_array_equal(0.25 * a["layer_0"]["w"], b["layer_0"]["w"])
        np.testing.assert_array_equal(a["readout"]["w"], b["readout"]["w"])


def test_a_scale_of_zero_holds_parameters_still():
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=10))
    params, _ = run(optimizer, hyper(scales=(0.0, 0.3, 1.0, 0.0)), gradients())
    np.testing.assert_array_equal(params["layer_0"]["w"], PARAMS["layer_0"]["w"])
    assert not np.array_equal(params["readout"]["w"], PARAMS["readout"]["w"])


def test_gradient_is_clipped_by_its_whole_trainable_norm():
    config = OptimizerConfig((("frozen/.*", None), (".*", Group())), total_steps=10, schedule="constant", clip=1.0)
    optimizer = Optimizer(config)
    numbers = hyper(decay=1.0, scales=(0.0, 1.0))
    small, large = gradients(1, 1e-3)[0], gradients(1, 1e3)[0]
    norm = np.sqrt(sum(np.sum(leaf**2) for name, leaf in jax.tree.leaves_with_path(large) if "frozen" not in str(name)))
    clipped = jax.tree.map(lambda leaf: leaf / norm, large)
    for first, second in ((large, clipped), (small, small)):
        _, updates = run(optimizer, numbers, [first, small])
        _, expected = run(optimizer, numbers, [second, small])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), updates, expected)


def test_updates_have_finite_derivatives_at_zero_gradients():
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=10))

    def moved(scale, rate):
        gradient = jax.tree.map(lambda leaf: scale * leaf, gradients(1)[0])
        updates, _ = optimizer.update(optimizer.split(gradient)[0], optimizer.init(PARAMS), hyper(rate))
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(updates))

    assert moved(0.0, 0.1) == 0.0
    first = jax.grad(moved, argnums=(0, 1))(0.0, 0.1)
    second = jax.grad(lambda scale, rate: jax.grad(moved)(scale, rate), argnums=(0, 1))(0.0, 0.1)
    assert np.isfinite([*first, *second]).all()
    assert first[0] != 0.0


def test_dtypes_are_those_of_the_parameters():
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
    optimizer = Optimizer(OptimizerConfig(RULES, total_steps=10, warmup_steps=2))
    numbers = jax.tree.map(jnp.asarray, hyper())
    updates, state = optimizer.update(optimizer.split(params)[0], optimizer.init(params), numbers)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    assert all(leaf.dtype != jnp.float64 for leaf in jax.tree.leaves(state))
    average = ema_update(params, params, jnp.int32(3), 0.99)
    assert {leaf.dtype for leaf in jax.tree.leaves(average)} == {jnp.dtype("float32")}


def test_average_follows_fast_at_first_and_slowly_later():
    zero, one = {"w": jnp.zeros(1)}, {"w": jnp.ones(1)}
    np.testing.assert_allclose(ema_update(zero, one, 1, 0.999)["w"], 1 - 2 / 11)
    np.testing.assert_allclose(ema_update(zero, one, 10**6, 0.999)["w"], 1e-3)
    odd = {"w": jnp.array([0.1, 1e-20, -0.3])}
    np.testing.assert_array_equal(ema_update(odd, odd, 5, 0.99)["w"], odd["w"])


@pytest.mark.parametrize("settings", [{"clip": 0.0}, {"clip": float("nan")}, {"ema_decay": 1.0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must"):
        Optimizer(OptimizerConfig(RULES, total_steps=10, **settings))
